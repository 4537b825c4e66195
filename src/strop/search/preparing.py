"""What a search starts from: the model read, the samples split, the original's own answers to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop.core import digest
from strop.core.errors import (
    ModelError,
    ParameterError,
    SamplesError,
    StepTimeoutError,
    TrialError,
    WorkerDiedError,
    message,
)
from strop.core.evaluation import Goal
from strop.core.model import Model
from strop.core.samples import Splits
from strop.engine.context import Bench, Floor, baseline_recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.fidelity import reasons
from strop.engine.lanes import of_reading, of_running
from strop.engine.store import Store, no_room
from strop.graph.reading import detect
from strop.search.events import Listener, Note, StageStarted
from strop.search.request import Request

_FLOOR = "floor.json"


def without_targets(splits: Splits) -> str:
    """Return what is judged where there are no targets, in a sentence."""
    what = "made-up inputs" if splits.synthetic else "the samples"
    return f"without targets, the agreement with the original on {what} is judged"


def prepare(
    model: Any,
    samples: Any,
    asked: Request,
    store: Store,
    executor: LocalExecutor,
    listen: Listener,
) -> tuple[Model, Splits, Bench, str]:
    """Return the source, its samples, what candidates are held to, and the source's name for people.

    Args:
        model: A path or a `keras.Model`.
        samples: A path, ``package.module:function``, Python objects, or None.
        asked: What the user asks.
        store: The study's; answers and splits are kept beside it.
        executor: Where the work is done.
        listen: Told what happens.

    Raises:
        InputError: If model or samples can't be used.
    """
    workspace = store.folder.parent / "source"
    source, name = read_source(model, asked, workspace, executor)
    _check_batch(source, asked.goal)
    for note in source.facts.get("notes", ()):
        listen(Note(note))
    place = read_samples(samples, source, asked, store.folder.parent, executor)
    splits = Splits.load(place)
    source = source.seen_with(splits.select.inputs)
    for note in splits.notes:
        listen(Note(note))
    data = splits.digest()
    key = digest.of_value([source.identity(), data, asked.seed, asked.goal.metric])[:32]
    bench = Bench(
        place,
        store.folder.parent / "answers" / key,
        asked.goal,
        asked.seed,
    )
    floor = _kept_floor(bench)
    if floor is None:
        recipe = baseline_recipe(source.form)
        listen(StageStarted("the original's own answers"))
        # At our own settings, not the owner's: where the engine would round to bfloat16 by itself, candidates are held
        # to what the model says and not to that.
        floor = executor.call(
            of_running(recipe.runtime, {}),
            "strop.engine.tasks:answer_all",
            source, recipe.runtime, {}, str(bench.splits), str(bench.reference), asked.goal.metric,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
        _keep_floor(bench, floor)
    if floor != Floor():
        listen(
            Note(
                f"two calls of the original differ by {floor.relative_error:.3g} of its answers' size (dropout "
                f"left on, random operations, or state), and its quality by {floor.drop:.3g}; candidates are "
                "not held to less"
            )
        )
    bench = replace(bench, floor=floor)
    questions = bench.questions(source)
    listen(Note(reasons(questions) if questions else without_targets(splits)))
    return source, splits, bench, name


def _check_batch(source: Model, goal: Goal) -> None:
    """Hold the batch sizes that were asked for to the one that a model may be made for."""
    only = source.signature.batch or source.binding.batch
    if only and any(size != only for size in goal.batch_sizes):
        raise ParameterError(
            message(
                f"batch sizes {', '.join(map(str, goal.batch_sizes))} were asked for.",
                f"This model was made for batches of {only} and takes no other.",
                next_step=f"--batch {only}",
            )
        )


def _kept_floor(bench: Bench) -> Floor | None:
    """Return what an earlier run found; None where it did not come to that, or the file can't be read."""
    try:
        return Floor(**json.loads((bench.reference / _FLOOR).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _keep_floor(bench: Bench, floor: Floor) -> None:
    """Write `floor` beside the answers, whole or not at all: it says that all of them are there."""
    draft = bench.reference / f"draft-{_FLOOR}"
    try:
        draft.write_text(json.dumps(vars(floor)))
        draft.replace(bench.reference / _FLOOR)
    except OSError as error:
        raise no_room(bench.reference, error) from None


def read_source(
    model: Any, asked: Request, workspace: Path, executor: LocalExecutor
) -> tuple[Model, str]:
    """Return the model as it was read, in a worker, and its name for people.

    Raises:
        ModelError: If it can't be read.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    if isinstance(model, str | Path):
        path, name = Path(model), Path(model).name
    else:
        from strop.graph.keras_files import save

        if not callable(getattr(model, "export", None)):
            raise ModelError(f"expected the path of a model or a keras.Model, got {model!r:.60}.")

        path, _ = save(model, workspace)
        name = str(getattr(model, "name", "model"))
    try:
        source: Model = executor.call(
            of_reading(detect(path)), "strop.engine.tasks:read_source", str(path), str(workspace), asked.options,
            timeout_seconds=min(asked.step_seconds, _reading_seconds(path)),
        )  # fmt: skip
    except (WorkerDiedError, StepTimeoutError) as error:
        raise unreadable(path, error) from None
    return source, name


def _reading_seconds(path: Path) -> float:
    """Return how long reading may take: a damaged file can send a native library round in circles."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return 60.0 + sum(file.stat().st_size for file in files) / 1e6


def unreadable(path: Path, error: TrialError) -> ModelError:
    """Return what to say of a file that brought down, or held up, the library that reads it."""
    cause = (
        "The file is damaged, or the processor busy with other work: one that is whole loads in a few seconds where it is "
        "not. Try once more when it is idle, or save or copy the file again."
        if isinstance(error, StepTimeoutError)
        else "The file is probably damaged; one that is whole loads in a few seconds. Save or copy it again."
    )
    return ModelError(
        message(
            f"'{path}' can't be read: the process that read it gave no answer ({error}).", cause
        )
    )


def _unreadable_samples(samples: str, error: TrialError) -> SamplesError:
    """Return what to say of samples that brought down, or held up, the process that read them."""
    is_function = ":" in samples and not Path(samples).exists()
    return SamplesError(
        message(
            f"'{samples}' can't be read: the process that read it gave no answer ({error}).",
            "The function must return, and what it returns must come to an end and fit into memory."
            if is_function
            else "It is probably damaged, or larger than memory. Save or copy it again, or give fewer samples.",
        )
    )


def read_samples(
    samples: Any, source: Model, asked: Request, folder: Path, executor: LocalExecutor
) -> Path:
    """Return the folder of the splits; samples that are named by a path or function are read in a worker."""
    return _sampled("draw", samples, source, asked, folder, executor)


def gather_samples(
    samples: Any, source: Model, asked: Request, folder: Path, executor: LocalExecutor
) -> Path:
    """Return the folder of the samples undivided, read as `read_samples` reads them."""
    return _sampled("gather", samples, source, asked, folder, executor)


def _sampled(
    way: str, samples: Any, source: Model, asked: Request, folder: Path, executor: LocalExecutor
) -> Path:
    given = (source, asked.preparation, asked.seed, folder / "samples")
    place: Path
    if samples is None or not isinstance(samples, str | Path):
        from strop.engine import sampling

        place = getattr(sampling, way)(samples, *given)
        return place
    try:
        place = executor.call(
            of_reading(source.form), f"strop.engine.sampling:{way}", str(samples), *given,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
    except (WorkerDiedError, StepTimeoutError) as error:
        raise _unreadable_samples(str(samples), error) from None
    return place
