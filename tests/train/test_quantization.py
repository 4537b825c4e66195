"""Quantization-aware training: what is rounded and what is not, what training changes, and what comes of it."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.errors import ModelError, ParameterError, UnknownNameError
from strop.core.samples import Samples
from strop.graph.keras_models import signature_of
from strop.graph.quiet import quiet
from strop.train.clustering import cluster
from strop.train.pruning import prune
from strop.train.quantization import Quantization, quantization_aware
from strop.train.quantized_layer import QuantizedLayer
from strop.train.ranges import FakeQuantize
from tests import models


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def block(x, filters, *, name, strides=1):
    """A convolution as networks have it."""
    x = layers.Conv2D(filters, 3, strides, "same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def residual(*, last="softmax"):
    """A network with a branch, separable and depthwise layers, and a classifier."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = block(image, 8, name="stem")
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.BatchNormalization(momentum=0.5, name="norm")(y)
    x = layers.ReLU(name="added_relu")(layers.Add(name="added")([x, y]))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.Flatten(name="flat")(x)
    model = models.settle(keras.Model(image, layers.Dense(4, activation=last, name="label")(x)))
    for seed in range(8):
        model(images(256, seed=seed), training=True)  # statistics as data has them
    return model


def small():
    """One convolution with normalization, and a classifier."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(block(image, 4, name="stem", strides=4))
    return models.settle(keras.Model(image, layers.Dense(4, name="label")(x)))


def images(count=64, *, seed=0, shape=(8, 8, 3)):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def aware_of(model, *, count=64, shape=(8, 8, 3), **settings):
    """The model made of `model`, with ranges that samples showed."""
    aware = quantization_aware(model, Quantization(**settings))
    signature = signature_of(model)
    aware.calibrate(Samples({signature.input_names[0]: images(count, shape=shape)}), signature)
    return aware


def fit(model, x, y, *, optimizer="sgd", **settings):
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(x, y, verbose=0, **settings)


def answers(model, x=None):
    return keras.ops.convert_to_numpy(model(images() if x is None else x, training=False))


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def step_of(quantizer):
    """The distance between codes of a quantizer."""
    low, high = (float(np.asarray(end)) for end in (quantizer.minimum, quantizer.maximum))
    return (high - low) / (2**quantizer.bits - 1)


@pytest.fixture(scope="module")
def original():
    with quiet():
        return residual(last=None)


@pytest.fixture(scope="module")
def aware(original):
    with quiet():
        return aware_of(original)


def test_the_model_that_was_given_stays_what_it_was():
    original = small()
    before, names = original.get_weights(), [layer.name for layer in original.layers]

    made = aware_of(original)
    fit(made.model, images(), images(shape=(4,)))

    assert [layer.name for layer in original.layers] == names
    for kept, weight in zip(before, original.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weight)


def test_eight_bits_answer_nearly_as_the_original(original, aware):
    wanted, found = answers(original), answers(aware.model)
    # Nine tensors are rounded on the way, each by a noise of a step over the root of 12 where a range is 255 steps.
    assert np.abs(wanted - found).max() < 9 * np.ptp(wanted) / 255
    assert np.any(wanted != found)


def test_inputs_and_outputs_keep_their_names(original, aware):
    assert signature_of(aware.model) == signature_of(original)
    assert signature_of(aware.finished()) == signature_of(original)


def test_one_kernel_has_one_quantizer_behind_it(aware):
    """After the input, each of the fused groups, and the parts of the separable convolution; not after pooling."""
    assert kinds(aware.model) == [
        "InputLayer", "FakeQuantize", "QuantizedLayer", "ReLU", "FakeQuantize",  # stem
        "QuantizedLayer", "FakeQuantize", "Add", "ReLU", "FakeQuantize",  # depthwise, added
        "MaxPooling2D", "QuantizedLayer", "FakeQuantize", "QuantizedLayer", "FakeQuantize",
        "Flatten", "QuantizedLayer", "FakeQuantize",
    ]  # fmt: skip
    assert aware.left_in_float == {}
    assert aware.quantized == ("stem_conv", "depthwise", "separable", "label")


def test_a_last_softmax_is_not_rounded():
    assert kinds(aware_of(residual()).model)[-3:] == [
        "QuantizedLayer",
        "FakeQuantize",
        "Activation",
    ]


def test_the_finished_model_answers_as_the_one_that_was_taught(aware):
    finished = aware.finished()
    taught, found = answers(aware.model), answers(finished)

    assert not any(isinstance(layer, layers.BatchNormalization) for layer in finished.layers)
    # Sums are in another order, so that a number between two codes may fall to the other one, here and there.
    last = aware.model.layers[-1]
    assert np.abs(taught - found).max() <= 2.01 * step_of(last)
    assert np.mean(np.abs(taught - found) > 0.01 * step_of(last)) < 0.1


@pytest.mark.parametrize(("bits", "codes", "first"), [(8, 255, 127), (7, 127, 127), (4, 15, 15)])
def test_finished_kernels_hold_so_many_values_a_channel(original, bits, codes, first):
    """Those that read what comes in have no more than 127: their sums saturate soonest."""
    finished = aware_of(original, weight_bits=bits).finished()
    quantized = [layer for layer in finished.layers if isinstance(layer, QuantizedLayer)]
    for layer in quantized:
        kernel, found = np.asarray(layer.layer.kernel), np.asarray(layer.codes)
        np.testing.assert_array_equal(kernel, (found * np.asarray(layer.step)).astype("f4"))
        assert np.abs(found).max() == (first if layer is quantized[0] else codes) // 2


def test_a_finished_model_is_saved_and_loaded(aware, tmp_path):
    finished = aware.finished()
    finished.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(answers(again), answers(finished), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_a_model_on_its_way_is_saved_and_loaded(original, ranges, tmp_path):
    model = aware_of(original, ranges=ranges).model
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(answers(again), answers(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_teaching_brings_the_answers_nearer_to_the_original(ranges):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,), name="x"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(4, name="y"),
        ]
    )
    made = aware_of(model, shape=(16,), count=256, ranges=ranges, weight_bits=4)
    x = images(256, shape=(16,))
    wanted = answers(model, x)
    before = np.square(answers(made.model, x) - wanted).mean()
    learned = [
        v for v in made.model.trainable_variables if v.name in ("logarithm_of_step", "stretch")
    ]
    first = [np.asarray(variable).copy() for variable in learned]

    falling = keras.optimizers.schedules.CosineDecay(3e-3, 240)
    optimizer = keras.optimizers.Adam(falling)
    callbacks = made.callbacks
    fit(made.model, x, wanted, optimizer=optimizer, epochs=30, batch_size=32, callbacks=callbacks)

    assert np.square(answers(made.model, x) - wanted).mean() < 0.7 * before
    assert len(learned) == (
        5 if ranges == "learned" else 0
    )  # of two kernels, and of three tensors
    assert all(np.any(np.asarray(v) != was) for v, was in zip(learned, first, strict=True))
    apart = np.abs(answers(made.finished(), x) - answers(made.model, x))
    assert apart.max() <= 1.01 * step_of(made.finished().layers[-1])


def test_ranges_follow_what_batches_hold_until_they_are_settled():
    model = keras.Sequential(
        [keras.Input((2,), name="x"), layers.Dense(1, trainable=False, name="y")]
    )
    made = quantization_aware(model)
    quantizer = made.model.layers[1]
    made.model.compile("sgd", "mse", jit_compile=False)

    def seen_after(low, high):
        made.model.train_on_batch(np.array([[low, high]]), np.zeros((1, 1)))
        return round(float(quantizer.minimum), 4), round(float(quantizer.maximum), 4)

    assert seen_after(-1.0, 3.0) == (-1.0, 3.0)
    assert seen_after(-2.0, 1.0) == (-1.1, 2.98)  # a tenth of the way out, a hundredth in
    quantizer.settle()
    assert seen_after(-9.0, 9.0) == (-1.1, 2.98)


def test_a_range_of_samples_is_all_that_they_hold():
    model = keras.Sequential([keras.Input((1,), name="x"), layers.Dense(1, name="y")])
    made = quantization_aware(model)
    x = np.concatenate([np.full((64, 1), -1.0), np.full((64, 1), 3.0)]).astype(np.float32)

    made.calibrate(Samples({"x": x}), signature_of(model))

    quantizer = made.model.layers[1]
    assert (float(quantizer.minimum), float(quantizer.maximum)) == (-1.0, 3.0)


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 10])
def test_statistics_are_left_as_they_are_at_the_end(epochs):
    made = aware_of(small())
    held = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            layer = made.model.get_layer("stem_conv").normalization
            held.append(np.asarray(layer.moving_mean).copy())

    fit(
        made.model, images(), images(shape=(4,)),
        epochs=epochs, batch_size=8, callbacks=[*made.callbacks, Watch()],
    )  # fmt: skip

    changes = [bool(np.any(one != other)) for one, other in itertools.pairwise(held)]
    settled = len(changes) - changes.index(False)
    assert not any(changes[-settled:])
    assert 0.2 < settled / len(held) <= 0.5


def test_frozen_normalization_stays_frozen():
    model = small()
    model.get_layer("stem_norm").trainable = False
    made = aware_of(model)
    before = np.asarray(model.get_layer("stem_norm").moving_mean)

    fit(made.model, images(), images(shape=(4,)))

    after = made.model.get_layer("stem_conv").normalization
    np.testing.assert_array_equal(before, after.moving_mean)


def test_frozen_layers_stay_frozen():
    model = small()
    model.get_layer("stem_conv").trainable = False
    made = aware_of(model)

    fit(made.model, images(), images(shape=(4,)))

    kept, taught = (
        made.model.get_layer(name).layer.kernel for name in ("stem_conv", "label_unrounded")
    )
    np.testing.assert_array_equal(kept, model.get_layer("stem_conv").kernel)
    assert np.any(np.asarray(taught) != np.asarray(model.get_layer("label").kernel))


def test_zeros_and_clusters_are_kept_and_counted():
    model = small()
    prune(model, 0.5, exclude=("label",))
    cluster(model, 8, exclude=("label",))
    made = aware_of(model)
    kept = made.keeping()
    fit(made.model, images(), images(shape=(4,)), callbacks=kept)

    whole = made.finished()
    finished = whole.get_layer("stem_conv")

    assert [kernel.layer for callback in kept for kernel in callback.kernels] == 2 * [
        "stem_conv/stem_conv"
    ]
    sparsity, clusters = made.counted(whole)
    assert sparsity == {"stem_conv": 0.5}
    # Normalization's scale may turn the sign of a channel's.
    assert set(clusters) == {"stem_conv"}
    assert clusters["stem_conv"] == len(np.unique(np.asarray(finished.codes))) <= 15

    kernel, step = np.asarray(finished.layer.kernel), np.asarray(finished.step)
    # One code a cluster; normalization's scale may turn the sign of a channel's.
    assert len(np.unique(np.abs(np.round(kernel / step)))) <= 8
    before = np.asarray(model.get_layer("stem_conv").kernel)
    np.testing.assert_array_equal(kernel == 0, before == 0)


@pytest.mark.parametrize("count", [16, 64, 100])
def test_clusters_are_so_many_codes_at_most(count):
    keras.utils.set_random_seed(0)
    given = keras.Input((32,), name="x")
    model = models.settle(
        keras.Model(given, layers.Dense(32, activation="softmax", name="y")(given))
    )
    cluster(model, count)
    made = aware_of(model, shape=(32,))
    fit(made.model, images(shape=(32,)), images(shape=(32,)), callbacks=made.keeping())
    _, clusters = made.counted(made.finished())
    assert set(clusters) == {"y"}  # and not what stands before the rounding of that name
    assert clusters["y"] <= count


def test_what_was_pruned_alone_is_not_told_of_as_clustered():
    model = residual()
    prune(model, 0.7, ranking="global")
    made = aware_of(model)
    assert [type(callback).__name__ for callback in made.keeping()] == ["KeptZeros"]
    sparsity, clusters = made.counted(made.finished())
    assert "label" in sparsity
    assert clusters == {}


def test_what_is_kept_is_told_of_by_the_names_that_users_know():
    keras.utils.set_random_seed(0)
    words = keras.Input((6, 8), name="x")
    attended = layers.MultiHeadAttention(2, 8, name="attention")(words, words)
    inner = keras.Input((6, 8))
    part = keras.Model(inner, layers.Dense(16, name="dense")(inner), name="encoder")
    x = layers.Flatten(name="flat")(part(attended))
    model = models.settle(keras.Model(words, layers.Dense(4, name="y")(x)))
    prune(model, 0.5)
    made = aware_of(model, shape=(6, 8))
    sparsity, _ = made.counted(made.finished())
    within = {f"attention/{name}" for name in ("query", "key", "value", "attention_output")}
    assert set(sparsity) == {*within, "encoder/dense", "y"}
    assert set(sparsity.values()) == {0.5}


def test_what_layers_give_is_regularized_as_before():
    def regularized(kind, size, **given):
        return kind(size, activity_regularizer=keras.regularizers.L2(1.0), **given)

    def made_of(activation):
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3), name="image")
        x = regularized(layers.Conv2D, 4, kernel_size=3, activation=activation, name="conv")(image)
        x = layers.BatchNormalization(name="norm")(x)
        x = regularized(layers.SeparableConv2D, 4, kernel_size=3, name="separable")(x)
        return models.settle(
            keras.Model(image, regularized(layers.Dense, 4, name="y")(layers.Flatten()(x)))
        )

    for activation in ("linear", "relu", "sigmoid", "swish"):
        model = made_of(activation)
        aware = aware_of(model)
        model(images(), training=False)
        aware.model(images(), training=False)
        # Eight bits move each number by 1/510 of its range at most, and the sums of their squares by less than this.
        np.testing.assert_allclose(
            float(sum(aware.model.losses)), float(sum(model.losses)), rtol=0.05
        )


def test_constraints_of_separable_layers_go_to_the_two_that_they_become():
    image = keras.Input((8, 8, 3), name="image")
    own = {
        f"{name}_constraint": keras.constraints.MaxNorm(number)
        for number, name in enumerate(("depthwise", "pointwise", "bias"), start=1)
    }
    x = layers.SeparableConv2D(4, 3, name="y", **own)(image)
    made = aware_of(models.settle(keras.Model(image, x))).model
    depthwise, pointwise = (
        made.get_layer("y_depthwise").layer,
        next(
            layer
            for layer in made.layers
            if isinstance(layer, QuantizedLayer) and "depthwise" not in layer.name
        ).layer,
    )
    found = [v.constraint for v in (depthwise.kernel, pointwise.kernel, pointwise.bias)]
    assert [constraint.max_value for constraint in found] == [1, 2, 3]


def joined():
    """Two branches under a concatenation that nobody else reads, and one that is read twice."""
    x = keras.Input((8, 8, 3), name="image")
    left, right = layers.Conv2D(4, 1, name="left")(x), layers.Conv2D(4, 1, name="right")(x)
    both = layers.Concatenate(name="both")([left, right])
    return models.settle(keras.Model(x, layers.Conv2D(2, 1, name="y")(both)))


def test_what_is_joined_is_rounded_onto_one_grid():
    made = aware_of(joined())
    assert (
        kinds(made.model).count("FakeQuantize") == 3
    )  # of the input, of both branches, of the output
    quantizer = made.model.get_layer("both_range")
    ends = float(quantizer.minimum), float(quantizer.maximum)
    inner = keras.Model(made.model.inputs, made.model.get_layer("both").output)
    found = answers(inner)
    assert ends[0] - 1e-2 <= found.min() < found.max() <= ends[1] + 1e-2


def normalized_alone(shape, *, behind=layers.ReLU):
    """A normalization that no layer can take in, since a function stands between."""
    x = keras.Input(shape, name="x")
    hidden = layers.Dense(6, activation="relu", name="hidden")(x)
    norm = layers.BatchNormalization(momentum=0.5, name="norm")(hidden)
    model = keras.Model(x, layers.Dense(2, name="y")(behind(name="behind")(norm)))
    for seed in range(8):
        model(images(256, seed=seed, shape=shape), training=True)
    return models.settle(model)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (3, 5, 4)])
def test_a_normalization_alone_is_a_kernel_that_loses_nothing(shape):
    model = normalized_alone(shape)
    made = aware_of(model, shape=shape, count=256)

    assert made.left_in_float == {}
    assert "norm" in made.quantized
    finished = made.finished().get_layer("norm")
    assert (
        np.abs(np.asarray(finished.codes)).tolist() == np.full(finished.codes.shape, 127).tolist()
    )
    norm, x = model.get_layer("norm"), images(shape=shape)
    scale = np.asarray(norm.gamma) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    # Steps have 14 binary digits.
    np.testing.assert_allclose(np.asarray(finished.layer.kernel).ravel(), scale, rtol=2.0**-14)
    apart = np.abs(answers(made.model, x) - answers(model, x))
    assert apart.max() < 0.05 * np.ptp(answers(model, x))


def test_a_normalization_alone_goes_on_being_trained():
    model = normalized_alone((5, 4))
    made = aware_of(model, shape=(5, 4))
    norm = made.model.get_layer("norm").normalization
    before = [np.asarray(weight).copy() for weight in norm.weights]

    fit(made.model, images(shape=(5, 4)), images(shape=(5, 2)))

    for was, weight in zip(before, norm.weights, strict=True):
        assert np.any(was != np.asarray(weight))
    kernel = made.model.get_layer("norm").layer.kernel
    np.testing.assert_array_equal(np.asarray(kernel), 1)


def test_means_of_codes_are_rounded_onto_their_own_grid():
    x = keras.Input((8, 8, 3), name="x")
    pooled = layers.AveragePooling2D(2, name="pooled")(layers.Conv2D(4, 1, name="conv")(x))
    model = keras.Model(x, layers.Conv2D(2, 1, name="y")(pooled))
    made = aware_of(model)
    quantizer = made.model.get_layer("conv_range")
    tensor = made.model.get_layer("y_unrounded").input

    found = answers(keras.Model(made.model.inputs, tensor))

    assert kinds(made.model).count("FakeQuantize") == 3
    codes = found / step_of(quantizer)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    before = float(quantizer.minimum), float(quantizer.maximum)
    fit(made.model, 1e-3 * images(), images(shape=(4, 4, 2)), epochs=1)
    # Two batches of nearly nothing: a hundredth in, each, by what the convolution gives; not by its means too.
    after = float(quantizer.minimum), float(quantizer.maximum)
    np.testing.assert_allclose(after, 0.99**2 * np.array(before), rtol=2e-3)


def test_a_pooling_layer_over_all_of_an_image_gives_means_on_a_grid_of_their_own():
    x = keras.Input((4, 4, 3), name="x")
    pooled = layers.AveragePooling2D(4, name="pooled")(layers.Conv2D(4, 1, name="conv")(x))
    model = keras.Model(x, layers.Dense(2, name="y")(layers.Flatten()(pooled)))

    made = aware_of(model, shape=(4, 4, 3), count=256)

    assert step_of(made.model.get_layer("pooled_range")) < 0.7 * step_of(
        made.model.get_layer("conv_range")
    )
    x = images(shape=(4, 4, 3))
    apart = np.abs(answers(made.model, x) - answers(model, x))
    assert apart.max() < 0.03 * np.ptp(answers(model, x))


def test_numbers_are_added_and_multiplied_on_integers():
    x = keras.Input((6,), name="x")
    hidden = layers.Dense(5, name="hidden")(x)
    gate = layers.ReLU(6.0, name="cut")(hidden + 3.0) / 6.0
    vector = hidden * np.arange(5.0, dtype=np.float32)
    both = layers.Concatenate(name="both")([1.0 - gate, vector])
    model = keras.Model(x, layers.Dense(2, name="y")(both))

    made = aware_of(model, shape=(6,), count=256)

    (listed,) = made.left_in_float.values()  # the product with many numbers
    assert listed == "there is no integer form of 'Multiply' here"
    x = images(shape=(6,))
    apart = np.abs(answers(made.model, x) - answers(model, x))
    assert apart.max() < 0.03 * np.ptp(answers(model, x))


def test_a_mask_is_no_data():
    x, mask = keras.Input((4,), name="x"), keras.Input((4,), dtype="bool", name="mask")
    shares = layers.Softmax(name="shares")(layers.Dense(4, name="hidden")(x), mask=mask)
    model = keras.Model([x, mask], layers.Dense(2, name="y")(shares))

    made = quantization_aware(model)

    assert made.left_in_float == {
        "shares": "it has an integer form of one tensor alone, and is given several"
    }
    masks = np.array([[True, True, False, False]] * 8)
    samples = Samples({"x": images(8, shape=(4,)), "mask": masks})
    made.calibrate(samples, signature_of(model))
    given = [samples.inputs["x"], masks]
    np.testing.assert_allclose(np.asarray(made.model(given)), np.asarray(model(given)), atol=0.05)


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_grids_of_16_bits_lie_evenly_about_zero(original, ranges):
    made = aware_of(original, activation_bits=16, ranges=ranges)
    wanted, found = answers(original), answers(made.finished())
    assert np.abs(wanted - found).max() < 0.02 * np.ptp(wanted)  # eight bits of weights
    for layer in made.finished().layers:
        if isinstance(layer, FakeQuantize):
            low, high = layer.fixed
            step = (high - low) / (2**16 - 1)
            np.testing.assert_allclose([low / step, high / step], [-(2**15), 2**15 - 1])


@pytest.mark.parametrize(
    ("function", "behind"),
    [
        ("relu", ["FakeQuantize"]),
        ("silu", ["FakeQuantize", "Activation", "FakeQuantize", "Multiply", "FakeQuantize"]),
        ("sigmoid", ["FakeQuantize", "Activation", "FakeQuantize"]),
        ("gelu", ["FakeQuantize", "Activation", "FakeQuantize"]),
        ("elu", ["FakeQuantize", "Activation", "FakeQuantize"]),
        ("hard_sigmoid", ["FakeQuantize", "Activation", "FakeQuantize", "FakeQuantize"]),
        ("softplus", ["FakeQuantize", "Activation"]),
    ],
)
def test_functions_are_rounded_as_kernels_compute_them(function, behind):
    x = keras.Input((6,), name="x")
    hidden = layers.Dense(5, activation=function, name="hidden")(x)
    model = keras.Model(x, layers.Dense(2, name="y")(layers.Identity(name="end")(hidden)))

    made = aware_of(model, shape=(6,))

    names = [layer.name for layer in made.model.layers]
    assert kinds(made.model)[names.index("hidden") + 1 : names.index("end")] == behind
    listed = {"hidden": "its function 'softplus' has no integer form here"}
    assert made.left_in_float == (listed if function == "softplus" else {})
    np.testing.assert_allclose(
        answers(made.model, images(shape=(6,))), answers(model, images(shape=(6,))), atol=0.1
    )


def test_three_summands_are_added_two_at_a_time():
    x = keras.Input((6,), name="x")
    parts = [layers.Dense(4, name=name)(x) for name in "abc"]
    model = keras.Model(x, layers.Add(name="y")(parts))
    made = aware_of(model, shape=(6,))
    assert kinds(made.model).count("Add") == 2
    x = images(shape=(6,))
    np.testing.assert_allclose(answers(made.model, x), answers(model, x), atol=0.1)


def test_shared_and_nested_layers_have_one_kernel_each():
    model = models.nested()
    made = quantization_aware(model)
    assert [name.split("/")[-1].split("_")[0] for name in made.quantized] == ["dense", "distance"]
    assert made.quantized[0].startswith("sequential")
    kernels = [layer for layer in made.model.layers if isinstance(layer, QuantizedLayer)]
    assert len(kernels) == 2
    x = [images(seed=seed, shape=(10,)) for seed in (0, 1)]
    made.calibrate(Samples(dict(zip(("left", "right"), x, strict=True))), signature_of(model))
    np.testing.assert_allclose(
        np.asarray(made.model(x)), np.asarray(model(x)), atol=0.1 * np.ptp(np.asarray(model(x)))
    )
    assert signature_of(made.finished()) == signature_of(model)


def test_what_stays_in_float_is_listed_with_the_reason():
    made = quantization_aware(models.transformer())
    reasons = set(made.left_in_float.values())
    assert reasons >= {
        "its mean and variance need more than eight bits",
        "the products within attention stay in float",
        "a table that rows are looked up in: nothing is computed with it",
    }
    assert "label" in made.quantized
    recurrent = quantization_aware(models.bidirectional_lstm())
    reasons = [reason.split(":")[0] for reason in recurrent.left_in_float.values()]
    assert reasons == [
        "a table that rows are looked up in",
        "recurrent layers stay in float",
        "recurrent layers stay in float",
    ]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (("label",), {"label": "excluded, as 'label'"}),
        (("DepthwiseConv2D",), {"depthwise": "excluded, as 'DepthwiseConv2D'"}),
        ((lambda layer: layer.name == "stem_conv",), {"stem_conv": "excluded by '<lambda>'"}),
    ],
)
def test_excluded_layers_stay_in_float(original, exclude, left):
    made = aware_of(original, exclude=exclude)
    (name,) = left
    assert left.items() <= made.left_in_float.items()
    assert not isinstance(made.model.get_layer(name), QuantizedLayer)
    assert name not in made.quantized


def test_a_normalization_of_what_is_in_float_stays_in_float(original):
    made = aware_of(original, exclude=("stem_conv",))
    reason = "what it is given is in float"
    assert made.left_in_float["stem_norm"] == reason


def test_a_channel_that_normalization_switches_off_is_folded_to_its_offset(original):
    """Its weights are nothing beside the others, and its step would make the bias run out of 32 bits."""
    model = residual(last=None)
    norm = model.get_layer("stem_norm")
    norm.gamma.assign(np.r_[0.0, 1e-12, np.ones(6)])

    made = aware_of(model)

    finished = made.finished().get_layer("stem_conv")
    assert np.asarray(finished.step).min() >= 2.0**-16 * np.asarray(finished.step).max()
    np.testing.assert_array_equal(np.asarray(finished.codes)[..., :2], 0)
    np.testing.assert_allclose(np.asarray(finished.layer.bias)[:2], norm.beta[:2], atol=1e-6)
    apart = np.abs(answers(made.finished()) - answers(made.model)).max()
    assert apart <= 2.01 * step_of(made.finished().layers[-1])


def test_a_compiled_model_gives_a_compiled_one():
    model = residual()
    model.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy")
    made = quantization_aware(model).model
    assert (made.loss, float(made.optimizer.learning_rate)) == ("categorical_crossentropy", 0.5)


def test_a_model_of_a_class_of_its_own_is_refused():
    with pytest.raises(ModelError) as refused:
        quantization_aware(models.subclassed())
    assert "is of a class of its own ('Own'), whose layers can't be told from its code" in str(
        refused.value
    )


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ModelError, match="or it is not built"):
        quantization_aware(keras.Sequential([layers.Dense(2)]))


def test_a_layer_that_cannot_be_made_anew_is_told():
    class Own(layers.Layer):
        def __init__(self, width):
            super().__init__()
            self.width = width

        def call(self, x):
            return x * self.width

        def get_config(self):
            return {}

    x = keras.Input((3,))
    with pytest.raises(ModelError, match="can't be copied"):
        quantization_aware(keras.Model(x, Own(2)(x)))


def test_all_mistakes_of_settings_are_told_at_once():
    with pytest.raises(ParameterError) as refused:
        Quantization(weight_bits=3, activation_bits=4, ranges="guessed")
    assert str(refused.value) == (
        "weight_bits must be one of 4, 7, 8, not 3\n"
        "activation_bits must be one of 8, 16, not 4\n"
        "ranges must be one of 'moving_average', 'learned', not 'guessed'"
    )


def test_a_slip_in_a_name_is_told(original):
    with pytest.raises(UnknownNameError, match="Did you mean 'label'"):
        quantization_aware(original, Quantization(exclude=("labell",)))


def test_rounding_is_what_tensorflow_rounds_to():
    """Each of the two ways that a quantizer goes, on and off the step that trains its range."""
    x = images(seed=3, shape=(50,))
    learned, averaged = (FakeQuantize(ranges=r) for r in ("learned", "moving_average"))
    found = [np.asarray(layer(x, training=True)) for layer in (learned, averaged)]
    # A number between two codes may fall to either, where they multiply and divide in another order.
    apart = np.abs(found[0] - found[1])
    assert apart.max() <= 1.001 * step_of(averaged)
    assert np.mean(apart > 1e-5) < 0.001
