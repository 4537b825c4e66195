"""Accuracy repair, whichever library quantizes: rank operations by what they cost, then leave as few as it takes in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from strop.core.contracts import Context
from strop.core.errors import JudgingError, QuantizationError
from strop.core.model import Model
from strop.numerics.repair import errors_alone, fewest_left_out, rank_by_error

# Samples that answers are compared on, to rank operations: what one costs shows in few.
COMPARED = 64


def within_limits(context: Context, model: Model) -> bool:
    """Say whether `model` keeps the goal's limits; one whose answers the metric can't judge does not."""
    try:
        return context.goal.shortfall(context.evaluate(model)) is None
    except JudgingError:
        return False


def repaired(
    context: Context,
    names: Sequence[str],
    error_leaving: Callable[[tuple[str, ...]], float],
    quantized: Callable[[tuple[str, ...]], Model],
) -> Model:
    """Return the model quantized with as few operations in float as the goal's limit takes.

    Args:
        context: Judges what is made, and is told how far the work is.
        names: The operations that may be left in float, in the order in which they run.
        error_leaving: The answers' relative error with the named ones in float and the others quantized.
        quantized: Makes the model with the named ones in float; its facts have ``left_in_float``.

    Raises:
        QuantizationError: If the limit is missed however many are left in float.
    """
    context.progress(0.0, f"repair: what each of {len(names)} operations costs")
    ranked = rank_by_error(errors_alone(names, error_leaving))
    tried: dict[tuple[str, ...], Model] = {}

    def holds(kept: tuple[str, ...]) -> bool:
        context.progress(len(tried) / (len(tried) + 3), f"repair: {len(kept)} layers in float")
        try:
            tried[kept] = quantized(kept)
        except QuantizationError:
            # ai-edge-quantizer refuses a model of which nothing is left to quantize. That loses nothing, so the limit
            # holds, and fewer are looked for; said otherwise, the search would end before it tried them.
            return len(kept) == len(names)
        return within_limits(context, tried[kept])

    kept = fewest_left_out(ranked, holds)
    if kept is None or kept not in tried:
        share = "all" if kept is None else "all but one"
        raise QuantizationError(
            f"no repair found: with {share} of {len(names)} operations in float the limit is still missed"
        )
    reasons = dict.fromkeys(kept, "it hurt the answers most")
    left = {**tried[kept].facts["left_in_float"], **reasons}
    return replace(tried[kept], facts={**tried[kept].facts, "left_in_float": left})
