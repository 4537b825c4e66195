"""Handwritten digits, and a small convnet that was taught them, as the guides of the library that is moved from have."""

import zlib
from dataclasses import dataclass

import numpy as np
import pytest

from strop.graph.quiet import quiet


@dataclass(frozen=True)
class Taught:
    """A convnet and its digits.

    Attributes:
        model: The `keras.Model`; change nothing of it.
        train: Images and labels.
        test: Others.
        accuracy: The model's, on the others.
    """

    model: object
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    accuracy: float

    def accuracy_of(self, model) -> float:
        """Return the accuracy of another model."""
        return float(np.mean(model.predict(self.test[0], verbose=0).argmax(-1) == self.test[1]))


def compiled(model, rate=1e-3, **given):
    """Compile as the guides do, and return the model."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], **given)
    return model


@dataclass(frozen=True)
class Flatbuffer:
    """What LiteRT makes of a converted model.

    Attributes:
        operations: The name of each operation, with the types of what it reads and gives.
        constants: The tensors that have values before anything is computed.
        answers: What it answers to some inputs.
        size: Its bytes, zipped.
    """

    operations: list[tuple[str, set[str]]]
    constants: list[np.ndarray]
    answers: np.ndarray
    size: int

    @property
    def floats(self) -> list[str]:
        """The operations that read or give floats."""
        return [name for name, types in self.operations if "float32" in types]

    def codes(self, size: int) -> np.ndarray:
        """Return the constant of this many weights."""
        (found,) = (c for c in self.constants if c.size == size and c.dtype != np.int32)
        return found


def in_litert(model, x, *optimizations) -> Flatbuffer:
    """Convert a model as the guides do, by default to integers, and run it."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = list(optimizations or [tf.lite.Optimize.DEFAULT])
        written = converter.convert()
    interpreter = Interpreter(
        model_content=written,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    (given,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    details = interpreter.get_tensor_details()
    types = {t["index"]: np.dtype(t["dtype"]).name for t in details}
    operations = interpreter._get_ops_details()
    computed = {i for op in operations for i in op["outputs"]} | {given["index"]}
    return Flatbuffer(
        [
            (op["op_name"], {types[i] for i in (*op["inputs"], *op["outputs"]) if i >= 0})
            for op in operations
        ],
        [interpreter.get_tensor(i) for i in types if i not in computed],
        interpreter.get_tensor(answered["index"]),
        len(zlib.compress(written)),
    )


@pytest.fixture(scope="session")
def taught():
    import keras
    from keras import layers
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8)
    y = labels[order]
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(24, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    compiled(model, 3e-3, jit_compile=False).fit(x[:1500], y[:1500], epochs=12, verbose=0)
    accuracy = model.evaluate(x[1500:], y[1500:], verbose=0)[1]
    return Taught(model, (x[:1500], y[:1500]), (x[1500:], y[1500:]), accuracy)
