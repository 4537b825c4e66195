"""The large convolutional networks of ``keras.applications``, without their trained weights.

Random weights alone make a poor test: activations die out or explode through the depth, and the
output is the same for every image, so that any garbage scores well against it. Here each batch
normalization gets the statistics that its inputs really have, as training would give it, then
moved a little by seed; and the scores are made of a part that depends on the class alone and one
that depends on the image. Answering with the mean answer scores 9 to 10 dB on these networks.

They end on scores, not on a softmax: integer kernels give the softmax steps of 1/256, fair to the
sharp answers of a trained network and the end of the flat ones that random weights give.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.places import cache_folder

_SEED = 20261120
_IMAGE_SHAPE = (224, 224, 3)
_SETTLING_IMAGES = 32
# Shifting what enters the activations keeps most units in their linear part. Without it a random
# network this deep is chaotic: even bfloat16 changes its answers beyond recognition (5 dB).
_SHIFT = 1.0
# The part of the scores that differs from class to class, in units of the part that differs from
# image to image. Each doubling brings every candidate, and garbage, up to 6 dB nearer the original:
_CLASS_SPREAD = 3.0
# Cells along a side, and the weight of the noise in them: coarse structure outweighs fine.
_IMAGE_SCALES = ((1, 2.0), (4, 1.5), (14, 1.0), (56, 0.5), (224, 0.25))


@dataclass(frozen=True)
class Architecture:
    """One network: its name in ``keras.applications`` and the range its inputs have."""

    application: str
    low: float
    high: float


RESNET50 = Architecture("ResNet50", -120.0, 150.0)  # what preprocess_input's 'caffe' mode gives
MOBILENET_V2 = Architecture("MobileNetV2", -1.0, 1.0)
# These two scale their inputs themselves.
MOBILENET_V3_SMALL = Architecture("MobileNetV3Small", 0.0, 255.0)
EFFICIENTNET_B0 = Architecture("EfficientNetB0", 0.0, 255.0)


def random_images(count: int, *, low: float, high: float, seed: int) -> NDArray[np.float32]:
    """Return images of 224×224 with structure at every scale, as photographs have.

    White noise would look the same to a convolutional network from image to image.
    """
    random = np.random.default_rng(seed)
    images = np.zeros((count, *_IMAGE_SHAPE), np.float32)
    for cells, weight in _IMAGE_SCALES:
        noise = weight * random.standard_normal((count, cells, cells, 3), np.float32)
        images += noise.repeat(224 // cells, axis=1).repeat(224 // cells, axis=2)
    three_deviations = 3.0 * np.sqrt(sum(weight**2 for _, weight in _IMAGE_SCALES))
    unit = np.clip(images / (2 * three_deviations) + 0.5, 0.0, 1.0)
    return np.asarray(low + unit * (high - low), np.float32)


def kept_images(architecture: Architecture, *, count: int, seed: int) -> NDArray[np.float32]:
    """Return `random_images` in the range of the network, made on the first call.

    Making them takes seconds, in each of the processes that a way by hand consists of: time that
    would be laid at the door of the engines.
    """
    low, high = architecture.low, architecture.high
    target = cache_folder() / "images" / f"{low:g}_{high:g}_{count}_{seed}.npy"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".unfinished.npy")
        np.save(unfinished, random_images(count, low=low, high=high, seed=seed))
        unfinished.replace(target)  # whole or not at all
    images: NDArray[np.float32] = np.load(target)
    return images


def untrained_model(architecture: Architecture) -> Path:
    """Return where the network lies, made on the first call."""
    target = cache_folder() / "models" / f"{architecture.application}.keras"
    if not target.exists():
        model = _build(architecture)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".unfinished.keras")
        model.save(unfinished)
        unfinished.replace(target)  # whole or not at all
    return target


def _build(architecture: Architecture) -> Any:
    import keras

    keras.utils.set_random_seed(_SEED)
    make: Callable[..., Any] = getattr(keras.applications, architecture.application)
    # MobileNetV3 would leave height and width open.
    model = make(input_shape=_IMAGE_SHAPE, weights=None, classifier_activation=None)
    images = random_images(
        _SETTLING_IMAGES, low=architecture.low, high=architecture.high, seed=_SEED
    )
    _settle_batch_norms(model, images)
    _spread_scores(model, images)
    return model


def _settle_batch_norms(model: Any, images: NDArray[np.float32]) -> None:
    """Give every batch normalization weights by seed, and the statistics of its own inputs."""
    import keras

    random = np.random.default_rng(_SEED)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # one pass is then enough: the moving statistics become the batch's
        norm.gamma.assign(random.normal(1.0, 0.1, norm.gamma.shape))
        norm.beta.assign(random.normal(_SHIFT, 0.1, norm.beta.shape))
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
        moved = random.normal(0.0, 0.05, mean.shape) * np.sqrt(variance)
        norm.moving_mean.assign(mean + moved)
        norm.moving_variance.assign(variance * np.exp(random.normal(0.0, 0.05, variance.shape)))


def _spread_scores(model: Any, images: NDArray[np.float32]) -> None:
    """Give the scores both their parts, whatever kind of layer computes them."""
    import keras

    last = next(x for x in reversed(model.layers) if getattr(x, "kernel", None) is not None)
    kernel = last.kernel.numpy()
    features = keras.Model(model.inputs, last.input).predict(images, verbose=0)
    matrix = kernel.reshape(kernel.shape[-2:])  # a dense layer's, or a 1×1 convolution's
    scores = features.reshape(len(images), -1) @ matrix
    centre = scores.mean(axis=0)
    scale = 1.0 / (scores - centre).std()
    classes = np.random.default_rng(_SEED).normal(0.0, _CLASS_SPREAD, centre.shape)
    last.kernel.assign(kernel * scale)
    last.bias.assign(classes - centre * scale)
