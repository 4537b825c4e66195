"""Train the two text models of the benchmark: a transformer and a bidirectional LSTM.

Both are the text classifiers of Keras' own examples, at the sizes the benchmark asks for. They go
to the cache folder, once; interrupted, the training goes on after the last finished epoch::

    python -m benchmarks.train_text_models
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.places import cache_folder
from benchmarks.texts import CLASSES, SEQUENCE, VOCABULARY, load_texts

_SEED = 20261120
_WIDTH = 256


def trained_text_model(name: str) -> Path:
    """Return where the model of that name lies, trained or not."""
    return cache_folder() / "models" / f"{name}.keras"


def transformer() -> Any:
    """Return an untrained 4-layer encoder of width 256 over 128 tokens."""
    import keras

    tokens = keras.Input((SEQUENCE,), dtype="int32", name="tokens")
    x = _embed_words_and_positions(tokens)
    for _ in range(4):
        attended = keras.layers.MultiHeadAttention(num_heads=4, key_dim=_WIDTH // 4)(x, x)
        x = keras.layers.LayerNormalization(epsilon=1e-6)(x + keras.layers.Dropout(0.1)(attended))
        hidden = keras.layers.Dense(4 * _WIDTH, activation="gelu")(x)
        hidden = keras.layers.Dropout(0.1)(keras.layers.Dense(_WIDTH)(hidden))
        x = keras.layers.LayerNormalization(epsilon=1e-6)(x + hidden)
    return _classifier(tokens, keras.layers.GlobalAveragePooling1D()(x))


def bidirectional_lstm() -> Any:
    """Return an untrained bidirectional LSTM of 128 units a direction, with an LSTM of 128 on it."""
    import keras

    tokens = keras.Input((SEQUENCE,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(VOCABULARY, 128)(tokens)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(128, return_sequences=True))(x)
    return _classifier(tokens, keras.layers.LSTM(128)(x))


def _embed_words_and_positions(tokens: Any) -> Any:
    """Add a learned vector a position to the vector of each word, with layers Keras itself has."""
    import keras
    import numpy as np

    words = keras.layers.Embedding(VOCABULARY, _WIDTH)(tokens)
    positions = keras.ops.zeros_like(tokens) + np.arange(SEQUENCE, dtype=np.int32)
    embedded = words + keras.layers.Embedding(SEQUENCE, _WIDTH)(positions)
    return keras.layers.Dropout(0.3)(embedded)


def _classifier(tokens: Any, features: Any) -> Any:
    import keras

    features = keras.layers.Dropout(0.3)(features)
    scores = keras.layers.Dense(len(CLASSES), activation="softmax", name="scores")(features)
    return keras.Model(tokens, scores)


TEXT_MODELS: dict[str, tuple[Callable[[], Any], float, int]] = {
    # builder, learning rate, epochs
    "transformer": (transformer, 2e-4, 3),
    "bilstm": (bidirectional_lstm, 1e-3, 3),
}


def train(name: str) -> Path:
    """Train one of the models if it is not there yet, and return where it lies."""
    import keras

    target = trained_text_model(name)
    if target.exists():
        return target
    build, learning_rate, epochs = TEXT_MODELS[name]
    keras.utils.set_random_seed(_SEED)
    model = build()
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    texts = load_texts()
    target.parent.mkdir(parents=True, exist_ok=True)
    model.fit(
        texts.x_train,
        texts.y_train,
        batch_size=32,
        epochs=epochs,
        validation_data=(texts.x_test, texts.y_test),
        callbacks=[keras.callbacks.BackupAndRestore(target.parent / f"{name}.training")],
        verbose=2,
    )
    unfinished = target.with_suffix(".unfinished.keras")
    model.save(unfinished)
    unfinished.replace(target)  # whole or not at all
    return target


def main() -> None:
    """Train the models named on the command line, both by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=TEXT_MODELS, action="append", help="both by default")
    for name in parser.parse_args().model or TEXT_MODELS:
        sys.stdout.write(f"{train(name)}\n")


if __name__ == "__main__":
    main()
