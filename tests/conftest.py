"""What holds for every test, and what is made once for all of them: a trained model, its data, a study of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# By itself TensorFlow uses oneDNN only where a processor has AVX-512: without, there are no convolutions over channels
# that come first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# A shared machine is slow at times, and a deadline would then fail a test that is right.
settings.register_profile("strop", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("strop")


@dataclass(frozen=True)
class Case:
    """A trained model on disk with its samples."""

    model: Path
    data: Path
    accuracy: float

    def copied_to(self, folder: Path) -> Case:
        """Return the same case in a folder of a test's own, where a study may be written beside it."""
        return Case(
            Path(shutil.copy(self.model, folder)),
            Path(shutil.copy(self.data, folder)),
            self.accuracy,
        )


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A convnet trained on handwritten digits for a few seconds."""
    from strop.engine.demo import digits_case
    from strop.graph.quiet import quiet

    folder = tmp_path_factory.mktemp("digits")
    model, data = folder / "digits.keras", folder / "digits.npz"
    with quiet():
        accuracy = digits_case(str(model), str(data), epochs=5)
    return Case(model, data, accuracy)


@pytest.fixture(scope="session")
def result(digits, tmp_path_factory):
    """What `optimize` found for the digits; read it, change nothing of it."""
    import strop

    return strop.optimize(
        digits.model, digits.data, effort="quick", output=tmp_path_factory.mktemp("study") / "out"
    )


@pytest.fixture(scope="session")
def made(digits, tmp_path_factory):
    """The digits' model in every form, and the bench that judges candidates."""
    from strop.graph.quiet import quiet
    from tests.stock import stock

    with quiet():
        return stock(digits.model, digits.data, tmp_path_factory.mktemp("stock"))


@pytest.fixture
def litert_of_batch(made):
    """Return a function that opens the digits' model in LiteRT for one batch size, beside ten samples."""
    from strop.core import registry
    from strop.graph.quiet import quiet

    opened = []

    def open_of(batch):
        convert = registry.passes.get("convert.litert")(batch=batch)
        with quiet():
            model = convert.apply(made.model(("convert.graph_def",)), made.context())
        opened.append(registry.runtimes.get("litert")().open(model))
        return opened[-1], made.bench.samples().select.head(10)

    yield open_of
    for predictor in opened:
        predictor.close()
