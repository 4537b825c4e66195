"""What holds for every test, and what is too dear to make twice."""

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# A shared machine is slow at times, and a deadline would then fail a test that is right.
settings.register_profile("strop", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("strop")


class Digits(NamedTuple):
    """A convnet trained on handwritten digits: real answers, which noise in the weights would change."""

    model: Path
    data: Path
    accuracy: float


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """The demonstration's case, trained once a session. Tests only read it."""
    from strop.engine.demo import digits_case

    folder = tmp_path_factory.mktemp("digits")
    model, data = folder / "digits.keras", folder / "digits.npz"
    return Digits(model, data, digits_case(str(model), str(data), epochs=8))
