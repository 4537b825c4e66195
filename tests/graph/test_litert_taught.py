"""What LiteRT is given of a taught model is what was taught: the codes, their width, and what stays in float."""

import keras
import numpy as np
import pytest
from keras import layers

from strop.graph.quiet import quiet
from strop.train.clustering import cluster
from strop.train.pruning import prune
from strop.train.quantization import codes_of
from tests.taught import Taught, drawn

IMAGE = (8, 8, 3)
ENDS = ["QUANTIZE", "DEQUANTIZE"]


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def conv(filters, name, **settings):
    return layers.Conv2D(filters, 3, padding="same", name=name, **settings)


def networked():
    """What networks are made of: joined branches, pooling between, normalization alone, numbers, a large classifier."""
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGE, name="image")
    x = conv(8, "first", activation="relu")(image)
    x = layers.AveragePooling2D(2)(layers.BatchNormalization(name="alone")(x))
    x = layers.Concatenate()([layers.MaxPooling2D(1)(x), conv(8, "branch")(x)])
    x = layers.ReLU()(layers.BatchNormalization(name="joined")(x))
    x = conv(8, "separable", groups=2)(layers.UpSampling2D(4, interpolation="bilinear")(x))
    x = x * (layers.ReLU(6.0)(x + 3.0) / 6.0)
    x = layers.Dense(24, activation="relu", name="large")(layers.Flatten()(x))
    x = layers.BatchNormalization(name="vectors")(x)
    model = keras.Model(image, layers.Dense(4, name="label")(x))
    for seed in range(4):
        model(drawn(IMAGE, seed=seed), training=True)  # statistics as data has them
    return model


def apart(taught, made, x):
    """How far answers are from those of the finished model, in steps of the output."""
    return np.abs(made.answers(x) - taught.answers(x)) / taught.step


@pytest.mark.parametrize("bits", [8, 16])
def test_networks_compute_in_integers_from_end_to_end(bits, tmp_path):
    taught = Taught.of(networked(), tmp_path, activation_bits=bits)
    made = taught.litert(tmp_path)

    assert made.in_float == ENDS
    # All but what works out the shapes for a free batch.
    shapes = {"PACK", "STRIDED_SLICE"}
    assert all(f"int{bits}" in types for name, types in made.operations if name not in shapes)
    # Fifteen kernels one behind the other round halves otherwise, and the one that averages often meets them; each
    # moves a code by one, that of the output by no more than these layers amplify it.
    distance = apart(taught, made, drawn(IMAGE, 128, seed=9))
    assert distance.max() < 12
    assert distance.mean() < 4


FUNCTIONS = (
    "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "sigmoid", "silu", "softmax", "tanh",
)  # fmt: skip


def functions(*names):
    image = keras.Input(IMAGE, name="image")
    x = layers.Conv2D(8, 1, name="first")(image)
    parts = [
        layers.Conv2D(4, 1, name=f"behind_{name}")(layers.Activation(name, name=name)(x))
        for name in names
    ]
    x = layers.PReLU(
        shared_axes=(1, 2), alpha_initializer=keras.initializers.Constant(0.2), name="prelu"
    )(layers.Add()(parts) if len(parts) > 1 else parts[0])
    return keras.Model(image, layers.Dense(4, name="label")(layers.GlobalMaxPooling2D()(x)))


def test_functions_compute_in_integers(tmp_path):
    taught = Taught.of(functions(*FUNCTIONS), tmp_path)
    made = taught.litert(tmp_path)

    assert made.in_float == ENDS
    assert taught.left == {}
    names = {name for name, _ in made.operations}
    assert names >= {
        "ELU",
        "EXP",
        "GELU",
        "HARD_SWISH",
        "LEAKY_RELU",
        "LOGISTIC",
        "PRELU",
        "SOFTMAX",
        "TANH",
    }
    assert apart(taught, made, drawn(IMAGE, seed=9)).max() <= 2.01


def test_at_16_bits_functions_without_kernels_are_computed_in_float(tmp_path):
    taught = Taught.of(functions("gelu", "hard_silu", "silu"), tmp_path, activation_bits=16)
    made = taught.litert(tmp_path)

    assert sorted(set(made.in_float) - set(ENDS)) == ["GELU", "HARD_SWISH", "PRELU"]
    assert set(taught.left) == {"gelu", "hard_silu", "prelu"}
    # Of 65,535 steps.
    assert apart(taught, made, drawn(IMAGE, seed=9)).max() < 20


def test_the_file_holds_the_codes_that_were_taught(tmp_path):
    taught = Taught.of(networked(), tmp_path, weight_bits=4, ranges="learned")

    kernels = taught.litert(tmp_path).kernels().values()

    def histograms(arrays):
        return sorted(
            (a.size, tuple(zip(*np.unique(a, return_counts=True), strict=True))) for a in arrays
        )

    assert histograms(kernels) == histograms(codes_of(taught.finished).values())


def test_clusters_and_zeros_are_in_the_file(tmp_path):
    model = networked()
    prune(model, 0.7)
    cluster(model, 8)

    made = Taught.of(model, tmp_path).litert(tmp_path)

    found = {
        (codes.size, len(np.unique(codes)), int(np.sum(codes == 0)))
        for codes in made.kernels().values()
    }
    for name in ("first", "branch", "separable", "large", "label"):
        kernel = np.asarray(model.get_layer(name).kernel)
        zeros = int(np.sum(kernel == 0))
        assert zeros == pytest.approx(0.7 * kernel.size, abs=1)
        assert (kernel.size, 8, zeros) in found


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """A network two of whose layers stay in float, what was taught of it, and its file."""
    folder, model = tmp_path_factory.mktemp("partly"), networked()
    with quiet():
        taught = Taught.of(model, folder, exclude=("branch", "large"))
        return model, taught, taught.litert(folder)


def test_what_is_to_stay_in_float_does(partly):
    model, taught, made = partly

    assert made.in_float.count("CONV_2D") == made.in_float.count("FULLY_CONNECTED") == 1
    # The normalization behind the one layer is in float then, too.
    assert set(made.model.facts["left_in_float"]) == {"branch", "large", "vectors"}
    kernels = [kernel for kernel in made.kernels().values() if kernel.dtype == np.float32]
    wanted = [np.asarray(model.get_layer(name).kernel) for name in ("branch", "large")]
    found = sorted(kernels, key=np.size)
    np.testing.assert_array_equal(np.moveaxis(found[0], 0, -1), wanted[0])
    np.testing.assert_array_equal(found[1].T, wanted[1])
    assert apart(taught, made, drawn(IMAGE, seed=9)).max() < 12


def test_layers_that_the_engine_has_no_integer_kernel_for_are_listed(tmp_path):
    volume = keras.Input((4, 6, 6, 2), name="volume")
    x = layers.Conv3D(4, 3, padding="same", activation="relu", name="three")(volume)
    model = keras.Model(volume, layers.Dense(4, name="label")(layers.Flatten()(x)))
    taught = Taught.of(model, tmp_path)

    made = taught.litert(tmp_path)

    ((name, reason),) = made.model.facts["left_in_float"].items()
    assert "three" in name
    assert reason == "LiteRT has no integer kernel for it"
    assert apart(taught, made, drawn((4, 6, 6, 2), seed=9)).max() <= 2.01


def test_the_file_holds_nothing_that_nobody_reads(partly):
    from tensorflow.lite.tools import flatbuffer_utils

    *_, made = partly

    content = flatbuffer_utils.read_model(str(made.model.path))
    (graph,) = content.subgraphs
    read = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs)} - {-1}
    assert read == set(range(len(graph.tensors)))
    names = [tensor.name for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    assert not any(b";" in name or b"wall" in name for name in names)
    used = {tensor.buffer for tensor in graph.tensors} | {m.buffer for m in content.metadata}
    assert used | {0} == set(range(len(content.buffers)))
