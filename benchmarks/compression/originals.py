"""The networks that are compressed, and the samples of each."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compression.scale import Scale
from benchmarks.compression.spoken_digits import spoken_digits
from benchmarks.places import cache_folder, data_file

# What strop looks at while it trains, and would stop by.
_LOOKED_AT = 256

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Original:
    """A network.

    Attributes:
        name: Of files, and on the command line.
        title: In tables.
        model: Returns where it lies, trained.
        draw: Returns ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
    """

    name: str
    title: str
    model: Callable[[Scale], Path]
    draw: Callable[[], Arrays]

    def lessons(self, scale: Scale) -> Path:
        """Return a file of training samples alone, for strop to divide: none of the test's are in it.

        Where strop would look at samples that it does not train on, it is given some that it trains on: all that it
        could do is to stop early, and it is told never to.
        """
        target = scale.work() / "lessons" / f"{self.name}.npz"
        if not target.exists():
            samples = self.draw()
            x, y = samples["x_train"][: scale.lessons], samples["y_train"][: scale.lessons]
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f"draft-{os.getpid()}-{target.name}")
            np.savez(draft, x_train=x, y_train=y, x_test=x[:_LOOKED_AT], y_test=y[:_LOOKED_AT])
            draft.replace(target)
        return target

    def tests(self, scale: Scale) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the samples to be judged by, as float32, and the class of each."""
        samples = self.draw()
        x, y = samples["x_test"][: scale.tests], samples["y_test"][: scale.tests]
        return x.astype(np.float32), y.reshape(-1).astype(np.int64)


def _cifar10() -> Arrays:
    with np.load(data_file("cifar10.npz")) as data:
        return {name: data[name] for name in ("x_train", "y_train", "x_test", "y_test")}


def _as_published(scale: Scale) -> Path:
    return data_file("models/mlperf_tiny/image_classification/pretrainedResnet.h5")


def trained_place(name: str, scale: Scale) -> Path:
    """Return where a network that is trained here lies, whether it is there or not."""
    return cache_folder() / scale.name / "models" / f"{name}.keras"


def _trained(name: str) -> Callable[[Scale], Path]:
    def model(scale: Scale) -> Path:
        target = trained_place(name, scale)
        if not target.exists():
            # In a process of its own, that takes its memory along when it ends.
            command = [sys.executable, "-m", "benchmarks.compression.train", name]
            subprocess.run([*command, *(["--smoke"] if scale.name else [])], check=True)
        return target

    return model


RESNET8 = Original("resnet8", "ResNet-8, CIFAR-10", _as_published, _cifar10)
DSCNN = Original("dscnn", "DS-CNN, spoken digits", _trained("dscnn"), spoken_digits)
SWISH = Original("swish", "MobileNet-like with swish, CIFAR-10", _trained("swish"), _cifar10)
ORIGINALS = {original.name: original for original in (RESNET8, DSCNN, SWISH)}
