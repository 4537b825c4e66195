"""The ten models of the benchmark: where each lies, and the samples it is asked about.

What has to be made (untrained networks, trained text models) is made by the modules beside this
one. A case whose model or data is not there raises `CaseUnavailableError`, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks import untrained
from benchmarks.places import CaseUnavailableError, data_file
from benchmarks.texts import load_texts
from benchmarks.train_text_models import trained_text_model

__all__ = [
    "BATCHES",
    "CASES",
    "Case",
    "CaseUnavailableError",
    "Kind",
    "Samples",
    "Splits",
    "case_named",
]

_SEED = 20261120
# Enough for any engine's calibration (NNCF asks for 300) and for choosing between candidates.
_CALIBRATE = 1_000
# Images of 224×224 are 0.6 MB each.
_CALIBRATE_LARGE, _EVALUATE_LARGE = 300, 64

BATCHES = (1, 32)

Kind = Literal["convolutional", "transformer", "recurrent"]


@dataclass(frozen=True)
class Samples:
    """Inputs by name, ready for the model, and the label of each sample where there are labels."""

    inputs: dict[str, NDArray[np.generic]]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batch(self, index: int, size: int) -> dict[str, NDArray[np.generic]]:
        """Return `size` samples from the `index`-th batch on, from the start again at the end."""
        picked = np.arange(index * size, (index + 1) * size) % len(self)
        return {name: np.ascontiguousarray(array[picked]) for name, array in self.inputs.items()}


@dataclass(frozen=True)
class Splits:
    """Samples to make candidates with, and samples to judge them by; no sample is in both."""

    calibrate: Samples
    evaluate: Samples


@dataclass(frozen=True)
class Case:
    """One model of the benchmark.

    Attributes:
        name: What the case is called on command lines and in results.
        kind: What sort of network it is, where an engine's documentation tells them apart.
        model: Returns where the model lies: ``.keras``, legacy ``.h5`` or a SavedModel folder.
        draw: Returns the samples, the same on every call.
        metric: ``accuracy`` where there are labels; else answers are compared with the model's.
    """

    name: str
    kind: Kind
    model: Callable[[], Path]
    draw: Callable[[], Splits]
    metric: Literal["accuracy"] | None


def case_named(name: str) -> Case:
    """Return the case of that name.

    Raises:
        KeyError: If there is none.
    """
    return {case.name: case for case in CASES}[name]


def _split_by_seed(
    inputs: NDArray[np.generic], labels: NDArray[np.generic] | None, *, name: str, calibrate: int
) -> Splits:
    order = np.random.default_rng(_SEED).permutation(len(inputs))
    parts = (np.sort(order[:calibrate]), np.sort(order[calibrate:]))
    first, second = (
        Samples({name: inputs[part]}, None if labels is None else labels[part].astype(np.int64))
        for part in parts
    )
    return Splits(first, second)


def _calibrate_from_train(archive: str, prepare: Callable[..., NDArray[np.float32]]) -> Splits:
    """Draw the calibration samples from the training images; all test images judge."""
    with np.load(data_file(archive)) as arrays:
        train, train_labels = arrays["x_train"], arrays["y_train"]
        test, test_labels = arrays["x_test"], arrays["y_test"]
    picked = np.random.default_rng(_SEED).permutation(len(train))[:_CALIBRATE]
    return Splits(
        Samples({"image": prepare(train[picked])}, train_labels[picked].astype(np.int64)),
        Samples({"image": prepare(test)}, test_labels.astype(np.int64)),
    )


def _plain_pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """ResNet-8 was trained on 0–255."""
    return images.astype(np.float32)


def _unit_grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Fashion CNN was trained on 0–1 with a channel axis."""
    return images[..., None].astype(np.float32) / np.float32(255)


def _draw_keywords() -> Splits:
    with np.load(data_file("mlperf_kws01.npz")) as arrays:
        codes, labels = arrays["x_int8"], arrays["y"]
        scale, zero_point = arrays["scale"], arrays["zero_point"]
    spectrograms = (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return _split_by_seed(spectrograms, labels, name="spectrogram", calibrate=100)


def _draw_faces() -> Splits:
    """Draw grey 64×64 pictures from CIFAR-10: mini-Xception's own faces are not in the data.

    Its repository maps pixels to −1…1.
    """
    with np.load(data_file("cifar10.npz")) as arrays:
        images = arrays["x_test"][: _CALIBRATE + 512]
    grey = images.astype(np.float32).mean(axis=-1, keepdims=True)
    scaled = (grey / np.float32(255) - np.float32(0.5)) * np.float32(2)
    doubled = scaled.repeat(2, axis=1).repeat(2, axis=2)
    return _split_by_seed(doubled, None, name="image", calibrate=_CALIBRATE)


def _draw_texts() -> Splits:
    texts = load_texts()
    picked = np.random.default_rng(_SEED).permutation(len(texts.x_train))[:_CALIBRATE]
    return Splits(
        Samples({"tokens": texts.x_train[picked]}, texts.y_train[picked]),
        Samples({"tokens": texts.x_test}, texts.y_test),
    )


def _draw_random_images(architecture: untrained.Architecture) -> Splits:
    images = untrained.kept_images(
        architecture, count=_CALIBRATE_LARGE + _EVALUATE_LARGE, seed=_SEED + 1
    )
    return _split_by_seed(images, None, name="image", calibrate=_CALIBRATE_LARGE)


def _text_model(name: str) -> Path:
    path = trained_text_model(name)
    if not path.exists():
        raise CaseUnavailableError(
            f"{path.name} is not trained yet; python -m benchmarks.train_text_models --model {name}"
        )
    return path


def _untrained_case(name: str, architecture: untrained.Architecture) -> Case:
    return Case(
        name,
        "convolutional",
        model=partial(untrained.untrained_model, architecture),
        draw=partial(_draw_random_images, architecture),
        metric=None,
    )


CASES = (
    Case(
        "resnet8",
        "convolutional",
        model=partial(data_file, "models/mlperf_tiny/image_classification/pretrainedResnet.h5"),
        draw=partial(_calibrate_from_train, "cifar10.npz", _plain_pixels),
        metric="accuracy",
    ),
    Case(
        "dscnn",
        "convolutional",
        model=partial(data_file, "models/mlperf_tiny/keyword_spotting/kws_ref_model"),
        draw=_draw_keywords,
        metric="accuracy",
    ),
    Case(
        "fashion",
        "convolutional",
        model=partial(data_file, "models/keras/fashion_mnist_cnn/fashion_mnist_cnn.h5"),
        draw=partial(_calibrate_from_train, "fashion_mnist.npz", _unit_grey),
        metric="accuracy",
    ),
    Case(
        "mini_xception",
        "convolutional",
        model=partial(data_file, "models/keras/mini_xception/fer2013_mini_XCEPTION.99-0.65.hdf5"),
        draw=_draw_faces,
        metric=None,
    ),
    _untrained_case("resnet50", untrained.RESNET50),
    _untrained_case("mobilenet_v2", untrained.MOBILENET_V2),
    _untrained_case("mobilenet_v3_small", untrained.MOBILENET_V3_SMALL),
    _untrained_case("efficientnet_b0", untrained.EFFICIENTNET_B0),
    Case(
        "transformer",
        "transformer",
        model=partial(_text_model, "transformer"),
        draw=_draw_texts,
        metric="accuracy",
    ),
    Case(
        "bilstm",
        "recurrent",
        model=partial(_text_model, "bilstm"),
        draw=_draw_texts,
        metric="accuracy",
    ),
)
