"""How long is trained, and on how much: the whole of it, or as little as shows that a row works at all."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.places import cache_folder, common_figures_folder, figures_folder

SEEDS = (0, 1, 2)
PRUNING_EPOCHS = 30
PATTERN_EPOCHS = 15
CLUSTERING_EPOCHS = 10
AWARE_EPOCHS = 5
AWARE_EPOCHS_OF_CLUSTERED = 10
STUDENT_EPOCHS = 30
BESIDE_EPOCHS = 5


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        name: Beneath which what is made is kept; empty for the whole.
        lessons: Most samples to train on; None for all.
        tests: Most samples to be judged by.
        most_epochs: Of each training; None for as many as are meant.
    """

    name: str = ""
    lessons: int | None = None
    tests: int | None = None
    most_epochs: int | None = None

    def epochs(self, meant: int) -> int:
        """Return how many epochs to train."""
        return min(meant, self.most_epochs or meant)

    def figures(self, *, is_timed: bool = False) -> Path:
        """Return the folder of the figures; what shows no more than that it works is not kept with the source.

        Args:
            is_timed: Whether they are times, which are a machine's; answers and sizes are the same everywhere.
        """
        if self.name:
            return cache_folder() / self.name / "figures"
        return (figures_folder if is_timed else common_figures_folder)("compression")

    def work(self) -> Path:
        """Return the folder of what is made on the way."""
        return cache_folder() / self.name / "compression"


WHOLE = Scale()
SMOKE = Scale("smoke", lessons=1_024, tests=256, most_epochs=1)
