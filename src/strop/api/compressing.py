"""`prune`, `cluster` and `factorize`: a Keras model made smaller by training, and what that cost in quality."""

from __future__ import annotations

from collections.abc import Mapping
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
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import CONVERTING, LIGHT, of_running
from strop.engine.running import Declined, Runner
from strop.engine.store import Store
from strop.search.events import Listener, StageStarted, ignore
from strop.search.preparing import prepare
from strop.search.request import Request

_RUNTIME = "tensorflow"


@dataclass(frozen=True)
class Compressed:
    """A Keras model made smaller.

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
        """Return the model as a `keras.Model`, uncompiled."""
        from strop.graph.keras_files import load

        return load(self.path)


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
    return _compress(
        "prune.magnitude", "pruned", model, samples, output, request, listen, settings
    )


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
    return _compress(
        "cluster.weights", "clustered", model, samples, output, request, listen, settings
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
    return _compress(
        "factorize.low_rank", "factorized", model, samples, output, request, listen, settings
    )


def _compress(
    name: str,
    word: str,
    model: Any,
    samples: Any,
    output: str | Path | None,
    request: Request | None,
    listen: Listener,
    settings: Mapping[str, Any],
) -> Compressed:
    asked, target = request or Request(), Path(output or f"{word}.keras")
    step = Step(name, registry.passes.get(name).from_settings(settings).changed())
    refuse_output(target, model, example=f"--output {word}.keras")
    _refuse_no_samples(step, samples)
    with workplace() as (scratch, executor):
        store = Store(scratch / "study" / "store")
        source, splits, bench, title = prepare(model, samples, asked, store, executor, listen)
        if source.form is not Form.KERAS:
            raise ModelError(
                message(
                    f"'{title}' is of the form {source.form}, and only Keras models can be trained on.",
                    "Give the .keras or .h5 file that it was made from.",
                )
            )
        runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
        listen(StageStarted(name))
        made = runner.prepare((step,), progress=telling(listen, name))
        if isinstance(made, Declined):
            raise ModelError(f"'{title}' was left as it is: {made.reason}.")
        fidelity: Fidelity = executor.call(
            of_running(_RUNTIME, {}), "strop.engine.tasks:confirm", made, _RUNTIME, {}, bench,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
        bare = executor.call(
            CONVERTING, "strop.graph.keras_files:saved_bare", source, str(scratch / "bare.keras")
        )
        before, after = _sizes(bare, executor), _sizes(made, executor)
        write_file(made.path, target)
    shortfall = asked.goal.shortfall(fidelity) or ""
    told = {name: fact for name, fact in made.facts.items() if name not in source.facts}
    return Compressed(target, told, fidelity, before, after, shortfall)


def _refuse_no_samples(step: Step, samples: Any) -> None:
    kind = registry.passes.get(step.name)
    trains = kind.needs is Needs.TRAINING and step.settings.get("epochs", 1) != 0
    if trains and samples is None:
        raise SamplesError(
            message(
                "there are no samples to teach the model on.",
                "Give some, or do without teaching it, which costs quality.",
                next_step="--data samples.npz    or    --epochs 0",
            )
        )


def _sizes(model: Model, executor: LocalExecutor) -> dict[str, Measurement]:
    found: dict[str, Measurement] = {}
    for which in ("size", "zipped_size"):
        found |= executor.call(LIGHT, f"strop.engine.measure:{which}", model)
    return found
