"""Models and samples that nobody wished for, given to each technique that trains: right, listed, or refused by name."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from strop.core.errors import ModelError, ParameterError, UnknownNameError
from strop.core.samples import Samples
from strop.graph.keras_models import signature_of
from strop.graph.quiet import quiet
from strop.numerics.sparsity import pattern_named
from strop.train.clustering import cluster
from strop.train.factorization import factorize
from strop.train.fine_tuning import FineTuning, fine_tune
from strop.train.pruning import prune
from strop.train.quantization import Quantization, quantization_aware


def quantize(model, exclude=()):
    return quantization_aware(model, Quantization(exclude=tuple(exclude)))


TECHNIQUES = {
    "prune": lambda model, **more: prune(model, 0.5, **more),
    "cluster": lambda model, **more: cluster(model, 4, **more),
    "factorize": lambda model, **more: factorize(model, 0.5, **more),
    "quantize": quantize,
}
IN_PLACE, ANEW = ("prune", "cluster"), ("factorize", "quantize")
every = pytest.mark.parametrize("technique", TECHNIQUES)


@pytest.fixture(autouse=True)
def _silence():
    keras.utils.set_random_seed(0)
    with quiet():
        yield


def drawn(*shape):
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def row(*within, shape=(8,)):
    return keras.Sequential([keras.Input(shape, name="x"), *within])


def net():
    return row(
        layers.Dense(24, activation="relu", name="h"),
        layers.Dense(3, activation="softmax", name="y"),
    )


def apply(technique, model, **more):
    """Return what a technique makes of a model, the layers treated, and the others with the reason."""
    found = TECHNIQUES[technique](model, **more)
    if technique == "quantize":
        return found.model, list(found.quantized), found.left_in_float
    treated = getattr(
        found, {"prune": "sparsity", "cluster": "values", "factorize": "layers"}[technique]
    )
    return getattr(found, "model", model), list(treated), found.left_alone


class Own(keras.Model):
    """A model whose own code calls its layers."""

    def __init__(self):
        super().__init__(name="own")
        self.first, self.last = layers.Dense(24, name="first"), layers.Dense(8, name="last")

    def call(self, x):
        return self.last(self.first(x))


class Table(layers.Layer):
    """A layer with a kernel that nobody knows."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], 24), name="table")

    def call(self, x):
        return x @ self.table


class Untold(layers.Layer):
    """A layer whose configuration does not make another."""

    def __init__(self, width):
        super().__init__(name="untold")
        self.inner = layers.Dense(width, name="inner")

    def call(self, x):
        return self.inner(x)


@every
@pytest.mark.parametrize("build", [lambda: keras.Sequential([layers.Dense(3)]), Own])
def test_a_model_without_weights_yet_is_refused(technique, build):
    with pytest.raises(ModelError, match=r"not built|is of a class of its own"):
        apply(technique, build())


@every
def test_a_model_that_has_none_is_left_as_it_is(technique):
    model = row(layers.Activation("relu", name="function"), layers.Flatten())
    made, treated, left = apply(technique, model)
    # What computes in float is told of where integers were asked for.
    assert (treated, list(left)) == ([], ["function"] if technique == "quantize" else [])
    np.testing.assert_array_equal(made(drawn(2, 8)), ops.relu(drawn(2, 8)))


@pytest.mark.parametrize("technique", ["prune", "cluster", "factorize"])
def test_frozen_layers_are_left_alone(technique):
    model = net()
    model.trainable = False
    before = model.get_weights()
    made, treated, left = apply(technique, model)
    assert treated == []
    assert left == dict.fromkeys(["h", "y"], "it is frozen (trainable=False)")
    for was, now in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_frozen_layers_are_quantized_and_stay_frozen():
    model = net()
    model.layers[0].trainable = False
    made, treated, _ = apply("quantize", model)
    assert treated == ["h", "y"]
    assert len(made.trainable_variables) == 2


@pytest.mark.parametrize("technique", IN_PLACE)
def test_layers_that_a_models_own_code_calls_are_treated(technique):
    model = Own()
    model(drawn(2, 8))
    assert apply(technique, model)[1] == ["first", "last"]


@pytest.mark.parametrize("technique", ANEW)
def test_a_model_whose_layers_its_own_code_calls_is_refused_by_name(technique):
    model = Own()
    model(drawn(2, 8))
    with pytest.raises(ModelError, match=r"the model 'own'.*'?Own'?"):
        apply(technique, model)


@every
def test_a_layer_of_an_unknown_class_is_listed(technique):
    made, treated, left = apply(technique, row(Table(name="table"), layers.Dense(24, name="d")))
    assert treated == ["d"]
    assert "'Table'" in left["table"]
    assert made(drawn(2, 8)).shape == (2, 24)


@pytest.mark.parametrize("technique", IN_PLACE)
def test_layers_within_one_that_can_not_be_copied_are_treated(technique):
    assert apply(technique, row(Untold(16)))[1] == ["untold/inner"]


@pytest.mark.parametrize("technique", ANEW)
def test_a_layer_that_can_not_be_copied_is_named(technique):
    with pytest.raises(ModelError, match=r"(?i)untold"):
        apply(technique, row(Untold(16), layers.Dense(8)))


@every
def test_a_layer_in_two_places_is_treated_once(technique):
    left, right = keras.Input((24,), name="left"), keras.Input((24,), name="right")
    shared, inner = layers.Dense(24, name="shared"), row(layers.Dense(24, name="d"), shape=(24,))
    y = layers.Add(name="sum")([inner(shared(left)), inner(shared(right))])
    model = keras.Model([left, right], layers.Dense(8, name="y")(y))

    made, treated, _ = apply(technique, model)

    assert len({name.split("/")[-1] for name in treated}) == 3
    if technique != "quantize":
        assert len(treated) == 3
    if technique != "factorize":
        kernels = [w for w in made.trainable_variables if len(w.shape) == 2]
        assert len(kernels) == 3


@every
def test_dicts_of_inputs_and_outputs_stay_dicts(technique):
    numbers, tokens = keras.Input((8,), name="b"), keras.Input((4,), dtype="int32", name="a")
    table = layers.Flatten()(layers.Embedding(30, 12)(tokens))
    joined = layers.Concatenate()([numbers, table])
    outputs = {"z": layers.Dense(24)(joined), "c": [layers.Dense(3)(joined), table]}
    model = keras.Model({"b": numbers, "a": tokens}, outputs)
    given = {"b": drawn(2, 8), "a": np.ones((2, 4), "int32")}
    wanted = model(given)

    made, _, _ = apply(technique, model)

    keras.tree.assert_same_structure(made(given), wanted)
    assert signature_of(made) == signature_of(model)


@every
def test_layers_that_change_samples_at_random_stay(technique):
    model = row(
        layers.RandomFlip("horizontal", name="flip"),
        layers.GaussianNoise(0.5),
        layers.Conv2D(12, 3, name="conv"),
        layers.GlobalAveragePooling2D(),
        shape=(8, 8, 6),
    )
    made, treated, _ = apply(technique, model)
    assert treated == ["conv"]
    assert isinstance(made.get_layer("flip"), layers.RandomFlip)
    x = drawn(2, 8, 8, 6)
    once, again = (made(x, training=False) for _ in range(2))
    np.testing.assert_array_equal(once, again)


@every
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_any_precision_is_treated(technique, policy):
    model = row(layers.Dense(24, dtype=policy, name="h"), layers.Dense(24, dtype=policy))
    made, treated, _ = apply(technique, model)
    assert len(treated) == 2
    assert np.isfinite(np.asarray(made(drawn(2, 8)), np.float32)).all()


@pytest.mark.parametrize("technique", IN_PLACE)
def test_weights_that_are_no_numbers_are_refused(technique):
    model = net()
    model.layers[0].kernel.assign(np.full((8, 24), np.nan))
    with pytest.raises(ModelError, match="NaN"):
        apply(technique, model)


@every
def test_what_can_not_be_excluded_is_told(technique):
    with pytest.raises(UnknownNameError, match="Did you mean 'h'"):
        apply(technique, net(), exclude=["hh"])
    with pytest.raises(ParameterError, match="there is no function at 'nowhere:function'"):
        apply(technique, net(), exclude=["nowhere:function"])
    with pytest.raises(ParameterError, match="there is no function at 'os:function'"):
        apply(technique, net(), exclude=["os:function"])


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_sparsity_outside_of_0_to_1_is_refused(sparsity):
    with pytest.raises(ParameterError, match="sparsity"):
        prune(net(), sparsity)


def test_groups_that_do_not_divide_a_kernel_leave_it_alone():
    model = row(layers.Dense(6, name="of_eight"), layers.Dense(6, name="of_six"))
    found = prune(model, pattern=pattern_named("2:4"))
    assert found.sparsity == {"of_eight": 0.5}
    assert found.left_alone == {
        "of_six": "kernel: 4 does not divide the 6 weights along axis 0, which 2:4 is for"
    }


def test_fewer_weights_than_clusters_are_left_alone():
    found = cluster(net(), 100)
    assert list(found.values) == ["h"]
    assert found.left_alone == {"y": "kernel: 72 weights are fewer than 100 clusters"}


@pytest.mark.parametrize("clusters", [-1, 0, 1])
def test_fewer_than_two_clusters_are_refused(clusters):
    with pytest.raises(ParameterError, match="a whole number from 2"):
        cluster(net(), clusters)


def taught(model, x=None, y=None, **settings):
    x = drawn(64, 8) if x is None else x
    y = np.arange(len(x)) % 3 if y is None else y
    chosen = FineTuning(**{"epochs": 2, "batch_size": 16, **settings})
    return fine_tune(model, Samples({"x": x}, {"y": y}), signature_of(model), chosen)


@pytest.mark.parametrize(
    ("samples", "settings"),
    [
        ({}, {"batch_size": 10**6}),
        ({"x": drawn(8, 8)}, {}),
        ({"y": np.zeros(64, int)}, {}),
        ({}, {"learning_rate": 1e6}),
        ({"x": drawn(30, 8)}, {"batch_size": 7}),
    ],
    ids=["a batch of all", "eight samples", "one class", "a huge rate", "a last batch of another size"],
)  # fmt: skip
def test_odd_samples_and_settings_are_taught_with(samples, settings):
    model = net()
    found = taught(model, **samples, **settings)
    assert found.best is not None
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_no_epochs_change_nothing():
    model = net()
    before = model.get_weights()
    found = taught(model, epochs=0)
    assert (found.losses, found.best) == ((), None)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("samples", [{"x": drawn(64, 8) * np.nan}, {"y": np.full(64, np.nan)}])
def test_samples_that_are_no_numbers_end_it_and_leave_the_weights(samples):
    model = row(layers.Dense(24), layers.Dense(1, name="y"))
    before = model.get_weights()
    found = taught(model, **{"y": drawn(64, 1), **samples})
    assert (found.has_diverged, found.best) == (True, None)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_model_that_is_frozen_or_has_no_weights_can_be_told_to_learn():
    frozen = net()
    frozen.trainable = False
    taught(frozen)
    taught(row(layers.Activation("relu", name="y")), y=drawn(64, 8))


def test_training_that_diverges_late_keeps_what_was_best():
    rising = keras.optimizers.schedules.PiecewiseConstantDecay([8], [0.01, 1e38])  # two epochs
    model = net()
    model.compile(keras.optimizers.SGD(rising), "sparse_categorical_crossentropy")
    found = taught(model, epochs=6)
    assert found.has_diverged
    assert found.best is not None
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
