"""What TensorFlow's pruning guides do, done with strop's names, to the end."""

import sys
import zipfile
import zlib

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import strop.compat.tfmot as tfmot
from strop.compat.tfmot.sparsity import keras as sparsity
from strop.compat.tfmot.sparsity.patterns import pattern_of
from strop.core.errors import InputError
from strop.graph.quiet import quiet
from tests.compat.conftest import compiled, in_litert

UpdatePruningStep = sparsity.UpdatePruningStep


def net(*more, **of_first):
    """A small model that takes vectors of 20."""
    keras.utils.set_random_seed(1)
    first = layers.Dense(20, name="first", **of_first)
    return keras.Sequential([keras.Input((20,)), first, layers.Flatten(), *more])


def drawn(count=32, outputs=20):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 20)).astype("float32")
    return x, (x @ random.normal(size=(20, outputs))).astype("float32")


# What a step is made of is the same where it is compiled, and compiling takes longer than these trainings.
EAGER = {"run_eagerly": True, "jit_compile": False}


def fit(model, *callbacks, **given):
    """Train 4 steps an epoch."""
    if not model.compiled:
        model.compile("adam", "mse", **EAGER)
    outputs = model.output_shape[-1]
    return model.fit(
        *drawn(outputs=outputs), batch_size=8, verbose=0, callbacks=list(callbacks), **given
    )


def zeros(variable):
    return float(np.mean(np.array(variable) == 0))


def at_once(share=0.5):
    return sparsity.ConstantSparsity(share, begin_step=0, frequency=100)


class Seen(keras.callbacks.Callback):
    """What share of the first layer is zero after each step."""

    def __init__(self):
        super().__init__()
        self.shares = []

    def on_train_batch_end(self, batch, logs=None):
        self.shares.append(zeros(self.model.get_layer("first").kernel))


def test_the_names_of_the_guides_are_modules_and_names():
    assert tfmot.sparsity.keras is sparsity is sys.modules["strop.compat.tfmot.sparsity.keras"]
    for name in sparsity.__all__:
        assert getattr(sparsity, name) is not None
    assert {"prune_low_magnitude", "prune_scope", "strip_pruning", "UpdatePruningStep", "PruningSummaries",
            "PolynomialDecay", "ConstantSparsity", "PruningSchedule", "PrunableLayer", "PruningPolicy",
            "PruneForLatencyOnXNNPack"} <= set(sparsity.__all__)  # fmt: skip


def test_a_taught_model_is_pruned_to_80_percent_and_comes_out_plain(taught, tmp_path):
    epochs, batch = 8, 50
    last = np.ceil(len(taught.train[0]) * 0.9 / batch).astype(np.int32) * epochs // 2
    before = taught.model.get_weights()
    model = tfmot.sparsity.keras.prune_low_magnitude(
        taught.model,
        pruning_schedule=tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.5, final_sparsity=0.8, begin_step=0, end_step=last, frequency=10
        ),
    )
    logs = tmp_path / "logs"
    compiled(model, 5e-3).fit(
        *taught.train,
        batch_size=batch,
        epochs=epochs,
        validation_split=0.1,
        verbose=0,
        callbacks=[UpdatePruningStep(), sparsity.PruningSummaries(log_dir=str(logs))],
    )
    plain = tfmot.sparsity.keras.strip_pruning(model)

    assert zeros(plain.layers[-1].kernel) == 0.8
    assert zeros(plain.layers[1].kernel) == 173 / 216  # as many as 0.8 is, rounded
    assert zeros(plain.layers[-1].bias) == 0
    assert taught.accuracy_of(plain) > taught.accuracy - 0.05 > 0.85
    assert all(layer.__class__.__module__.startswith("keras.") for layer in plain.layers)
    assert plain.layers[-1].kernel_constraint is None is plain.layers[-1].kernel.constraint
    np.testing.assert_array_equal(plain.get_weights()[2], model.get_weights()[2])
    for was, stayed in zip(before, taught.model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, stayed)  # the one that was given is not changed
    sparsities = shown(logs, "dense", "sparsity")
    assert sparsities[0] == 0.0  # before the first step
    assert 0.5 < sparsities[1] < sparsities[2] < sparsities[-1] == pytest.approx(0.8)
    assert shown(logs, "dense", "threshold")[-1] > 0
    assert zipped(plain, tmp_path) < 0.6 * zipped(taught.model, tmp_path)


def shown(logs, layer, figure):
    """Return the values of a layer's kernel that TensorBoard has."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    with quiet():
        read = EventAccumulator(str(logs / "metrics")).Reload()
    tags = read.Tags()["tensors"]
    (tag,) = (t for t in tags if layer in t and t.endswith(f"/kernel/{figure}"))
    return [float(make_ndarray(event.tensor_proto)) for event in read.Tensors(tag)]


def zipped(model, folder):
    """Return the bytes of a model without its optimizer, zipped."""
    keras.models.save_model(model, folder / "saved.keras", include_optimizer=False)
    with zipfile.ZipFile(folder / "saved.keras") as saved:
        return len(zlib.compress(saved.read("model.weights.h5")))


def test_without_the_callback_training_is_refused_and_goes_on_with_it():
    model = sparsity.prune_low_magnitude(net(), at_once())
    model.compile("adam", "mse")
    with pytest.raises(InputError) as caught:
        fit(model)
    assert str(caught.value) == (
        "weights are trained that are to be pruned, and nothing counts the steps.\n"
        "Give the callback to fit, or take the pruning off with strip_pruning(model).\n"
        "  model.fit(..., callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])"
    )
    fit(model, UpdatePruningStep())
    assert zeros(model.get_layer("first").kernel) == 0.5
    with pytest.raises(InputError):
        fit(model)


def test_answers_without_training_need_no_callback():
    model = sparsity.prune_low_magnitude(net(), at_once())
    model.compile("adam", "mse")
    x, y = drawn()
    np.testing.assert_allclose(model.predict(x, verbose=0), net().predict(x, verbose=0), rtol=1e-6)
    model.evaluate(x, y, verbose=0)


def test_some_layers_are_pruned_by_a_function_that_clones():
    base = net(layers.Dense(6, name="last"))
    weights = base.get_weights()

    def pruned_if_last(layer):
        if layer.name == "last":
            return sparsity.prune_low_magnitude(layer, pruning_schedule=at_once(0.75))
        return layer

    model = keras.models.clone_model(base, clone_function=pruned_if_last)
    for was, kept in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, kept)
    fit(model, UpdatePruningStep())
    assert zeros(model.get_layer("last").kernel) == 0.75
    assert zeros(model.get_layer("first").kernel) == 0


def test_layers_are_pruned_where_a_functional_model_calls_them():
    inputs = keras.Input((20,))
    x = sparsity.prune_low_magnitude(layers.Dense(10, name="first"), at_once())(inputs)
    model = keras.Model(inputs, layers.Flatten()(x))
    seen = Seen()
    fit(model, seen, UpdatePruningStep())
    assert seen.shares == [0.5] * 4


def test_layers_not_built_yet_are_pruned_in_a_sequential_that_learns_its_shape():
    model = keras.Sequential(
        [
            sparsity.prune_low_magnitude(layers.Dense(20, name="first"), at_once(), input_shape=(20,)),
            layers.Dropout(0.1),
            sparsity.prune_low_magnitude(layers.Dense(4), at_once(0.25), name="renamed"),
        ]
    )  # fmt: skip
    assert model.built
    fit(model, UpdatePruningStep())
    assert [zeros(layer.kernel) for layer in model.layers if layer.weights] == [0.5, 0.25]
    assert model.layers[-1].name == "renamed"


def test_a_model_that_is_not_built_yet_is_pruned_once_it_is():
    model = sparsity.prune_low_magnitude(
        keras.Sequential([layers.Dense(20, name="first"), layers.Dense(4)]), at_once()
    )
    model.compile("adam", "mse", jit_compile=False)
    model.fit(*drawn(outputs=4), verbose=0, callbacks=[UpdatePruningStep()])
    assert [zeros(layer.kernel) for layer in model.layers] == [0.5, 0.5]


def test_a_checkpoint_of_an_epoch_goes_on_where_it_was(tmp_path):
    class OnlyKernel(layers.Dense, sparsity.PrunableLayer):
        def get_prunable_weights(self):
            return [self.kernel]

    layer = sparsity.prune_low_magnitude(OnlyKernel(8, name="first"), at_once())
    model = keras.Sequential([keras.Input((20,)), layer])
    fit(model, UpdatePruningStep(), keras.callbacks.ModelCheckpoint(tmp_path / "epoch.keras"))
    with sparsity.prune_scope(), keras.saving.custom_object_scope({"OnlyKernel": OnlyKernel}):
        loaded = keras.models.load_model(tmp_path / "epoch.keras")
    assert loaded.get_layer("first").kernel_constraint.step == 4
    fit(loaded, UpdatePruningStep())
    assert zeros(loaded.get_layer("first").kernel) == 0.5


def test_a_layer_of_ones_own_says_what_is_pruned(tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class WithBias(layers.Dense, sparsity.PrunableLayer):
        def get_prunable_weights(self):
            return [self.bias]

    layer = WithBias(16, bias_initializer=keras.initializers.RandomNormal(seed=1), name="first")
    model = keras.Sequential([keras.Input((20,)), sparsity.prune_low_magnitude(layer, at_once())])
    fit(model, UpdatePruningStep())
    assert zeros(layer.bias) == 0.5
    assert zeros(layer.kernel) == 0

    model.save(tmp_path / "own.keras")
    with sparsity.prune_scope():
        loaded = keras.models.load_model(tmp_path / "own.keras")
    fit(loaded, UpdatePruningStep())
    assert zeros(loaded.get_layer("first").bias) == 0.5
    assert zeros(loaded.get_layer("first").kernel) == 0


def test_a_layer_whose_kernels_are_not_known_is_refused_alone_and_listed_in_a_model():
    class Own(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[-1], 3), name="table")

        def call(self, x):
            return x @ self.table

    with pytest.raises(ValueError, match="no kernels of the layer 'own' \\(Own\\) are known"):
        sparsity.prune_low_magnitude(Own(name="own"))
    with pytest.warns(UserWarning, match="these layers are not pruned:\n  own: no kernels"):
        model = sparsity.prune_low_magnitude(net(Own(name="own")), at_once())
    fit(model, UpdatePruningStep())
    assert zeros(model.get_layer("first").kernel) == 0.5
    assert zeros(model.get_layer("own").table) == 0


def test_layers_of_keras_without_kernels_are_taken_as_they_are():
    pooling = layers.MaxPooling2D()
    assert sparsity.prune_low_magnitude(pooling) is pooling
    both = [layers.Dense(2), layers.ReLU()]
    assert sparsity.prune_low_magnitude(both) == both


def recurrent():
    """A model of which kernels are in cells in layers in wrappers."""
    tokens = keras.Input((4,), dtype="int32")
    x = layers.Bidirectional(layers.GRU(6))(layers.Embedding(10, 8)(tokens))
    return keras.Model(tokens, layers.Dense(3)(x))


def attentive():
    """A model of which kernels are in the layers that attention is made of."""
    tokens = keras.Input((4,), dtype="int32")
    x = layers.Embedding(10, 8)(tokens)
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize("made", [recurrent, attentive])
def test_layers_in_layers_are_found_and_keep_their_marks_when_saved(made, tmp_path):
    original = made()
    model = sparsity.prune_low_magnitude(original, at_once())
    model.save(tmp_path / "marked.keras")
    loaded = keras.models.load_model(tmp_path / "marked.keras")
    loaded.compile("adam", "mse", **EAGER)
    tokens = np.zeros((8, *original.input_shape[1:]), "int32")
    loaded.fit(tokens, np.zeros((8, 3)), verbose=0, callbacks=[UpdatePruningStep()])
    kernels = [v for v in loaded.trainable_variables if v.name not in ("bias", "beta", "gamma")]
    assert len(kernels) == 6
    for kernel in kernels:
        assert zeros(kernel) == pytest.approx(0.5, abs=1e-9), kernel.path
    plain = sparsity.strip_pruning(loaded)
    assert all(variable.constraint is None for variable in plain.trainable_variables)


def test_a_training_loop_of_ones_own_prunes(tmp_path):
    import tensorflow as tf

    model = sparsity.prune_low_magnitude(net(), at_once())
    optimizer, loss = keras.optimizers.Adam(), keras.losses.MeanSquaredError()
    x, y = drawn()
    unused, seen = -1, []

    model.optimizer = optimizer
    step_callback = sparsity.UpdatePruningStep()
    step_callback.set_model(model)
    log_callback = sparsity.PruningSummaries(log_dir=str(tmp_path))
    log_callback.set_model(model)
    step_callback.on_train_begin()
    for _ in range(2):
        log_callback.on_epoch_begin(epoch=unused)
        for _ in range(3):
            step_callback.on_train_batch_begin(batch=unused)
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            seen.append(zeros(model.get_layer("first").kernel))
        step_callback.on_epoch_end(batch=unused)

    assert seen == [0.5] * 6
    assert model.get_layer("first").kernel_constraint.step == 6
    assert zeros(sparsity.strip_pruning(model).get_layer("first").kernel) == 0.5


def test_a_compiled_step_of_ones_own_sees_masks_change():
    import tensorflow as tf

    class Doubled(sparsity.PruningSchedule):
        """A schedule of somebody's own: a quarter at step 1, half at step 3."""

        def __call__(self, step):
            return self._should_prune_in_step(step, 1, -1, 2), 0.25 if step < 3 else 0.5

        def get_config(self):
            return {}

    model = sparsity.prune_low_magnitude(net(), Doubled())
    optimizer = keras.optimizers.SGD(0.01)
    x, y = drawn()

    @tf.function
    def train():
        with tf.GradientTape() as tape:
            value = keras.losses.MeanSquaredError()(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    callback, seen = UpdatePruningStep(), []
    callback.set_model(model)
    callback.on_train_begin()
    for step in range(5):
        callback.on_train_batch_begin(step)
        train()
        seen.append(zeros(model.get_layer("first").kernel))
    assert seen == [0, 0.25, 0.25, 0.5, 0.5]
    assert zeros(sparsity.strip_pruning(model).get_layer("first").kernel) == 0.5


def test_a_model_saved_halfway_goes_on_where_it_was(tmp_path):
    schedule = sparsity.PolynomialDecay(0.0, 0.5, 0, 8, power=1, frequency=2)
    model = sparsity.prune_low_magnitude(net(), schedule)
    model.compile("adam", "mse", jit_compile=False)
    fit(model, UpdatePruningStep())
    assert zeros(model.get_layer("first").kernel) == 0.125  # as of step 2
    model.save(tmp_path / "halfway.keras")

    with sparsity.prune_scope():
        loaded = keras.models.load_model(tmp_path / "halfway.keras")
    was_zero = np.array(loaded.get_layer("first").kernel) == 0
    seen = Seen()
    fit(loaded, seen, UpdatePruningStep())

    assert seen.shares == [0.25, 0.25, 0.375, 0.375]
    assert np.all(np.array(loaded.get_layer("first").kernel)[was_zero] == 0)
    # The step after the last is that of the schedule's end.
    assert zeros(loaded.get_layer("first").kernel) == 0.5


def test_steps_are_counted_over_several_callbacks_and_several_steps_an_execution():
    model = sparsity.prune_low_magnitude(net(), at_once())
    model.compile("adam", "mse", steps_per_execution=3, jit_compile=False)
    for _ in range(2):
        fit(model, UpdatePruningStep(), epochs=2)
    assert model.get_layer("first").kernel_constraint.step == 16


def test_the_users_constraint_stays_beside_the_zeros():
    model = sparsity.prune_low_magnitude(
        net(kernel_constraint=keras.constraints.MaxNorm(0.1)), at_once()
    )
    fit(model, UpdatePruningStep())
    plain = sparsity.strip_pruning(model)
    kernel = np.array(plain.get_layer("first").kernel)
    assert zeros(kernel) == 0.5
    assert np.linalg.norm(kernel, axis=0).max() <= 0.1 + 1e-6
    assert isinstance(plain.get_layer("first").kernel_constraint, keras.constraints.MaxNorm)


def test_two_of_four_go_along_the_inputs_where_they_divide():
    model = keras.Sequential(
        [
            keras.Input((20,)),
            sparsity.prune_low_magnitude(layers.Dense(6, name="one"), sparsity_m_by_n=(2, 4)),
            sparsity.prune_low_magnitude(layers.Dense(4, name="two"), sparsity_m_by_n=(3, 4)),
        ]
    )
    with pytest.warns(UserWarning, match="two: kernel: 4 does not divide the 6 weights"):
        fit(model, UpdatePruningStep())
    groups = (np.array(model.get_layer("one").kernel) == 0).T.reshape(-1, 4)
    assert np.all(groups.sum(-1) == 2)
    assert zeros(model.get_layer("two").kernel) == 0


def test_more_zeros_of_a_group_than_the_schedule_says_go_when_it_says():
    model = sparsity.prune_low_magnitude(net(), sparsity_m_by_n=(3, 4))
    fit(model, UpdatePruningStep())
    groups = (np.array(model.get_layer("first").kernel) == 0).T.reshape(-1, 4)
    assert np.all(groups.sum(-1) == 3)


def test_blocks_go_whole():
    model = sparsity.prune_low_magnitude(
        net(), at_once(), block_size=[1, 4], block_pooling_type="MAX"
    )
    fit(model, UpdatePruningStep())
    blocks = (np.array(model.get_layer("first").kernel) == 0).reshape(20, 5, 4)
    assert set(blocks.sum(-1).reshape(-1)) == {0, 4}
    assert blocks.all(-1).mean() == 0.5


@given(st.data())
def test_a_block_is_as_good_as_its_mean_or_its_largest_weight(data):
    rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 4))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    weights = random.normal(size=(rows * 3, columns * 3))
    for pooling, worth in (("AVG", np.mean), ("MAX", np.max)):
        mask = pattern_of((rows, columns), pooling, None).mask(weights, 0.5, None)
        blocks = lambda a: a.reshape(3, rows, 3, columns).swapaxes(1, 2).reshape(9, -1)  # noqa: E731
        kept, worths = blocks(mask), worth(blocks(np.abs(weights)), axis=1)
        assert np.all(kept.all(1) == kept.any(1))
        assert worths[kept[:, 0]].min() >= worths[~kept[:, 0]].max()


@pytest.mark.parametrize(
    ("given_to", "wrong"),
    [
        ({"block_pooling_type": "SUM"}, "block_pooling_type must be 'AVG' or 'MAX', not 'SUM'"),
        ({"block_size": (0, 4)}, "expected blocks of at least one weight"),
        ({"sparsity_m_by_n": (4, 4)}, "expected fewer weights to stay than a group has"),
    ],
)
def test_what_cannot_be_is_a_value_error(given_to, wrong):
    with pytest.raises(ValueError, match=wrong):
        sparsity.prune_low_magnitude(net(), **given_to)


@pytest.mark.parametrize(
    "made",
    [
        lambda: sparsity.ConstantSparsity(1.0, 0),
        lambda: sparsity.ConstantSparsity(0.5, -1),
        lambda: sparsity.PolynomialDecay(0.0, 0.5, 0, -1),
        lambda: sparsity.PolynomialDecay(0.0, 0.5, 10, 5),
        lambda: sparsity.ConstantSparsity(0.5, 0, frequency=0),
        lambda: sparsity.prune_low_magnitude("dense"),
        lambda: sparsity.PruningSummaries(log_dir=""),
        lambda: sparsity.strip_pruning(layers.Dense(2)),
    ],
)
def test_values_outside_of_what_they_may_be_are_value_errors(made):
    with pytest.raises(ValueError, match=r"expected|must be"):
        made()


def test_a_schedule_says_when_and_how_much_and_comes_back_from_its_config():
    schedule = sparsity.PolynomialDecay(0.2, 0.8, begin_step=10, end_step=20, power=1, frequency=5)
    said = [schedule(step) for step in (0, 10, 12, 15, 20, 30)]
    assert [due for due, _ in said] == [False, True, False, True, True, False]
    assert [round(share, 6) for _, share in said] == [0.2, 0.2, 0.32, 0.5, 0.8, 0.8]
    again = sparsity.PolynomialDecay.from_config(schedule.get_config())
    assert again.get_config() == schedule.get_config()
    assert sparsity.ConstantSparsity(0.5, 3).get_config()["config"] == {
        "target_sparsity": 0.5, "begin_step": 3, "end_step": -1, "frequency": 100,
    }  # fmt: skip


def mobile(**of_pooling):
    """A convnet of the kind that XNNPACK computes with sparse kernels, if its pooling keeps dimensions."""
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(8, 3, strides=2, padding="valid"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(16, 1, name="pointwise"),
            layers.ReLU(),
            layers.ZeroPadding2D(1),
            layers.DepthwiseConv2D(3, strides=2, padding="valid"),
            layers.Conv2D(8, 1, name="narrow"),
            layers.GlobalAveragePooling2D(**of_pooling),
            layers.Flatten(),
            layers.Dense(10, name="label"),
        ]
    )


def test_for_latency_only_pointwise_convolutions_are_pruned():
    policy = sparsity.PruneForLatencyOnXNNPack()
    model = sparsity.prune_low_magnitude(
        mobile(keepdims=True), at_once(0.75), pruning_policy=policy
    )
    model.compile("adam", "mse", **EAGER)
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 3))
    model.fit(x, np.zeros((8, 10)), verbose=0, callbacks=[UpdatePruningStep()])
    found = {layer.name: zeros(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}
    assert {name for name, share in found.items() if share} == {"pointwise", "narrow"}
    assert found["pointwise"] == found["narrow"] == 0.75


def without(kind, model):
    """The same layers but those of a kind."""
    return keras.Sequential([keras.Input((16, 16, 3)), *(e for e in model.layers if not isinstance(e, kind))])  # fmt: skip


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (lambda: mobile(), "'global_average_pooling2d\\w*' \\(GlobalAveragePooling2D\\) drops dimensions"),
        (lambda: without(layers.ZeroPadding2D, mobile(keepdims=True)), "not every input leads to a Conv2D"),
        (lambda: without((layers.GlobalAveragePooling2D, layers.Dense), mobile()), "not every output comes of a Glob"),
        (lambda: keras.Sequential([layers.Dense(2)]), "the model is not built"),
    ],
)  # fmt: skip
def test_models_that_have_no_sparse_kernels_are_refused(model, wrong):
    with pytest.raises(ValueError, match=wrong):
        sparsity.prune_low_magnitude(model(), pruning_policy=sparsity.PruneForLatencyOnXNNPack())


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="expected a Sequential or a Functional"):
        sparsity.prune_low_magnitude(Own())


def test_what_was_pruned_converts_as_any_model(taught):
    import tensorflow as tf

    model = compiled(sparsity.prune_low_magnitude(taught.model, at_once()), jit_compile=False)
    model.fit(*taught.train, verbose=0, callbacks=[UpdatePruningStep()])
    plain, x = sparsity.strip_pruning(model), taught.test[0]
    found = in_litert(plain, x, tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    np.testing.assert_allclose(found.answers, model.predict(x, verbose=0), atol=1e-4)
    assert np.mean(in_litert(plain, x).codes(2160) == 0) >= 0.5
