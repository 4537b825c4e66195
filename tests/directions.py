"""Samples of three classes, each of which is a direction, and small networks that can learn to tell them apart."""

import keras
import numpy as np


def net(*, last="softmax", outputs=3, width=16, seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(outputs, activation=last, name="y"),
        ]
    )


def drawn(count=400, *, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")


def classes(x):
    """Which of three directions a sample lies nearest to."""
    return np.argmax(x @ np.random.default_rng(7).normal(size=(4, 3)), -1)


def share_right(model, x):
    return float((np.argmax(keras.ops.convert_to_numpy(model(x)), -1) == classes(x)).mean())
