"""`verify`: one model's answers held to another's, an artifact to its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.api.opening import opened_artifact, opened_model
from strop.api.working import telling, workplace
from strop.core import digest
from strop.core.errors import (
    ParameterError,
    message,
)
from strop.core.evaluation import Fidelity
from strop.core.samples import Samples
from strop.engine.executors.local import LocalExecutor
from strop.engine.verification import Check, Comparison, Scores, matched_by_place
from strop.report.artifact import (
    REFERENCE,
    read_certificate,
)
from strop.search.events import Listener, ignore
from strop.search.preparing import (
    gather_samples,
    read_samples,
)
from strop.search.request import Request

_ARTIFACT_SECONDS = 300.0
_SAMPLES_A_STEP = (
    1000  # both models answer all that are given; so many are given the time of one step
)


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        holds: Whether the candidate is within its limits.
        fidelity: How well it answers; None where only a certificate was checked.
        checks: What of an artifact was checked again; of two models, which names were matched by place.
        scores: What two models answer to the first five samples, for each output that scores classes.
    """

    holds: bool
    fidelity: Fidelity | None
    checks: tuple[Check, ...] = ()
    scores: tuple[Scores, ...] = ()


def verify(
    original: Any,
    candidate: Any = None,
    samples: Any = None,
    *,
    max_drop: float | None = None,
    tolerance: float | None = None,
    metric: str | None = None,
    request: Request | None = None,
    listen: Listener = ignore,
) -> Verdict:
    """Hold a candidate's answers to the original's; or, with one artifact alone, the artifact to its certificate.

    Two models are compared on all samples that are given (those for testing, where the source tells).

    Of a lone artifact the digests, the signature and the reference outputs are checked again; with samples that
    have targets its quality too, beside the figure of the original that the certificate tells.

    Args:
        original: A model as for `optimize`; or the folder of an artifact.
        candidate: Another model, or the folder of an artifact; None to check the artifact `original`.
        samples: As for `optimize`, or one image; inputs are made up where None.
        max_drop: The most that quality may drop; 0.01 where neither limit is given, and the certificate's own
            for a lone artifact.
        tolerance: The largest absolute difference of any output; of the reference outputs for a lone artifact.
        metric: As for `optimize`; the certificate's for a lone artifact.
        request: Everything else; see `Request`.
        listen: Told how far it is, where it takes a while.

    Raises:
        InputError: If a model or the samples can't be used, or only the original could tell what is asked.
    """
    asked = request or Request()
    with workplace() as (scratch, executor):
        if candidate is None:
            if samples is None and (max_drop is not None or metric is not None):
                raise ParameterError(
                    message(
                        "an artifact alone has a drop only on samples, and none are given.",
                        "Give them, or leave the limit and the metric out.",
                        next_step=f"strop verify {original} --data val.npz",
                    )
                )
            folder = Path(str(original))
            checks = _check_artifact(folder, executor, tolerance)
            if samples is not None:
                place = read_samples(
                    samples, opened_artifact(folder).model, asked, scratch, executor
                )
                checks.append(_judge_artifact(folder, place, executor, metric, max_drop))
            return Verdict(all(check.holds is not False for check in checks), None, tuple(checks))
        first, second = (
            opened_model(model, asked, scratch / name, executor, as_shipped=False)
            for name, model in (("original", original), ("candidate", candidate))
        )
        place = gather_samples(samples, first.model, asked, scratch, executor)
        found: Comparison = executor.call(
            "compare", "strop.engine.verification:compare_answers",
            first, second, str(place), metric, asked.goal.confidence or 0.95, asked.seed,
            timeout_seconds=asked.step_seconds * max(1.0, len(Samples.load(place)) / _SAMPLES_A_STEP),
            progress=telling(listen, "verify"),
        )  # fmt: skip
    told = matched_by_place(first.model.signature, second.model.signature)
    holds = _within(found.fidelity, max_drop, tolerance)
    return Verdict(holds, found.fidelity, tuple(told), found.scores)


def _within(fidelity: Fidelity, max_drop: float | None, tolerance: float | None) -> bool:
    if tolerance is None and max_drop is None:
        max_drop = 0.01
    close = tolerance is None or fidelity.max_abs <= tolerance
    return fidelity.finite and close and (max_drop is None or fidelity.drop.value <= max_drop)


def _judge_artifact(
    folder: Path, splits: Path, executor: LocalExecutor, metric: str | None, max_drop: float | None
) -> Check:
    """Hold an artifact's quality on samples to what its certificate was made for, unless another limit is given."""
    certificate = read_certificate(folder)
    goal = certificate.get("goal", {})
    recorded = certificate["fidelity"]
    found: Check = executor.call(
        "artifact", "strop.engine.verification:judge_alone",
        opened_artifact(folder), str(splits), recorded and Fidelity.from_json(recorded),
        metric or goal.get("metric"), goal.get("max_drop", 0.01) if max_drop is None else max_drop,
        is_asked=max_drop is not None,
        timeout_seconds=_ARTIFACT_SECONDS,
    )  # fmt: skip
    return found


def _check_artifact(folder: Path, executor: LocalExecutor, tolerance: float | None) -> list[Check]:
    certificate = read_certificate(folder)
    artifact = opened_artifact(folder)
    model, batch = artifact.model, _batch_of(certificate)
    checks = [
        Check("digest of the model", True, model.digest[:16]),
        Check("signature", True, str(model.signature)),
    ]
    reference = folder / REFERENCE
    found = digest.of_path(reference) if reference.exists() else None
    same = found == certificate["reference"]["digest"]
    checks.append(Check(f"digest of {REFERENCE}", same, found[:16] if found else "it is missing"))
    if same:  # answers that are not the recorded ones prove nothing
        checks += executor.call(
            "artifact", "strop.engine.verification:check_reference",
            artifact, str(folder), batch, tolerance,
            timeout_seconds=_ARTIFACT_SECONDS,
        )  # fmt: skip
    recorded = certificate.get("measurements", {}).get(f"latency_p50@{batch}")
    if recorded:
        processor = certificate["machine"]["processor"]
        checks.append(Check(f"recorded on {processor}", None, f"{recorded['value']:.4g} ms"))
    return checks


def _batch_of(certificate: dict[str, Any]) -> int:
    """Return the batch size that an artifact was chosen at."""
    sizes = certificate.get("goal", {}).get("batch_sizes") or [1]
    return int(sizes[0])
