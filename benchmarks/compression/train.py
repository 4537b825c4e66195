"""Train the networks that nobody has published: a DS-CNN for spoken digits, and a MobileNet-like net with swish.

They go to the cache folder, once; interrupted, the training goes on after the last finished epoch::

    python -m benchmarks.compression.train dscnn
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.compression.originals import DSCNN, ORIGINALS, SWISH, trained_place
from benchmarks.compression.scale import SMOKE, WHOLE, Scale
from benchmarks.compression.spoken_digits import COEFFICIENTS, FRAMES

_SEED = 20261122
_BATCH = 64
_LEARNING_RATE = 2e-3
_FARTHEST_SHIFT = 4  # pixels
# Width, channels out, stride of each block, as many times wider within.
_WIDER = 4
_BLOCKS = ((24, 2), (24, 1), (40, 2), (40, 1), (64, 2), (64, 1))


def ds_cnn() -> Any:
    """Return the untrained network of MLPerf Tiny's keyword spotting, for ten digits.

    References:
        Zhang, Suda, Lai, Chandra, *Hello Edge: Keyword Spotting on Microcontrollers*, 2017 (arXiv:1711.07128).
    """
    cepstra = keras.Input((FRAMES, COEFFICIENTS, 1), name="cepstra")
    x = _normalized(layers.Conv2D(64, (10, 4), 2, padding="same", use_bias=False)(cepstra), "relu")
    x = layers.Dropout(0.2)(x)
    for _ in range(4):
        x = _normalized(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x), "relu")
        x = _normalized(layers.Conv2D(64, 1, use_bias=False)(x), "relu")
    x = layers.Dropout(0.4)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(
        cepstra, layers.Dense(10, activation="softmax", name="digit")(x), name="dscnn"
    )


def swish_net() -> Any:
    """Return an untrained network of inverted residual blocks with swish, for pixels from 0 to 255.

    References:
        Sandler, Howard, Zhu, Zhmoginov, Chen, *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018;
        Ramachandran, Zoph, Le, *Searching for Activation Functions*, 2017 (arXiv:1710.05941).
    """
    image = keras.Input((32, 32, 3), name="image")
    x = _normalized(layers.Conv2D(16, 3, padding="same", use_bias=False)(image), "swish")
    for channels, stride in _BLOCKS:
        x = _inverted_residual(x, channels, stride)
    x = _normalized(layers.Conv2D(160, 1, use_bias=False)(x), "swish")
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(10, activation="softmax", name="kind")(x), name="swish")


def _inverted_residual(x: Any, channels: int, stride: int) -> Any:
    given = x
    wide = _WIDER * x.shape[-1]
    x = _normalized(layers.Conv2D(wide, 1, use_bias=False)(x), "swish")
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
    x = _normalized(x, "swish")
    x = _normalized(layers.Conv2D(channels, 1, use_bias=False)(x))
    return layers.Add()([given, x]) if given.shape == x.shape else x


def _normalized(x: Any, activation: str | None = None) -> Any:
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation(activation)(x) if activation else x


class _Lessons(keras.utils.PyDataset):
    """Batches in an order that is new each epoch, images shifted and mirrored where that is wanted."""

    def __init__(self, x: Any, y: Any, *, is_varied: bool) -> None:
        super().__init__()
        self._x, self._y, self._is_varied = x, y, is_varied
        self._random = np.random.default_rng(_SEED)
        self._order = self._random.permutation(len(x))

    def __len__(self) -> int:
        return len(self._x) // _BATCH

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        chosen = self._order[index * _BATCH : (index + 1) * _BATCH]
        x = self._x[chosen].astype(np.float32)
        return (self._varied(x) if self._is_varied else x), self._y[chosen]

    def on_epoch_end(self) -> None:
        """Draw another order."""
        self._order = self._random.permutation(len(self._x))

    def _varied(self, images: Any) -> Any:
        far = _FARTHEST_SHIFT
        padded = np.pad(images, ((0, 0), (far, far), (far, far), (0, 0)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], axis=(1, 2))
        rows, columns = self._random.integers(0, 2 * far + 1, (2, len(images)))
        shifted = np.moveaxis(windows[np.arange(len(images)), rows, columns], 1, -1)
        is_mirrored = self._random.random(len(images)) < 0.5
        return np.where(is_mirrored[:, None, None, None], shifted[:, :, ::-1], shifted)


@dataclass(frozen=True)
class _Plan:
    """How a network is trained.

    Attributes:
        build: Returns it untrained.
        epochs: How often all samples are gone through.
        is_varied: Whether images are shifted and mirrored on the way.
    """

    build: Callable[[], Any]
    epochs: int
    is_varied: bool


_PLANS = {DSCNN.name: _Plan(ds_cnn, 25, False), SWISH.name: _Plan(swish_net, 20, True)}


def train(name: str, scale: Scale) -> Path:
    """Train a network if it is not there yet, and return where it lies.

    Its rate falls to nothing, so that the last weights are the ones to keep, and none need be chosen by any sample.
    """
    target = trained_place(name, scale)
    if target.exists():
        return target
    plan, samples = _PLANS[name], ORIGINALS[name].draw()
    x, y = samples["x_train"][: scale.lessons], samples["y_train"][: scale.lessons].reshape(-1)
    keras.utils.set_random_seed(_SEED)
    model, lessons = plan.build(), _Lessons(x, y, is_varied=plan.is_varied)
    epochs = scale.epochs(plan.epochs)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, epochs * len(lessons))
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    backup = keras.callbacks.BackupAndRestore(target.parent / f"{name}.training")
    model.fit(lessons, epochs=epochs, callbacks=[backup], verbose=2)
    tests, classes = ORIGINALS[name].tests(scale)
    right = model.predict(tests, batch_size=256, verbose=0).argmax(-1) == classes
    sys.stdout.write(f"{name}: {right.mean():.4f} of {len(right)} test samples\n")
    unfinished = target.with_suffix(".unfinished.keras")
    model.save(unfinished)
    unfinished.replace(target)  # whole or not at all
    return target


def main() -> None:
    """Train the networks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=_PLANS)
    parser.add_argument("--smoke", action="store_true", help="an epoch on a few samples")
    asked = parser.parse_args()
    for name in asked.names:
        train(name, SMOKE if asked.smoke else WHOLE)


if __name__ == "__main__":
    main()
