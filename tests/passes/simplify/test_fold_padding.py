"""Zeros around the data go into the convolution, as SAME where they are what SAME writes."""

import numpy as np
import pytest
import tensorflow as tf

from strop.engine.context import home_runtime
from strop.graph.quiet import quiet
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.convert.onnx import ConvertToONNX
from strop.passes.convert.openvino import ConvertToOpenVINO
from strop.passes.simplify.fold_padding import FoldPadding
from tests.graphs import INPUT, Bare, as_model, rewritten, run

SHAPE = (2, 6, 6, 3)


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def kernel(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))


def padded(around, layer, *, value=None, shape=SHAPE):
    """The graph of a layer behind a padding."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, shape, INPUT)
        if value is None:
            x = tf.raw_ops.Pad(input=x, paddings=around)
        else:
            x = tf.raw_ops.PadV2(input=x, paddings=around, constant_values=value)
        tf.identity(layer(x), "y")
    return graph.as_graph_def()


def conv(stride=1, size=3, dilation=1, padding="VALID"):
    return lambda x: tf.raw_ops.Conv2D(
        input=x, filter=kernel(size, size, 3, 4), strides=[1, stride, stride, 1], padding=padding,
        dilations=[1, dilation, dilation, 1],
    )  # fmt: skip


def depthwise(x):
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=kernel(3, 3, 3, 1), strides=[1, 2, 2, 1], padding="VALID"
    )


def volume(x):
    return tf.raw_ops.Conv3D(
        input=x, filter=kernel(3, 3, 3, 2, 4), strides=[1, 1, 1, 1, 1], padding="VALID"
    )


def image(before, behind):
    return [[0, 0], [before, behind], [before, behind], [0, 0]]


@pytest.mark.parametrize(
    ("graph", "becomes"),
    [
        (padded(image(1, 1), conv()), b"SAME"),
        (padded(image(0, 1), conv(2)), b"SAME"),  # as Keras' MobileNets have it
        (padded(image(1, 1), conv(2)), b"EXPLICIT"),  # as PyTorch has it
        (padded(image(3, 3), conv(2, size=7)), b"EXPLICIT"),  # as ResNets begin
        (padded(image(2, 2), conv(dilation=2)), b"SAME"),
        (padded(image(1, 1), conv(), shape=(2, None, None, 3)), b"SAME"),
        (padded(image(0, 1), conv(2), shape=(2, None, None, 3)), b"EXPLICIT"),
        (padded(image(1, 1), conv(), value=0.0), b"SAME"),
        (padded(image(0, 1), depthwise), b"SAME"),
        (padded([[0, 0], *[[1, 1]] * 3, [0, 0]], volume, shape=(2, 4, 6, 5, 2)), b"SAME"),
    ],
)
def test_a_padding_goes_into_the_convolution(graph, becomes):
    after = rewritten(FoldPadding, graph)

    assert not any(node.op.startswith("Pad") for node in after.node)
    (layer,) = (node for node in after.node if node.op.startswith(("Conv", "Depthwise")))
    assert layer.attr["padding"].s == becomes
    (x,) = (node for node in graph.node if node.name == INPUT)
    shape = [
        dimension.size if dimension.size > 0 else 6 for dimension in x.attr["shape"].shape.dim
    ]
    values = np.random.default_rng(1).normal(size=shape).astype("float32")
    (wanted,), (found,) = (run(one, ["y:0"], values) for one in (graph, after))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "graph",
    [
        padded(image(1, 1), conv(), value=0.5),
        padded(image(1, 1), conv(padding="SAME")),
        padded([[0, 0], [1, 1], [1, 1], [0, 3]], lambda x: conv()(x[..., :3])),
        padded([[1, 0], [1, 1], [1, 1], [0, 0]], conv()),
        padded(image(1, 1), depthwise),
        padded(image(1, 1), lambda x: conv()(x) + tf.reduce_sum(x)),  # another reads it too
    ],
)
def test_what_is_not_only_zeros_around_an_image_stays(graph):
    assert rewritten(FoldPadding, graph) is None


def test_the_size_is_the_signatures_and_not_what_was_written_beside_the_input():
    """At a height of 6 what PyTorch pads is not what SAME pads; at 5 it is."""
    graph = padded(image(1, 1), conv(2))
    as_written, asked = (
        rewritten(FoldPadding, graph),
        rewritten(FoldPadding, graph, shape=(2, 5, 5, 3)),
    )
    for after, wanted in ((as_written, b"EXPLICIT"), (asked, b"SAME")):
        (layer,) = (node for node in after.node if node.op == "Conv2D")
        assert layer.attr["padding"].s == wanted


@pytest.mark.parametrize("kind", [ConvertToLiteRT, ConvertToONNX, ConvertToOpenVINO])
def test_every_engine_knows_how_it_is_written(tmp_path, kind):
    graph = padded(image(1, 1), conv(2))
    after = rewritten(FoldPadding, graph)
    model = as_model(after, [f"{INPUT}:0"], ["y:0"], tmp_path)

    made = kind().apply(model, Bare(tmp_path))

    values = np.random.default_rng(1).normal(size=SHAPE).astype("float32")
    with home_runtime(made.form)().open(made) as predictor:
        (found,) = predictor.run(values)
    np.testing.assert_allclose(found, run(graph, ["y:0"], values)[0], rtol=1e-5, atol=1e-5)
