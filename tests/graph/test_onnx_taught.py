"""What ONNX Runtime is given of a taught model: weights in codes, which its integer kernels take."""

from collections import Counter

import keras
import numpy as np
import onnx
import onnxruntime
from keras import layers

from strop.graph.quiet import quiet
from strop.passes.convert.onnx import ConvertToONNX
from strop.train.quantization import codes_of
from tests.passes.convert.conftest import PlainContext
from tests.taught import Taught, drawn

IMAGE = (8, 8, 3)


def network():
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGE, name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="silu", name="first")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, name="wider")(x)
    return keras.Model(image, layers.Dense(4, name="label")(layers.GlobalAveragePooling2D()(x)))


def test_weights_are_codes_and_kernels_of_integers(tmp_path):
    with quiet():
        taught = Taught.of(network(), tmp_path)
        made = ConvertToONNX().apply(taught.graph, PlainContext(tmp_path))

    written = onnx.load(str(made.path)).graph
    held = [onnx.numpy_helper.to_array(tensor) for tensor in written.initializer]
    kernels = sorted(
        (a.size, tuple(np.unique(a))) for a in held if a.dtype == np.int8 and a.ndim > 1
    )
    assert kernels == sorted(
        (codes.size, tuple(np.unique(codes))) for codes in codes_of(taught.finished).values()
    )

    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(str(made.path), settings)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 2
    assert kinds["QLinearMatMul"] + kinds["QGemm"] == 1
    x = drawn(IMAGE, seed=9)
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    # A code here and there falls to the other side of a half, and moves the output's by one or two.
    assert np.abs(found - taught.answers(x)).max() <= 2.01 * taught.step
