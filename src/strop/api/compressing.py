"""`prune`, `cluster`, `factorize`: a Keras model made smaller by training, and what that cost in quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.api.working import refuse_output, telling, workplace, write_file
from strop.core import registry
from strop.core.contracts import Needs
from strop.core.errors import ModelError, SamplesError, message
from strop.core.evaluation import Fidelity, Measurement
from strop.core.model import Form, Model
from strop.core.recipe import Step
from strop.engine.context import home_runtime
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import CONVERTING, LIGHT, of_running
from strop.engine.running import Declined, Runner
from strop.engine.store import Store
from strop.search.events import Listener, Note, StageStarted, ignore
from strop.search.preparing import prepare
from strop.search.request import Request

_LEAST_TAUGHT = 16
_SUFFIXES = {
    Form.KERAS: ".keras",
    Form.GRAPH_DEF: ".pb",
    Form.LITERT: ".tflite",
    Form.ONNX: ".onnx",
    Form.OPENVINO: ".xml",
}


@dataclass(frozen=True)
class Compressed:
    """A Keras model made smaller, or what was made of it.

    Attributes:
        path: Where it lies.
        facts: What the technique tells of its work, by name.
        fidelity: How it answers on *confirm*, which neither training nor the choice of its weights has seen.
        before: The original's sizes without its optimizer: ``size`` and ``zipped_size``, in bytes.
        after: Its own.
        shortfall: Why it does not keep the goal's limits; empty where it does.
    """

    path: Path
    facts: Mapping[str, Any]
    fidelity: Fidelity
    before: Mapping[str, Measurement]
    after: Mapping[str, Measurement]
    shortfall: str

    def model(self) -> Any:
        """Return the model as a `keras.Model`, uncompiled.

        Raises:
            ModelError: If it is no ``.keras`` file.
        """
        from strop.graph.keras_files import load

        if self.path.suffix != _SUFFIXES[Form.KERAS]:
            raise ModelError(
                f"'{self.path}' is no Keras model; its engine, or strop.verify, opens it."
            )
        return load(self.path)


def step_of(name: str, settings: Mapping[str, Any]) -> Step:
    """Return the step of the pass `name` with `settings`, the defaults left out.

    Raises:
        ParameterError: If a setting is unknown or not allowed.
    """
    return Step(name, registry.passes.get(name).from_settings(settings).changed())


def prune(
    model: Any,
    samples: Any = None,
    output: str | Path | None = None,
    *,
    request: Request | None = None,
    listen: Listener = ignore,
    **settings: Any,
) -> Compressed:
    """Set the smallest weights of a Keras model to zero, little by little while it is taught again.

    Args:
        model: A ``.keras`` or ``.h5`` file, or a `keras.Model`, which stays as it is.
        samples: As for `optimize`; its train split is what the model is taught on.
        output: The ``.keras`` file to write; ``pruned.keras`` in the working folder where None.
        request: What else is said; see `Request`. Its goal's limits are what the result is held to.
        listen: Told what happens.
        **settings: The parameters of the pass ``prune.magnitude``, such as ``sparsity=0.7``.

    Raises:
        ModelError: If it is no Keras model, or none of its weights can be pruned.
        SamplesError: If there are no samples to teach it on.
        ParameterError: If a setting is unknown or not allowed.
        OutputError: If the output can't be written, or is the model itself.
        TrialError: If training fails.
    """
    steps = [step_of("prune.magnitude", settings)]
    return compress(steps, model, samples, output, word="pruned", request=request, listen=listen)


def cluster(
    model: Any,
    samples: Any = None,
    output: str | Path | None = None,
    *,
    request: Request | None = None,
    listen: Listener = ignore,
    **settings: Any,
) -> Compressed:
    """Let the weights of a Keras model share a few values, which are taught again.

    Args:
        model: A ``.keras`` or ``.h5`` file, or a `keras.Model`, which stays as it is.
        samples: As for `optimize`; its train split is what the model is taught on.
        output: The ``.keras`` file to write; ``clustered.keras`` in the working folder where None.
        request: What else is said; see `Request`. Its goal's limits are what the result is held to.
        listen: Told what happens.
        **settings: The parameters of the pass ``cluster.weights``, such as ``clusters=16``.

    Raises:
        ModelError: If it is no Keras model, or none of its weights can be clustered.
        SamplesError: If there are no samples to teach it on.
        ParameterError: If a setting is unknown or not allowed.
        OutputError: If the output can't be written, or is the model itself.
        TrialError: If training fails.
    """
    steps = [step_of("cluster.weights", settings)]
    return compress(
        steps, model, samples, output, word="clustered", request=request, listen=listen
    )


def factorize(
    model: Any,
    samples: Any = None,
    output: str | Path | None = None,
    *,
    request: Request | None = None,
    listen: Listener = ignore,
    **settings: Any,
) -> Compressed:
    """Replace layers of a Keras model by two or three of fewer products, where it pays, and teach these again.

    Args:
        model: A ``.keras`` or ``.h5`` file, or a `keras.Model`, which stays as it is.
        samples: As for `optimize`; its train split is what the model is taught on.
        output: The ``.keras`` file to write; ``factorized.keras`` in the working folder where None.
        request: What else is said; see `Request`. Its goal's limits are what the result is held to.
        listen: Told what happens.
        **settings: The parameters of the pass ``factorize.low_rank``, such as ``energy=0.9``.

    Raises:
        ModelError: If it is no Keras model, or no layer's factors would pay.
        SamplesError: If there are no samples to teach it on.
        ParameterError: If a setting is unknown or not allowed.
        OutputError: If the output can't be written, or is the model itself.
        TrialError: If training fails.
    """
    steps = [step_of("factorize.low_rank", settings)]
    return compress(
        steps, model, samples, output, word="factorized", request=request, listen=listen
    )


def compress(
    steps: Sequence[Step],
    model: Any,
    samples: Any,
    output: str | Path | None,
    *,
    word: str,
    request: Request | None,
    listen: Listener,
    ahead: Sequence[Sequence[Step]] = (),
) -> Compressed:
    """Carry out passes of which some may train, and say what they cost and brought.

    Training that is interrupted leaves what it came to beside `output`; the same call goes on from there.

    Args:
        steps: The passes, first to last.
        model: A ``.keras`` or ``.h5`` file, or a `keras.Model`.
        samples: As for `optimize`.
        output: The file to write; None for one called `word`, with the suffix of the form that comes of it.
        word: What the result is called (``pruned``).
        request: What else is said; see `Request`. Its goal's limits are what the result is held to.
        listen: Told what happens.
        ahead: Ways of which the first that has something to do is tried before the model is taught: where it fails, the
            teaching would be in vain.

    Raises:
        ModelError: If it is no Keras model, or a pass has nothing to do.
        SamplesError: If there are none to train on.
        OutputError: If the output can't be written, or is the model itself.
        TrialError: If a pass fails.
    """
    asked, suffix = request or Request(), _SUFFIXES[_form_of(steps)]
    target = Path(output or f"{word}{suffix}")
    refuse_output(target, model, example=f"--output {word}{suffix}", suffix=suffix)
    trains = any(map(_trains, steps))
    if trains:
        _refuse_no_samples(samples)
    unfinished = target.with_name(f".{target.name}.unfinished")
    with workplace(unfinished if trains else None) as (scratch, executor):
        store = Store(scratch / "study" / "store")
        source, splits, bench, title = prepare(model, samples, asked, store, executor, listen)
        if source.form is not Form.KERAS:
            raise _not_keras(source.form, title, is_file=isinstance(model, str | Path))
        if trains:
            _refuse_few(len(splits.train) + len(splits.calibrate))
        runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
        for way in ahead:
            if not isinstance(runner.prepare(way), Declined):
                break
        made = _carried_out(runner, steps, title, listen)
        runtime = home_runtime(made.form).name
        fidelity: Fidelity = executor.call(
            of_running(runtime, {}), "strop.engine.tasks:confirm", made, runtime, {}, bench,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
        bare = executor.call(
            CONVERTING, "strop.graph.keras_files:saved_bare", source, str(scratch / "bare.keras")
        )
        before, after = _sizes(bare, executor), _sizes(made, executor)
        for file, place in zip(made.files, places_of(made, target), strict=True):
            write_file(file, place)
    shortfall = asked.goal.shortfall(fidelity) or ""
    told = {name: fact for name, fact in made.facts.items() if name not in source.facts}
    return Compressed(target, told, fidelity, before, after, shortfall)


def places_of(made: Model, target: Path) -> list[Path]:
    """Return where a model's files go: the first to `target`, the others beside it under its name."""
    return [target, *(target.with_name(target.stem + file.suffix) for file in made.files[1:])]


def _carried_out(runner: Runner, steps: Sequence[Step], title: str, listen: Listener) -> Model:
    """Return what `steps` make of the source, telling of each as it comes."""
    made: Model | Declined = runner.source
    for count, step in enumerate(steps, 1):
        listen(StageStarted(step.name))
        try:
            made = runner.prepare(steps[:count], progress=telling(listen, step.name))
        except KeyboardInterrupt:
            if _trains(step):
                listen(Note("what was learnt so far is kept; the same command goes on from there"))
            raise
        if isinstance(made, Declined):
            raise ModelError(f"'{title}' was left as it is: {made.reason}.")
    assert isinstance(made, Model)  # noqa: S101 - what declined was raised
    return made


def _form_of(steps: Sequence[Step]) -> Form:
    """Return the form that `steps` make of a Keras model."""
    form = Form.KERAS
    for step in steps:
        form = registry.passes.get(step.name).gives or form
    return form


def _not_keras(form: Form, title: str, *, is_file: bool) -> ModelError:
    if is_file:
        return ModelError(
            message(
                f"'{title}' is of the form {form}, and only Keras models are taken here.",
                "Give the .keras or .h5 file that it was made from.",
            )
        )
    return ModelError(
        message(
            f"'{title}' has classes of its own, so that no .keras file of it loads in another process, where it would be "
            "taught.",
            "A model of Keras' own layers can be taught there; any other in its own process, by the callbacks of "
            "strop.train.",
            next_step="from strop.train.pruning import Pruning",
        )
    )


def _trains(step: Step) -> bool:
    kind = registry.passes.get(step.name)
    return kind.needs is Needs.TRAINING and step.settings.get("epochs", 1) != 0


def _refuse_no_samples(samples: Any) -> None:
    if samples is None:
        raise SamplesError(
            message(
                "there are no samples to teach the model on.",
                "Give some, or do without teaching it, which costs quality.",
                next_step="--data samples.npz    or    --epochs 0",
            )
        )


def _refuse_few(count: int) -> None:
    if count < _LEAST_TAUGHT:
        raise SamplesError(
            message(
                f"{count} samples fell to training, too few to learn from.",
                f"At least {_LEAST_TAUGHT} are needed: half of what is given, the other half being for judging.",
            )
        )


def _sizes(model: Model, executor: LocalExecutor) -> dict[str, Measurement]:
    found: dict[str, Measurement] = {}
    for which in ("size", "zipped_size"):
        found |= executor.call(LIGHT, f"strop.engine.measure:{which}", model)
    return found
