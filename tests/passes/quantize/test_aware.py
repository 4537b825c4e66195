"""A Keras file is taught to be quantized, and what engines make of it computes in integers from end to end."""

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.contracts import Unchanged
from strop.core.model import Form
from strop.core.samples import Samples
from strop.engine.machine import this_machine
from strop.graph.frozen import frozen_of
from strop.graph.keras_files import opened
from strop.graph.quiet import quiet
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.convert.openvino import ConvertToOpenVINO
from strop.passes.quantize.aware import QuantizeAware
from strop.runtimes.tensorflow import TensorFlow
from strop.train.clustering import cluster
from strop.train.pruning import prune
from tests.passes.convert.conftest import PlainContext, Teaching, Workshop
from tests.taught import Flatbuffer


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def net():
    """A residual network with swish, of which one channel is switched off."""
    keras.utils.set_random_seed(1)
    x = image = keras.Input((8, 8, 3), name="image")
    for width, function in ((8, "relu"), (8, "silu")):
        y = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        y = layers.Activation(function)(layers.BatchNormalization(momentum=0.8)(y))
        y = layers.DepthwiseConv2D(3, padding="same", activation="relu")(y)
        x = layers.Add()([layers.Conv2D(width, 1)(x), y])
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))
    return keras.Model(image, layers.Dense(3, name="label")(x))


def drawn(count=640, *, seed=0):
    """Images, one of whose colours is brighter: which one is asked."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    x = random.normal(size=(count, 8, 8, 3)).astype("float32")
    return x + 0.5 * np.eye(3, dtype="float32")[y][:, None, None], y


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A trained model's file, in the workshop where it was made."""
    model, (x, y) = net(), drawn()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(x, y, epochs=5, verbose=0)
    normalization = next(la for la in model.layers if isinstance(la, layers.BatchNormalization))
    normalization.gamma.assign(np.r_[1e-12, np.asarray(normalization.gamma)[1:]])
    workshop = Workshop(tmp_path_factory.mktemp("aware"))
    with quiet():
        return workshop, workshop.keras(model)


def made(source, **settings):
    workshop, model = source
    x, y = drawn()
    samples = Samples({"image": x}, {"label": y})
    settings = {"epochs": 1, "batch_size": 64, **settings}
    with quiet():
        return QuantizeAware(**settings).apply(
            model, Teaching(workshop.new(), original=model, samples=samples)
        )


@pytest.fixture(scope="module")
def taught(source):
    return made(source)


def answers(model):
    """What a frozen graph answers, in TensorFlow."""
    with TensorFlow().open(model) as predictor:
        return predictor({"image": drawn(256, seed=9)[0]})


def last_step(model):
    """The distance between the codes of the output."""
    import tensorflow as tf

    by_name = {node.name: node for node in frozen_of(model).definition.node}
    end = by_name[model.signature.output_names[0]]
    while end.op == "Identity":
        end = by_name[end.input[0]]
    assert end.op == "FakeQuantWithMinMaxVars"
    low, high = (tf.make_ndarray(by_name[n].attr["value"].tensor) for n in end.input[1:])
    return float(high - low) / 255


def test_what_comes_of_it_is_a_frozen_graph_that_answers_as_well(source, taught):
    x, y = drawn(256, seed=9)
    right = [
        np.mean(np.argmax(found, -1) == y)
        for found in (np.asarray(opened(source[1])(x)), answers(taught))
    ]
    assert taught.form is Form.GRAPH_DEF
    assert taught.signature == source[1].signature
    assert taught.facts["left_in_float"] == {}
    assert right[0] > 0.9
    assert right[1] >= right[0] - 0.02


@pytest.mark.parametrize("settings", [{}, {"weight_bits": 4, "ranges": "learned", "epochs": 0}])
def test_litert_computes_in_integers_from_end_to_end(source, taught, settings, tmp_path):
    model = made(source, **settings) if settings else taught

    file = Flatbuffer(ConvertToLiteRT().apply(model, PlainContext(tmp_path)))

    assert file.in_float == ["QUANTIZE", "DEQUANTIZE"]
    assert file.model.facts["left_in_float"] == {}
    assert all("int8" in types for _, types in file.operations)
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL"} <= {
        n for n, _ in file.operations
    }
    # Integer kernels multiply by factors of 31 bits and round halves otherwise, so that a code here and there differs
    # by one, and what comes of it by a few.
    apart = np.abs(file.answers(drawn(256, seed=9)[0]) - answers(model)) / last_step(model)
    assert apart.max() <= 3.01
    assert apart.mean() < 0.5


def test_openvino_computes_layers_in_integers(source, taught, tmp_path):
    import openvino

    if not this_machine().has_integer_dot_products:
        taught = made(source, weight_bits=7)
    written = ConvertToOpenVINO().apply(taught, PlainContext(tmp_path))
    read = openvino.Core().read_model(str(written.path))
    x = drawn(256, seed=9)[0]
    read.reshape([256, 8, 8, 3])
    exact = {"INFERENCE_PRECISION_HINT": "f32"}

    compiled = openvino.Core().compile_model(read, "CPU", exact)

    precisions = {}
    for operation in compiled.get_runtime_model().get_ordered_ops():
        told = operation.get_rt_info()
        kind = told["layerType"].astype(str)
        precisions.setdefault(kind, set()).add(told["runtimePrecision"].astype(str))
    assert precisions["Convolution"] | precisions["FullyConnected"] <= {"u8", "i8"}
    apart = np.abs(compiled(x)[0] - answers(taught)) / last_step(taught)
    # It leaves some roundings between operations that it joins out.
    assert apart.max() <= 3.01
    assert apart.mean() < 0.5


def test_the_same_seed_gives_the_same_graph(source, taught):
    assert made(source).digest == taught.digest


def test_without_training_ranges_are_what_samples_show(source):
    found = made(source, epochs=0)
    wanted = np.asarray(opened(source[1])(drawn(256, seed=9)[0]))
    # Some of these go beyond what the others showed, and are cut off there.
    assert np.abs(answers(found) - wanted).mean() < 0.01 * np.ptp(wanted)


def test_zeros_and_clusters_of_what_came_before_are_kept_and_counted(tmp_path):
    keras.utils.set_random_seed(0)
    live = keras.Sequential(
        [keras.Input((8, 8, 3), name="image"), layers.Flatten(), layers.Dense(16)]
    )
    live.layers[-1].name = "label"
    prune(live, 0.75)
    cluster(live, 8)
    workshop = Workshop(tmp_path)
    model = workshop.keras(live)  # whose facts are gone with it: a file tells of nobody's work

    graph = made((workshop, model), learning_rate=0.01)

    ((name, sparsity),) = graph.facts["sparsity"].items()
    assert (sparsity, graph.facts["clusters"]) == (0.75, {name: 8})
    file = Flatbuffer(ConvertToLiteRT().apply(graph, PlainContext(workshop.new())))
    (codes,) = file.kernels().values()
    before = np.asarray(live.layers[-1].kernel)
    np.testing.assert_array_equal(codes.T == 0, before == 0)
    assert len(np.unique(codes)) == 8


def test_without_pruning_and_clustering_there_is_nothing_to_count(taught):
    assert {"sparsity", "clusters"}.isdisjoint(taught.facts)


def test_a_model_with_nothing_to_quantize_is_left_as_it_is(source):
    outcome = made(source, exclude=("Conv2D", "DepthwiseConv2D", "Dense"))
    assert isinstance(outcome, Unchanged)
    assert outcome.reason.startswith("no layer computes in integers; conv2d")


def test_recurrent_layers_stay_in_float_and_the_others_are_integers(tmp_path):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6, 4), name="image")
    x = layers.Bidirectional(layers.LSTM(5), name="memory")(tokens)
    live = keras.Model(tokens, layers.Dense(3, name="label")(x))
    workshop = Workshop(tmp_path)
    source = workshop.keras(live)
    x = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    samples = Samples({"image": x}, {})
    with quiet():
        graph = QuantizeAware(epochs=0).apply(
            source, Teaching(workshop.new(), original=source, samples=samples)
        )

    file = Flatbuffer(ConvertToLiteRT().apply(graph, PlainContext(workshop.new())))

    told = file.model.facts["left_in_float"]
    assert set(told) == {"memory"}
    assert told["memory"].startswith("recurrent layers stay in float")
    layers_ = [types for name, types in file.operations if name == "FULLY_CONNECTED"]
    assert sum("int8" in types for types in layers_) == 1
    assert sum("float32" in types for types in layers_) == len(layers_) - 1 > 1
    wanted = np.asarray(opened(source)(x))
    assert np.abs(file.answers(x) - wanted).max() < 0.03 * np.ptp(wanted)
