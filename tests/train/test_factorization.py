"""Layers become their factors only where that pays, and the model around them stays what it was."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from strop.core.errors import ModelError, ParameterError, UnknownNameError
from strop.core.samples import Samples
from strop.graph.keras_models import by_name, signature_of
from strop.graph.macs import of_graph_def
from strop.graph.quiet import quiet
from strop.numerics.low_rank import SingularValues, spatial_matrix
from strop.train.factorization import errors_against, factorize
from strop.train.factors import KINDS
from tests.models import settle, subclassed, transformer, two_in_two_out

# Single precision after sums of some hundred products: relative to the largest answer.
ROUNDING = 200 * 2.0**-24


@pytest.fixture(autouse=True)
def _silence():
    keras.utils.set_random_seed(0)
    with quiet():
        yield


def low_rank(shape, rank=2, seed=0):
    """Weights that are a sum of a few products of vectors, one along each axis: of low rank whichever way."""
    random = np.random.default_rng(seed)
    total = np.zeros(shape)
    for _ in range(rank):
        product = np.ones(())
        for size in shape:
            product = np.multiply.outer(product, random.normal(size=size))
        total += product
    return total / np.sqrt(total.var())


def simplified(model, rank=2):
    """Give all kernels of a model a low rank, so that all of their energy lies in few directions."""
    settle(model)
    for number, weight in enumerate(model.weights):
        if len(weight.shape) in (2, 4):
            weight.assign(
                low_rank(weight.shape, rank, number) / np.sqrt(np.prod(weight.shape[:-1]))
            )
    return model


def drawn(model, batch=3):
    random = np.random.default_rng(5)
    return [
        random.integers(1, 40, (batch, *spec.shape[1:])).astype(spec.dtype)
        if spec.dtype.startswith("int")
        else random.normal(size=(batch, *spec.shape[1:])).astype(spec.dtype)
        for spec in signature_of(model).inputs
    ]


def answers(model, inputs):
    return [ops.convert_to_numpy(x) for x in by_name(model, inputs, signature_of(model))]


def assert_alike(model, other):
    inputs = drawn(model)
    for wanted, found in zip(answers(model, inputs), answers(other, inputs), strict=True):
        assert np.abs(wanted).max() > 1e-3, "an output near zero shows nothing"
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING * np.abs(wanted).max())


def one(layer, shape, **given):
    return simplified(keras.Sequential([keras.Input(shape, name="x", **given), layer]))


GEOMETRIES = [
    {"padding": "same"},
    {"padding": "same", "strides": 2},
    {"padding": "valid", "strides": (2, 1), "use_bias": False},
    {"padding": "same", "dilation_rate": (2, 3), "activation": "relu"},
    {"padding": "valid", "dilation_rate": 2, "kernel_size": (3, 2)},
    {"padding": "same", "kernel_size": 1, "strides": 2},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_factors_of_a_convolution_answer_as_it_does_where_they_keep_all(kind, geometry):
    settings = {"kernel_size": 3, "name": "conv", **geometry}
    model = one(layers.Conv2D(12, **settings), (9, 8, 10))

    found = factorize(model, 1.0, kind=kind)

    assert list(found.layers) == ["conv"]
    assert set(found.layers["conv"].ranks) <= {2, 10, 12}  # the last two are all channels
    assert_alike(model, found.model)


@pytest.mark.parametrize("kind", KINDS)
def test_data_with_its_channels_first_stay_so(kind):
    model = one(
        layers.Conv2D(12, 3, strides=2, padding="same", data_format="channels_first", name="conv"),
        (10, 9, 8),
    )
    made = factorize(model, 1.0, kind=kind).model
    assert {layer.data_format for layer in made.layers} == {"channels_first"}
    assert [layer.name for layer in made.layers][-1] == "conv"
    assert_alike(model, made)


def test_dense_layers_and_look_ups_answer_as_before_where_all_is_kept():
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(40, 16, mask_zero=True, name="table")(tokens)
    x = layers.Dense(20, activation="gelu", name="wide")(x)
    x = layers.LSTM(4)(x)
    model = simplified(keras.Model(tokens, layers.Dense(12, activation="softmax", name="y")(x)))

    found = factorize(model, 1.0, exclude=["y"])

    assert {name: f.ranks for name, f in found.layers.items()} == {"table": (2,), "wide": (2,)}
    inputs = drawn(model)
    inputs[0][:, 3:] = 0  # what the mask hides would change the answers
    np.testing.assert_allclose(
        answers(found.model, inputs)[0], answers(model, inputs)[0], atol=ROUNDING
    )


def test_names_types_and_places_are_told_by_the_new_model():
    model = one(layers.Conv2D(12, 3, activation="relu", name="conv"), (9, 8, 10))
    made = factorize(model, 1.0).model
    assert [(type(x).__name__, x.name) for x in made.layers] == [
        ("Conv2D", "conv_factor1"),
        ("Conv2D", "conv_factor2"),
        ("Conv2D", "conv"),
    ]
    assert [layer.use_bias for layer in made.layers] == [False, False, True]
    assert [layer.activation.__name__ for layer in made.layers] == ["linear", "linear", "relu"]


def test_a_second_time_no_name_is_given_twice():
    model = settle(keras.Sequential([keras.Input((64,)), layers.Dense(64, name="d")]))
    once = factorize(model, 0.6).model
    twice = factorize(once, 0.4).model
    names = [layer.name for layer in twice.layers]
    assert len(names) > len(once.layers)
    assert len(set(names)) == len(names)


def branching():
    """All that makes a model hard to copy: operations, a shared layer, shared models within models, two outputs."""
    deep = layers.Dense(24, activation="tanh", name="deep")
    inner = keras.Sequential([keras.Input((24,)), deep], name="inner")
    middle_in = keras.Input((24,))
    middle = keras.Model(middle_in, inner(middle_in) + middle_in, name="middle")
    shared = layers.Dense(24, name="shared")
    left, right = keras.Input((24,), name="left"), keras.Input((24,), name="right")
    x = middle(shared(left)) * ops.sigmoid(inner(right))
    y = layers.BatchNormalization()(middle(shared(right)))
    z = layers.Lambda(lambda x: x * 2.0, output_shape=(24,))(y[:, ::-1])
    outputs = {"sum": layers.Dense(30, name="sum")(x + z), "raw": y}
    return simplified(keras.Model({"left": left, "right": right}, outputs))


def test_the_model_given_stays_as_it_is():
    model = branching()
    config, weights = model.to_json(), model.get_weights()
    nodes = [len(operation._inbound_nodes) for operation in model.operations]

    assert factorize(model, 1.0).layers

    assert model.to_json() == config
    assert [len(operation._inbound_nodes) for operation in model.operations] == nodes
    for before, after in zip(weights, model.get_weights(), strict=True):
        assert np.array_equal(before, after)


def test_shared_layers_and_models_within_models_are_factored_once():
    model = branching()

    found = factorize(model, 1.0)

    assert {name.split("/")[-1] for name in found.layers} == {"deep", "shared", "sum"}
    assert signature_of(found.model) == signature_of(model)
    assert_alike(model, found.model)
    shared = [layer for layer in found.model.layers if layer.name == "shared"]
    assert len(shared) == 1
    assert len(shared[0]._inbound_nodes) == 2
    saved = sum(f.weights[0] - f.weights[1] for f in found.layers.values())
    assert found.model.count_params() == model.count_params() - saved


def test_multiply_accumulates_are_those_of_all_places():
    factors = factorize(branching(), 1.0).layers
    macs = {name.split("/")[-1]: f.macs for name, f in factors.items()}
    # Rank 2 of 24 by 24: in two places, and three for the model that stands alone and within another that does twice.
    assert macs["shared"] == (2 * 24 * 24, 2 * 2 * 48)
    assert macs["deep"] == (3 * 24 * 24, 3 * 2 * 48)


@pytest.mark.parametrize("kind", KINDS)
def test_multiply_accumulates_are_those_that_the_graph_has(kind):
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = keras.Sequential(
        [
            keras.Input((12, 10, 8)),
            layers.Conv2D(16, 3, strides=(1, 2), padding="same", name="conv"),
            layers.Conv2D(24, (3, 2), name="second"),
            layers.Dense(32, name="dense"),
        ]
    )

    def counted(model):
        called = tf.function(model).get_concrete_function(tf.TensorSpec((1, 12, 10, 8)))
        return of_graph_def(convert_variables_to_constants_v2(called).graph.as_graph_def())

    found = factorize(model, 0.4, kind=kind)
    assert len(found.layers) == 3
    assert sum(f.macs[0] for f in found.layers.values()) == counted(model)
    assert sum(f.macs[1] for f in found.layers.values()) == counted(found.model)


def test_it_saves_loads_and_exports_as_any_model_does(tmp_path):
    model = settle(transformer())
    made = factorize(model, 0.5).model
    made.save(tmp_path / "made.keras")
    loaded = keras.models.load_model(tmp_path / "made.keras")
    assert_alike(made, loaded)
    assert signature_of(loaded) == signature_of(made) == signature_of(model)
    made.export(str(tmp_path / "exported"), verbose=False)
    (x,) = drawn(model)
    import tensorflow as tf

    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(x), answers(made, [x])[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_more_energy_takes_more_weights_and_leaves_less_error(kind):
    model = settle(
        keras.Sequential([keras.Input((8, 8, 16), name="x"), layers.Conv2D(32, 3, name="conv")])
    )
    (x,) = drawn(model, 16)
    weights, errors = [], []
    for energy in (0.4, 0.6, 0.75):
        found = factorize(model, energy, kind=kind, margin=0.0)
        factors = found.layers["conv"]
        assert factors.kept >= energy
        weights.append(factors.weights[1])
        missed = answers(found.model, [x])[0] - answers(model, [x])[0]
        errors.append(float(np.square(missed).mean()))
        # The image is noise, in which all weights count alike: what is missed of the kernel is missed of the answers.
        kernel = np.square(model.layers[0].kernel).sum() / 32
        assert errors[-1] == pytest.approx((1 - factors.kept) * kernel, rel=0.15)
    assert weights == sorted(weights)
    assert errors == sorted(errors, reverse=True)


def test_what_does_not_pay_is_left_alone_and_told():
    own = type("Own", (layers.Dense,), {})
    model = settle(
        keras.Sequential(
            [
                keras.Input((12, 12, 4)),
                layers.DepthwiseConv2D(3, name="depthwise"),
                layers.Conv2D(8, 3, groups=2, name="grouped"),
                layers.TimeDistributed(layers.Conv1D(8, 3, name="conv1d"), name="wrapped"),
                layers.Conv2D(32, 3, padding="same", name="noise"),
                layers.Conv2D(32, 3, kernel_constraint="non_neg", name="constrained"),
                layers.Dense(32, trainable=False, name="frozen"),
                own(32, name="own"),
                layers.Dense(32, name="damaged"),
                layers.Dense(1, name="thin"),
                layers.Dense(64, name="excluded"),
            ]
        )
    )
    model.get_layer("damaged").kernel.assign(np.full((32, 32), np.nan))

    found = factorize(model, 0.95, exclude=["excluded"])

    assert found.layers == {}
    noise = found.left_alone.pop("noise")
    assert noise.startswith("keeping 95% of its energy takes ranks ")
    assert noise.endswith(" of 8 and 32, which saves too little")
    assert found.left_alone == {
        "depthwise": "no factors of its class 'DepthwiseConv2D' are known",
        "grouped": "its channels are in 2 groups",
        "wrapped/conv1d": "code of the layer 'wrapped' calls it, where no others can be put",
        "constrained": "its kernel has a constraint, which factors would not keep",
        "frozen": "it is frozen (trainable=False)",
        "own": "no factors of its class 'Own' are known",
        "damaged": "its weights are not all finite",
        "thin": "its kernel, 32 x 1 as a matrix, is too small for any rank to pay",
        "excluded": "excluded, as 'excluded'",
    }


def test_where_nothing_pays_the_model_is_a_copy_that_answers_alike():
    model = settle(two_in_two_out())
    found = factorize(model, 1.0)
    assert found.layers == {}
    assert_alike(model, found.model)


def test_a_layer_has_to_save_the_margin():
    model = one(layers.Dense(20, name="d"), (20,))  # rank 2 has a fifth of the weights
    assert factorize(model, 1.0, margin=0.8).layers["d"].weights == (400, 80)
    assert factorize(model, 1.0, margin=0.81).layers == {}


def two_layers():
    """Two layers of one size, of which the second loses far more at a rank than the first."""
    model = keras.Sequential(
        [keras.Input((32,), name="x"), layers.Dense(32, name="low"), layers.Dense(32, name="full")]
    )
    model.get_layer("low").kernel.assign(low_rank((32, 32), 3) + 0.01 * low_rank((32, 32), 32, 1))
    return model


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3, 0.15])
def test_a_budget_is_kept_by_all_layers_together(share):
    found = factorize(two_layers(), macs=share)
    now = 2 * 32 * 32
    total = now - sum(f.macs[0] - f.macs[1] for f in found.layers.values())
    assert total <= share * now


def test_under_a_budget_the_layer_goes_first_that_loses_least():
    found = factorize(two_layers(), macs=0.7)
    assert list(found.layers) == ["low"]
    assert found.left_alone == {"full": "the budget is met without it, or no rank of it pays"}


def test_under_a_budget_what_a_layer_costs_can_be_measured():
    model = two_layers()
    asked = []

    def error_of(tried):
        pairs = zip(tried.layers[-2:], model.layers, strict=True)
        changed = [b.name for a, b in pairs if not np.array_equal(a.kernel, b.kernel)]
        asked.append(changed)
        # The answers hang on the layer that looks simple.
        return 1.0 + 100.0 * ("low" in changed) + ("full" in changed)

    found = factorize(model, macs=0.7, error_of=error_of)

    assert list(found.layers) == ["full"]
    assert asked == [[]] + 3 * [["low"]] + 3 * [["full"]]


def test_what_factors_cost_is_measured_with_the_kernel_that_they_are_together():
    model = settle(
        keras.Sequential(
            [
                keras.Input((10, 10, 6), name="x"),
                layers.Conv2D(8, 3, activation="relu", name="conv"),
                layers.Flatten(),
                layers.Dense(12, name="y"),
            ]
        )
    )
    ours = errors_against(model, Samples({"x": drawn(model, 24)[0]}), signature_of(model))
    tried = []

    def error_of(other):
        kernels = [np.array(layer.kernel) for layer in other.layers if hasattr(layer, "kernel")]
        tried.append((ours(other), *kernels))
        return tried[-1][0]

    factorize(model, macs=0.6, kind="spatial", error_of=error_of)

    assert tried.pop(0)[0] == 0.0
    assert len(tried) == 6
    for error, conv, dense in tried:
        chosen, other = (
            ("y", "conv") if np.array_equal(conv, model.layers[0].kernel) else ("conv", "y")
        )
        matrix = dense if chosen == "y" else spatial_matrix(conv)
        whole = model.get_layer(chosen).kernel
        whole = whole if chosen == "y" else spatial_matrix(np.array(whole))
        rank = np.linalg.matrix_rank(matrix, tol=1e-4)
        energy = SingularValues.of(whole).kept[rank - 1] - 1e-9
        built = factorize(model, energy, kind="spatial", exclude=[other], margin=0.0)
        assert built.layers[chosen].ranks == (rank,)
        assert ours(built.model) == pytest.approx(error, rel=1e-3)


def test_a_budget_measured_on_samples_errs_less_than_one_of_energy():
    inputs = keras.Input((24,), name="x")
    x = layers.Dense(48, activation="relu", name="first")(inputs)
    x = layers.Dense(48, activation="relu", name="needed")(x)
    unheard = layers.Dense(48, name="unheard")(x) * 1e-3
    model = settle(keras.Model(inputs, layers.Dense(10, name="y")(x + unheard)))
    signature = signature_of(model)
    error_of = errors_against(model, Samples({"x": drawn(model, 64)[0]}), signature)

    blind = factorize(model, macs=0.7, exclude=["y"])
    seeing = factorize(model, macs=0.7, exclude=["y"], error_of=error_of)

    assert "unheard" in seeing.layers
    assert error_of(seeing.model) < 0.3 * error_of(blind.model)
    macs = [sum(f.macs[0] - f.macs[1] for f in x.layers.values()) for x in (blind, seeing)]
    assert min(macs) >= 0.3 * (24 * 48 + 2 * 48 * 48)


def test_answers_that_are_no_numbers_are_the_worst():
    model = two_layers()

    def error_of(tried):
        same = np.array_equal(tried.layers[-2].kernel, model.layers[0].kernel)
        return 0.0 if same else float("nan")

    assert list(factorize(model, macs=0.7, error_of=error_of).layers) == ["full"]


def test_a_look_up_has_no_part_in_a_budget():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(40, 32, name="table")(tokens)
    model = simplified(keras.Model(tokens, layers.Dense(32, name="d")(x)))
    found = factorize(model, macs=0.5)
    assert list(found.layers) == ["d"]
    assert found.left_alone == {"table": "a look-up has no multiply-accumulates to save"}


def test_a_budget_that_can_not_be_met_is_refused():
    with pytest.raises(ParameterError) as refused:
        factorize(two_layers(), macs=0.01)
    assert str(refused.value) == (
        "a share of 0.01 of the multiply-accumulates can't be reached: at rank 1 all layers that can be factored come "
        "to 0.062"
    )


def test_a_budget_needs_known_sizes():
    model = one(layers.Conv2D(12, 3, name="conv"), (None, None, 10))
    assert list(factorize(model, 1.0).layers) == ["conv"]
    with pytest.raises(ParameterError) as refused:
        factorize(model, macs=0.5)
    assert str(refused.value) == (
        "multiply-accumulates can't be counted where sizes are free, as those of 'conv' are.\n"
        "Fix the sizes of the model's inputs, or choose ranks by energy, without a budget."
    )


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ParameterError) as refused:
        factorize(two_layers(), 0.0, macs=2.0, kind="cp", margin=1.0)
    assert str(refused.value) == (
        "energy must lie in (0, 1], not 0.0\n"
        "macs must lie in (0, 1], not 2.0\n"
        "kind must be one of 'tucker', 'channel', 'spatial', not 'cp'\n"
        "margin must lie in [0, 1), not 1.0"
    )


def test_models_that_can_not_be_taken_apart_are_refused():
    with pytest.raises(
        ModelError, match="are called by code of its own class, Own, so others can't"
    ):
        factorize(subclassed())
    with pytest.raises(ModelError, match="is not built"):
        factorize(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(UnknownNameError):
        factorize(two_layers(), exclude=["lo"])


def test_a_layer_that_can_not_be_copied_is_named():
    class Odd(layers.Layer):
        def __init__(self, width):
            super().__init__(name="odd")
            self.width = width

        def call(self, x):
            return x * self.width

        def get_config(self):
            return {"height": 3}

    model = keras.Sequential([keras.Input((8,)), Odd(2.0), layers.Dense(8)])
    with pytest.raises(ModelError, match="the layer 'odd', a Odd, can't be copied: "):
        factorize(model)


def test_statistics_policies_and_regularizers_come_along():
    normalization = layers.Normalization()
    model = simplified(
        keras.Sequential(
            [
                keras.Input((24,), name="x"),
                normalization,
                layers.Dense(24, kernel_regularizer="l2", dtype="mixed_float16", name="half"),
                layers.BatchNormalization(),
                layers.Dense(24, name="y"),
            ]
        )
    )
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 24)).astype("float32"))
    made = factorize(model, 1.0, exclude=["y"]).model
    halves = [layer for layer in made.layers if layer.name.startswith("half")]
    assert [layer.compute_dtype for layer in halves] == ["float16", "float16"]
    assert [layer.kernel_regularizer is not None for layer in halves] == [True, True]
    (x,) = drawn(model)
    # The sums of products are those of half precision in both.
    np.testing.assert_allclose(made(x), model(x), atol=100 * 2.0**-11)


def test_the_new_model_is_compiled_as_the_old_one_was():
    model = two_layers()
    model.compile(keras.optimizers.SGD(0.25), "mse", metrics=["mae"])
    made = factorize(model, 0.5).model
    assert made.compiled
    assert (type(made.optimizer).__name__, float(made.optimizer.learning_rate)) == ("SGD", 0.25)
    assert made.loss == "mse"

    def own_loss(wanted, given):
        return ops.mean(ops.abs(wanted - given))

    model.compile("adam", own_loss)
    assert factorize(model, 0.5).model.loss is own_loss
    assert not factorize(two_layers(), 0.5).model.compiled
