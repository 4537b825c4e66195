"""A training with strop's callbacks, without a teacher: ``python -m benchmarks.peers.with_strop LESSON``."""

from pathlib import Path
from typing import Any

from benchmarks.peers.lesson import Lesson, Schedule, Treated, carry_out


def treat(model: Any, lesson: Lesson, schedule: Schedule) -> Treated:
    """Return the network as it is, and the callback that changes it."""
    from strop.core import registry
    from strop.numerics.schedules import PolynomialDecay
    from strop.train.clustering import Clustering
    from strop.train.pruning import Pruning

    callbacks: list[Any] = []
    if lesson.technique == "prune":
        target, end, frequency = schedule
        decay = PolynomialDecay(0.0, target, 0, end, frequency=frequency)
        # As `strop.prune` ranks where nothing else is said.
        ranking = registry.passes.get("prune.magnitude").defaults()["ranking"]
        callbacks = [Pruning(model, decay, ranking=str(ranking))]
    elif lesson.technique == "cluster":
        callbacks = [Clustering(model, lesson.clusters, seed=lesson.seed)]
    return Treated(model, callbacks, lambda fitted: fitted)


def main() -> None:
    """Carry out the lesson."""
    import keras

    from strop.graph.keras_files import load

    carry_out(keras, lambda path: load(Path(path)), treat)


if __name__ == "__main__":
    main()
