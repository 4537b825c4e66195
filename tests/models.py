"""Models for tests, built in code in moments, with weights that leave no output near zero by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def settle(model: Any, *, seed: int = 0) -> Any:
    """Give `model` weights as after training: biases and statistics that are not zeros and ones."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif len(weight.shape) <= 1 and "seed" not in weight.path and "count" not in weight.path:
            weight.assign(np.asarray(weight) + rng.normal(0, 0.1, weight.shape))
    return model


def convnet() -> Any:
    """A convnet with batch normalization, as a Sequential."""
    import keras
    from keras import layers

    return settle(
        keras.Sequential(
            [
                keras.Input((12, 12, 3), name="image"),
                layers.Conv2D(8, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.DepthwiseConv2D(3, strides=2, padding="same"),
                layers.Conv2D(8, 1, activation="swish"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(5, activation="softmax", name="label"),
            ]
        )
    )


def mlp() -> Any:
    """Three dense layers, the smallest network that has anything to quantize."""
    import keras
    from keras import layers

    return settle(
        keras.Sequential(
            [
                keras.Input((16,), name="features"),
                layers.Dense(32, activation="relu"),
                layers.Dense(32, activation="relu"),
                layers.Dense(4, activation="softmax", name="label"),
            ]
        )
    )


def two_in_two_out() -> Any:
    """A model that is called with a dict and answers with one, whose names are not in the order of the alphabet."""
    import keras
    from keras import layers

    wide, deep = keras.Input((8,), name="wide"), keras.Input((6,), dtype="int32", name="deep")
    joined = layers.Concatenate()([wide, layers.Flatten()(layers.Embedding(50, 4)(deep))])
    outputs = {"score": layers.Dense(1)(joined), "kind": layers.Dense(3)(joined)}
    return settle(keras.Model({"wide": wide, "deep": deep}, outputs))


def transformer(steps: int | None = 16) -> Any:
    """A transformer of two blocks with GELU; `steps` None leaves the length of the sequence free."""
    import keras
    from keras import layers

    tokens = keras.Input((steps,), dtype="int32", name="tokens")
    x = layers.Embedding(100, 32)(tokens)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))
        x = layers.LayerNormalization()(
            x + layers.Dense(32)(layers.Dense(64, activation="gelu")(x))
        )
    pooled = layers.GlobalAveragePooling1D()(x)
    return settle(keras.Model(tokens, layers.Dense(3, name="label")(pooled)))


def bidirectional_lstm(steps: int | None = 12) -> Any:
    """A bidirectional LSTM under another LSTM."""
    import keras
    from keras import layers

    tokens = keras.Input((steps,), dtype="int32", name="tokens")
    x = layers.Embedding(100, 16, embeddings_initializer="normal")(tokens)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(x)
    return settle(keras.Model(tokens, layers.Dense(3, name="label")(layers.LSTM(12)(x))))


def nested() -> Any:
    """Two inputs through one shared inner model."""
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((10,)), layers.Dense(8, activation="relu")])
    left, right = keras.Input((10,), name="left"), keras.Input((10,), name="right")
    apart = layers.Subtract()([inner(left), inner(right)])
    return settle(keras.Model([left, right], layers.Dense(1, name="distance")(apart)))


def subclassed() -> Any:
    """A model of a class of its own, called once."""
    import keras
    from keras import layers

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.last = layers.Dense(8, activation="gelu"), layers.Dense(3)
            self.drop = layers.Dropout(0.5)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.last(self.drop(self.hidden(x), training=training))

    model = Own()
    model(np.zeros((1, 5), np.float32))
    return settle(model)


def dense_case(folder: Path) -> Path:
    """Write `onnx_dense` and samples that it is mostly right on, ``dense.onnx`` and ``dense.npz``; return the model's path."""
    random = np.random.default_rng(5)
    x = random.standard_normal((400, 4)).astype(np.float32)
    right = (x @ np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)).argmax(-1)
    np.savez(
        folder / "dense.npz", x=x, y=np.where(random.random(400) < 0.1, (right + 1) % 3, right)
    )
    return onnx_dense(folder / "dense.onnx")


def onnx_dense(
    path: Path, *, given: str = "x", width: int = 4, seed: int = 0, scale: float = 1.0
) -> Path:
    """Write one dense layer under a softmax as an ONNX file, which no test needs TensorFlow for; return its path."""
    import onnx
    from onnx import helper, numpy_helper

    weights = scale * np.random.default_rng(seed).standard_normal((width, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", [given, "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["label"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", size])
        for name, size in ((given, width), ("label", 3))
    ]
    graph = helper.make_graph(
        nodes, "dense", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path
