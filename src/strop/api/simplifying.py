"""`simplify`: a TensorFlow graph cleaned for inference, pass by pass, and proved unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from strop.api.working import refuse_output, workplace, write_file
from strop.core import registry
from strop.core.contracts import Unchanged
from strop.core.errors import ModelError, message
from strop.core.evaluation import SAME_TO_5_DECIMALS, Fidelity
from strop.core.model import Form, Model
from strop.core.recipe import Step
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import CONVERTING, of_running
from strop.engine.pairs import Timing, in_turn, timings
from strop.engine.running import Declined, Runner
from strop.engine.store import Store
from strop.search.events import Listener, StageStarted, ignore
from strop.search.preparing import prepare
from strop.search.request import Request

PASSES = (
    "inline",
    "strip",
    "layout",
    "fold_batch_norm",
    "fold_constants",
    "merge_common",
    "arithmetic",
    "fold_padding",
    "fuse",
)
"""What is done where nobody says otherwise, in this order."""

_RUNTIME = "tensorflow"
_ROUNDS, _ROUND_SECONDS = 14, 0.1
_ORIGINAL = "as it was"


@dataclass(frozen=True)
class Cleaned:
    """What one pass did.

    Attributes:
        name: The pass's, without its folder (``strip``).
        operations: How many nodes of each operation there are behind it.
        before: The same before it.
        reason: Why it found nothing to do; empty where it did.
        timing: How fast the graph is behind it, and against the original; None where it was not timed.
    """

    name: str
    operations: Mapping[str, int]
    before: Mapping[str, int]
    reason: str = ""
    timing: Timing | None = None

    @property
    def change(self) -> dict[str, int]:
        """How many nodes of each operation came (or, negative, went), those that went most first."""
        found = Counter(self.operations)
        found.subtract(self.before)
        return {name: n for name, n in sorted(found.items(), key=lambda item: item[1]) if n}


@dataclass(frozen=True)
class Simplification:
    """A cleaned graph, and what became of it on the way.

    Attributes:
        path: Where it lies.
        passes: What each pass did.
        inputs: The tensors that are fed.
        outputs: The tensors that are asked for.
        fidelity: How its answers differ from the original's.
        original: How fast the original is.
        notes: What was found out about the original.
    """

    path: Path
    passes: tuple[Cleaned, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fidelity: Fidelity
    original: Timing | None
    notes: tuple[str, ...] = field(default=())

    @property
    def is_same(self) -> bool:
        """Whether no output differs from the original's by more than 5 decimals show."""
        return self.fidelity.finite and self.fidelity.max_abs < SAME_TO_5_DECIMALS


def simplify(
    model: Any,
    output: str | Path,
    *,
    passes: Sequence[str] = PASSES,
    samples: Any = None,
    request: Request | None = None,
    listen: Listener = ignore,
) -> Simplification:
    """Clean a TensorFlow graph for inference, and write it as a frozen GraphDef under the same names.

    Args:
        model: A frozen graph, a SavedModel or a Keras model; as for `optimize`.
        output: The file to write (``.pb``).
        passes: What to do, in order; see `PASSES`.
        samples: As for `optimize`; inputs are made up where None.
        request: What else is said about the model; see `Request`.
        listen: Told what happens.

    Raises:
        UnknownNameError: If there is no such pass.
        ModelError: If the model is none of TensorFlow's.
        OutputError: If the output can't be written, or is the model itself.
        TrialError: If a pass fails.
    """
    asked, target = _keeping_custom_ops(request or Request()), Path(output)
    kinds = [registry.passes.get(_full(name)) for name in passes]
    refuse_output(target, model, example="--output optimized_graph.pb")
    with workplace() as (scratch, executor):
        store = Store(scratch / "study" / "store")
        source, splits, bench, name = prepare(model, samples, asked, store, executor, listen)
        runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
        work = _Work(runner, executor, listen, _frozen(source, runner, name))
        for kind in kinds:
            work.clean(kind.name)
        found = work.timed()
        fidelity = executor.call(
            of_running(_RUNTIME, {}), "strop.engine.tasks:confirm", work.model, _RUNTIME, {}, bench,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
        inputs, outputs = _ends(work.model)
        write_file(_whole(source, work.model, scratch, executor), target)
    return Simplification(
        target,
        tuple(work.cleaned(found)),
        inputs,
        outputs,
        fidelity,
        found.get(_ORIGINAL),
        tuple(work.model.facts.get("notes", ())),
    )


@dataclass
class _Work:
    """A graph being cleaned: the steps that did something, and what each left."""

    runner: Runner
    executor: LocalExecutor
    listen: Listener
    model: Model
    steps: tuple[Step, ...] = ()
    told: list[Cleaned] = field(default_factory=list)
    behind: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model is not self.runner.source:
            self.steps = (Step("convert.graph_def"),)
        self._operations = self._counted()

    def clean(self, name: str) -> None:
        """Carry out one pass behind those before it."""
        short = name.split(".")[-1]
        self.listen(StageStarted(short))
        step, before = Step(name), self._operations
        made = self.runner.prepare((*self.steps, step))
        if isinstance(made, Declined):
            self.told.append(Cleaned(short, before, before, made.reason))
            return
        self.steps, self.model = (*self.steps, step), made
        self._operations = self._counted()
        self.behind[short] = made
        self.told.append(Cleaned(short, self._operations, before))

    def timed(self) -> dict[str, Timing]:
        """Return how fast the graph was before and behind each pass, all in one process and in turn."""
        self.listen(StageStarted("timing"))
        subjects = {_ORIGINAL: self.runner.source, **self.behind}
        lane, bench = of_running(_RUNTIME, {}), self.runner.bench
        for name, model in subjects.items():
            self.executor.call(
                lane, "strop.engine.tasks:open_subject", name, model, _RUNTIME, {}, bench, bench.goal.batch,
                timeout_seconds=self.runner.step_seconds,
            )  # fmt: skip

        def time_round(name: str) -> float:
            found: float = self.executor.call(
                lane, "strop.engine.tasks:time_round", name, _ROUND_SECONDS,
                timeout_seconds=self.runner.step_seconds,
            )  # fmt: skip
            return found

        figures = in_turn(list(subjects), time_round, rounds=_ROUNDS, seed=bench.seed)
        return {timing.name: timing for timing in timings(figures, _ORIGINAL)}

    def cleaned(self, found: Mapping[str, Timing]) -> list[Cleaned]:
        """Return what each pass did, with how fast the graph was behind it."""
        return [
            Cleaned(one.name, one.operations, one.before, one.reason, found.get(one.name))
            for one in self.told
        ]

    def _counted(self) -> dict[str, int]:
        found: dict[str, int] = self.executor.call(
            CONVERTING, "strop.graph.simplifying:operations_of", self.model,
            timeout_seconds=self.runner.step_seconds,
        )  # fmt: skip
        return found


def _keeping_custom_ops(asked: Request) -> Request:
    return replace(asked, options=replace(asked.options, keep_custom_ops=True))


def _ends(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tensors that users feed and ask for; what custom operations give and take are none."""
    custom = model.facts.get("custom_ops", {})
    inputs = [
        bound.name for bound in model.binding.inputs if bound.name not in custom.get("fed", ())
    ]
    outputs = custom.get("outputs") or [bound.name for bound in model.binding.outputs]
    return tuple(inputs), tuple(outputs)


def _whole(source: Model, cleaned: Model, scratch: Path, executor: LocalExecutor) -> Path:
    """Return the cleaned graph with the custom operations that it was cut at."""
    custom = source.facts.get("custom_ops")
    if not custom:
        return cleaned.path
    target = scratch / "whole.pb"
    executor.call(
        CONVERTING, "strop.graph.custom_ops:write_whole",
        str(cleaned.path), custom["graph"], custom["outputs"], str(target),
    )  # fmt: skip
    return target


def _full(name: str) -> str:
    return name if "." in name else f"simplify.{name}"


def _frozen(source: Model, runner: Runner, name: str) -> Model:
    """Return the graph to begin with: the source, or what freezing makes of it."""
    if source.form is Form.GRAPH_DEF:
        return source
    if source.form not in (Form.KERAS, Form.SAVED_MODEL):
        raise ModelError(
            message(
                f"'{name}' is of the form {source.form}.",
                "Only TensorFlow's own graphs are cleaned: a frozen .pb, a SavedModel, or a Keras model.",
            )
        )
    made = runner.prepare((Step("convert.graph_def"),))
    assert not isinstance(made, Declined | Unchanged)  # noqa: S101 - only graphs are frozen already
    return made
