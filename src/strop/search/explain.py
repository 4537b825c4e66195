"""Why a technique did not help, as far as it can be told from what was measured."""

from __future__ import annotations

from strop.core.evaluation import Evaluation, Goal
from strop.core.recipe import Recipe
from strop.engine.machine import Machine

_TINY_MS = 0.15
_INTEGER = ("AVX-512 VNNI", "AVX-VNNI", "AMX int8", "NEON dot product", "NEON i8mm")


def explain(
    recipe: Recipe,
    evaluation: Evaluation,
    parent: Evaluation | None,
    goal: Goal,
    machine: Machine,
    facts: dict[str, object],
) -> str:
    """Return one sentence why `recipe` is not faster than `parent`; empty where it is, or where nothing is known.

    What is only inferred is said to be probable.

    Args:
        recipe: What was tried.
        evaluation: What was measured.
        parent: The same recipe without its last step, or with other settings.
        goal: What it was tried for.
        machine: Where.
        facts: Of the model (see `Model.facts`).
    """
    name = f"latency_p50@{goal.batch}"
    now = evaluation.measurements.get(name)
    before = parent.measurements.get(name) if parent else None
    if now is None or before is None or now.value <= before.value * 1.02:
        return ""
    slower = f"{now.value / before.value:.2f} times the time of the same without it"
    last = recipe.steps[-1].name if recipe.steps else ""
    seen, inferred = _of_quantizing(last, now.value, machine, facts)
    if recipe.settings.get("jit") in ("xla", "auto"):
        inferred.append(
            "XLA's own CPU kernels for these layers are slower than oneDNN's, which it replaces"
        )
    threads = recipe.settings.get("threads")
    if isinstance(threads, int) and threads > 1 and now.value < 1.0:
        inferred.append("so short that handing work to several threads costs more than it saves")
    # Nothing that follows from how such things usually go is told as if it had been measured here.
    reasons = [*seen, *(f"probably {reason}" for reason in inferred)]
    return f"{slower}: {'; '.join(reasons)}" if reasons else slower


def _of_quantizing(
    last: str, milliseconds: float, machine: Machine, facts: dict[str, object]
) -> tuple[list[str], list[str]]:
    """Return what is seen, and what can only be inferred, of why the quantizing pass `last` did not help."""
    seen: list[str] = []
    inferred: list[str] = []
    if not last.startswith("quantize."):
        return seen, inferred
    left = facts.get("left_in_float")
    if left and isinstance(left, dict):
        layers = "1 layer" if len(left) == 1 else f"{len(left)} layers"
        seen.append(
            f"{layers} stayed in float, with conversions at {'its' if len(left) == 1 else 'their'} borders"
        )
    if any(word in last for word in ("weights", "float16")):
        inferred.append("the weights are unpacked to float before use: smaller, not faster")
    elif "dynamic" in last:
        inferred.append(
            "finding the ranges at each call costs more than integer arithmetic saves here"
        )
    elif not set(_INTEGER) & set(machine.instructions):
        seen.append("this processor has no integer dot-product instructions")
    elif milliseconds < _TINY_MS:
        inferred.append(
            "the work is so small that calling the kernels costs more than running them"
        )
    else:
        inferred.append(
            "this engine's integer kernels for these layers are no faster than its float ones"
        )
    return seen, inferred
