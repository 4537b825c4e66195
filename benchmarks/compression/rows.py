"""The rows of the table: what is made of which network, and what is asked of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from benchmarks.compression.answers import kept
from benchmarks.compression.making import Bench, bench, step, zipped
from benchmarks.compression.originals import DSCNN, RESNET8, SWISH, Original
from benchmarks.compression.scale import (
    AWARE_EPOCHS,
    AWARE_EPOCHS_OF_CLUSTERED,
    CLUSTERING_EPOCHS,
    PATTERN_EPOCHS,
    PRUNING_EPOCHS,
    STUDENT_EPOCHS,
    Scale,
)
from strop.core.recipe import Step

AWARE, AFTERWARDS = "aware", "static"
DISTILLED, ALONE = "distilled keras", "alone keras"
ENGINES = ("litert", "openvino")

# Of the facts, what is kept with the figures.
_TOLD = ("left_in_float", "left_alone", "macs", "taught_by")

# The original learned from five times as many photographs as there are here, mirrored and shifted; its answers to changed ones
# tell what it knows of the others.
_LESSONS: Mapping[str, Any] = {"augment": ("flip", "shift"), "teacher_share": 0.9}
# Where much is dropped, or in groups, what the original's layers give is followed too; whether that pays is not a row yet.
_FEATURES: Mapping[str, Any] = {"method": "features", "weight": 30.0, "learning_rate": 0.003}

Way = tuple[str, Sequence[Step]]  # the runtime, and what leads to what it runs


@dataclass(frozen=True)
class Row:
    """What is made of a network.

    Attributes:
        name: Of files, and on the command line.
        title: In tables.
        original: The network.
        ways: By name: the runtime that answers are taken from, and the steps; what they have in common is made once.
        most_drop: The most that accuracy may drop, in points; None where nothing is asked.
        least_smaller: How many times smaller the zipped file has to be; None where nothing is asked.
        is_timed: Whether its figures are times.
    """

    name: str
    title: str
    original: Original
    ways: Callable[[Scale], Mapping[str, Way]]
    most_drop: float | None = None
    least_smaller: float | None = None
    is_timed: bool = False

    def measured(self, seed: int, scale: Scale) -> dict[str, Any]:
        """Return the figures of one seed: of the original and of what each way made, the answers and the bytes zipped."""
        started = monotonic()
        with bench(self.original, seed, scale) as work:
            right = work.right(work.source, "tensorflow")
            original = {"right": kept(right), "zipped": work.zipped_original()}
            made = {name: _made(work, *way) for name, way in self.ways(scale).items()}
        return {"original": original, "made": made, "seconds": monotonic() - started}


def _made(work: Bench, runtime: str, steps: Sequence[Step]) -> dict[str, Any]:
    model = work.made(steps)
    return {
        "right": kept(work.right(model, runtime)),
        "zipped": zipped(model),
        "kernels": work.kernels(model, runtime),
        "steps": list(model.lineage),
        "told": {name: model.facts[name] for name in _TOLD if name in model.facts},
    }


def pruned(scale: Scale, epochs: int = PRUNING_EPOCHS, **settings: Any) -> Step:
    """Return the step that prunes."""
    return step("prune.magnitude", epochs=scale.epochs(epochs), **_LESSONS, **settings)


def clustered(scale: Scale) -> Step:
    """Return the step that clusters to 16 values."""
    return step("cluster.weights", clusters=16, epochs=scale.epochs(CLUSTERING_EPOCHS), **_LESSONS)


def aware(scale: Scale, epochs: int = AWARE_EPOCHS, **settings: Any) -> Step:
    """Return the step that quantizes while it teaches."""
    return step("quantize.aware", epochs=scale.epochs(epochs), **settings)


def _in_keras(*make: Callable[[Scale], Step]) -> Callable[[Scale], Mapping[str, Way]]:
    return lambda scale: {"keras": ("tensorflow", [one(scale) for one in make])}


def _in_engines(*make: Callable[[Scale], Step]) -> Callable[[Scale], dict[str, Way]]:
    """Return what is made by steps that end in a frozen graph, in both engines."""
    return lambda scale: {
        f"{AWARE} {engine}": (engine, [*(one(scale) for one in make), step(f"convert.{engine}")])
        for engine in ENGINES
    }


def _aware_and_afterwards(**settings: Any) -> Callable[[Scale], Mapping[str, Way]]:
    def ways(scale: Scale) -> dict[str, Way]:
        converted = [step("convert.graph_def")]
        return _in_engines(lambda scale: aware(scale, **settings))(scale) | {
            f"{AFTERWARDS} {engine}": (
                engine,
                [*converted, step(f"convert.{engine}"), step(f"quantize.{engine}_static")],
            )
            for engine in ENGINES
        }

    return ways


def _students(scale: Scale) -> dict[str, Way]:
    """Return one student taught twice, with half of the multiply-accumulates and the same weights to begin with."""
    epochs = scale.epochs(STUDENT_EPOCHS)
    return {
        name: (
            "tensorflow",
            [step("distill.student", **{"macs": 0.5, "epochs": epochs, **_LESSONS, **settings})],
        )
        for name, settings in ((DISTILLED, {}), (ALONE, {"teacher_share": 0.0}))
    }


def _pruned_70(scale: Scale) -> Step:
    return pruned(scale, sparsity=0.7)


def _aware_of_clustered(scale: Scale) -> Step:
    return aware(scale, AWARE_EPOCHS_OF_CLUSTERED, **_LESSONS)


def _aware_4_bits(scale: Scale) -> Step:
    return aware(scale, weight_bits=4, **_LESSONS)


# What shares its beginning with a row before it goes on from there. What is asked for stands first.
ROWS = (
    Row("prune-70", "pruned to 70 %", RESNET8, _in_keras(_pruned_70), 1.0, 2.5),
    Row(
        "prune-70-cluster-16-int8",
        "pruned to 70 %, 16 clusters, QAT int8",
        RESNET8,
        _in_engines(_pruned_70, clustered, _aware_of_clustered),
        1.5,
        9.0,
    ),
    Row("int8-resnet8", "QAT int8", RESNET8, _aware_and_afterwards(**_LESSONS)),
    Row("int8-dscnn", "QAT int8", DSCNN, _aware_and_afterwards()),
    Row("int8-swish", "QAT int8", SWISH, _aware_and_afterwards(**_LESSONS)),
    Row("student", "half the products", RESNET8, _students),
    Row("int4-resnet8", "QAT, 4-bit weights", RESNET8, _in_engines(_aware_4_bits), 1.5),
    Row(
        "prune-80",
        "pruned to 80 %",
        RESNET8,
        _in_keras(lambda scale: pruned(scale, sparsity=0.8, **_FEATURES)),
        2.0,
        3.3,
    ),
    Row(
        "prune-2of4",
        "pruned 2:4",
        RESNET8,
        _in_keras(lambda scale: pruned(scale, PATTERN_EPOCHS, pattern="2:4", **_FEATURES)),
        0.7,
    ),
    Row(
        "prune-70-cluster-16",
        "pruned to 70 %, 16 clusters",
        RESNET8,
        _in_keras(_pruned_70, clustered),
    ),
    Row("cluster-16", "16 clusters", RESNET8, _in_keras(clustered)),
)
