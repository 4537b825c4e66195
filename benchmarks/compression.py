"""Compression that trains: what each technique costs in accuracy and brings in size, over seeds.

``python -m benchmarks.compression`` measures what is not measured yet, a technique and a seed at a time, and goes on where
it stopped; ``--report`` prints the table alone. Accuracy is that on all 5,000 test images of CIFAR-10, none of which is
trained on, chosen by, or stopped by; the original saw 50,000 training images, of which 10,000 are here.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places import cache_folder, data_file, figures_folder

SEEDS = (0, 1, 2)
_MODEL = "models/mlperf_tiny/image_classification/pretrainedResnet.h5"
_EPOCHS = 15


@dataclass(frozen=True)
class Row:
    """A technique, and what is asked of it.

    Attributes:
        name: In the table, and of the files.
        steps: Functions of strop's in order, each with its settings, the next on what the last made.
        most_drop: The most that accuracy may drop, in points.
        least_smaller: How many times smaller the zipped file has to be; None where nothing is asked.
    """

    name: str
    steps: tuple[tuple[str, Mapping[str, Any]], ...]
    most_drop: float
    least_smaller: float | None = None


def _pruned(**settings: Any) -> tuple[str, Mapping[str, Any]]:
    return "prune", {"epochs": _EPOCHS, **settings}


ROWS = (
    Row("prune-70", (_pruned(sparsity=0.7),), 1.0, 2.5),
    Row("prune-80", (_pruned(sparsity=0.8),), 2.0, 3.3),
    Row("prune-2of4", (_pruned(pattern="2:4", sparsity=0.5),), 0.7),
    Row("cluster-16", (("cluster", {"clusters": 16, "epochs": 5}),), 1.0),
    Row(
        "prune-70-cluster-16",
        (_pruned(sparsity=0.7), ("cluster", {"clusters": 16, "epochs": 5})),
        1.5,
    ),
)


def measured(row: Row, seed: int) -> dict[str, Any]:
    """Return what one technique made of ResNet-8 with one seed."""
    import strop

    source, samples = data_file(_MODEL), data_file("cifar10.npz")
    folder = cache_folder() / "compression"
    folder.mkdir(parents=True, exist_ok=True)
    model, started, zipped = source, time.monotonic(), None
    for number, (function, settings) in enumerate(row.steps):
        made = getattr(strop, function)(
            model, samples, folder / f"{row.name}-{seed}-{number}.keras",
            request=strop.Request(seed=seed, goal=strop.Goal(max_drop=1.0)), listen=_tell, **settings,
        )  # fmt: skip
        zipped = zipped or made.before["zipped_size"].value
        model = made.path
    return {
        "before": accuracy(source),
        "after": accuracy(model),
        "zipped_before": zipped,
        "zipped_after": made.after["zipped_size"].value,
        "seconds": time.monotonic() - started,
    }


def accuracy(model: Path) -> float:
    """Return the share of the test images that a Keras file classifies rightly."""
    from strop.graph.keras_files import load

    with np.load(data_file("cifar10.npz")) as data:
        images, labels = data["x_test"].astype(np.float32), data["y_test"].reshape(-1)
    scores = load(model).predict(images, batch_size=256, verbose=0)
    return float((scores.argmax(-1) == labels).mean())


def table(folder: Path) -> list[str]:
    """Return the lines of the table of what was measured."""
    lines = [
        "| ResNet-8, CIFAR-10 | seeds | accuracy | drop in points (of each seed) | asked | zipped, times smaller | asked |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in ROWS:
        found = [
            json.loads(file.read_text()) for file in sorted(folder.glob(f"{row.name}-[0-9].json"))
        ]
        if not found:
            continue
        drops = [100 * (one["before"] - one["after"]) for one in found]
        smaller = statistics.mean(one["zipped_before"] / one["zipped_after"] for one in found)
        after = statistics.mean(one["after"] for one in found)
        each = ", ".join(f"{drop:.2f}" for drop in drops)
        asked = "" if row.least_smaller is None else f"≥ {row.least_smaller}"
        lines.append(
            f"| {row.name} | {len(found)} | {after:.4f} | {statistics.mean(drops):.2f} ({each}) "
            f"| ≤ {row.most_drop} | {smaller:.2f} | {asked} |"
        )
    return lines


def _tell(event: Any) -> None:
    note, share = getattr(event, "note", None), getattr(event, "share", 0.0)
    if note:
        print(f"\r{share:5.0%}  {note}   ", end="", flush=True)


def main() -> None:
    """Measure what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=[row.name for row in ROWS], help="one technique alone")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="one seed alone")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    folder = figures_folder("compression")
    for seed in SEEDS:
        for row in ROWS:
            out = folder / f"{row.name}-{seed}.json"
            is_asked = asked.row in (None, row.name) and asked.seed in (None, seed)
            if out.exists() or asked.report or not is_asked:
                continue
            print(f"{row.name}, seed {seed}", flush=True)
            found = measured(row, seed)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found))
            print(f"\n  {found}", flush=True)
    print("\n".join(table(folder)))


if __name__ == "__main__":
    main()
