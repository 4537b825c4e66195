"""The demonstration's case: a small convnet trained on scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path


def digits_case(model_file: str, data_file: str, *, epochs: int = 15) -> float:
    """Train on half of the digits, write the model and the data, and return the accuracy on the rest.

    Args:
        model_file: The ``.keras`` file to write.
        data_file: The ``.npz`` file to write, with ``x_train``, ``y_train``, ``x_test``, ``y_test``.
        epochs: How long to train.
    """
    import keras
    import numpy as np
    from keras import layers
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(0)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = (digits.images[order, ..., None] / 16.0).astype("float32")
    y = digits.target[order]
    half = len(x) // 2
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            layers.Conv2D(32, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2D(64, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(x[:half], y[:half], batch_size=32, epochs=epochs, verbose=0)
    accuracy = float(model.evaluate(x[half:], y[half:], verbose=0)[1])
    samples, draft = (
        Path(data_file).with_suffix(".draft.npz"),
        Path(model_file).with_suffix(".draft.keras"),
    )
    np.savez(samples, x_train=x[:half], y_train=y[:half], x_test=x[half:], y_test=y[half:])
    model.save(draft)
    samples.rename(data_file)
    draft.rename(model_file)
    return accuracy
