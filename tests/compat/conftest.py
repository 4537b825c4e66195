"""Handwritten digits, and a small convnet that was taught them, as the guides of the library that is moved from have."""

from dataclasses import dataclass

import numpy as np
import pytest


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
