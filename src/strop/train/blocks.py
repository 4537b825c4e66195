"""Blocks of a model that can be left out: those that something stands for, of the same shape, once they are gone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strop.graph.keras_calls import Call, Calls, Tensor
from strop.train.coupling import MAKERS, NORMALIZATIONS, PASSING


@dataclass(frozen=True, eq=False)
class Block:
    """What can be left out: calls between two tensors of one shape that nothing else has to do with.

    Attributes:
        start: The tensor that stands for the other then.
        end: The tensor that nothing gives then.
        calls: What lies between.
    """

    start: Tensor
    end: Tensor
    calls: frozenset[Call]


def blocks_to_leave_out(calls: Calls, depth: float, whole: Mapping[int, str]) -> list[Block]:
    """Return the blocks to leave out, so that a share of those of each shape stays.

    Args:
        calls: The model's.
        depth: The share that stays, in [0, 1].
        whole: Layers that are not to be left out, by their `id`, with the reason.
    """
    if depth == 1:
        return []
    branches = [block for call in calls.calls if (block := _residual(call))]
    innermost = [
        block
        for block in branches
        if not any(other.calls < block.calls for other in branches)
    ]  # fmt: skip
    within = frozenset[Call]().union(*(block.calls for block in innermost))
    rows = [b for call in calls.calls if call not in within and (b := _row(call))]
    order = {call: place for place, call in enumerate(calls.calls)}
    by_shape: dict[Any, list[Block]] = {}
    for block in sorted([*innermost, *rows], key=lambda b: min(order[c] for c in b.calls)):
        if not any(id(call.operation) in whole for call in block.calls):
            by_shape.setdefault(block.end.shape, []).append(block)
    gone = math.floor((1 - depth) * sum(map(len, by_shape.values())) + 0.5)
    # Of the shape that has most blocks left, and of these the later ones, which add least to what is there.
    return [max(reversed(by_shape.values()), key=len).pop() for _ in range(gone)]


def _residual(call: Call) -> Block | None:
    """Return the block whose result a sum adds to what the block was given; None where the call is no such sum."""
    tensors, end = call.tensors, call.sole_result
    if call.kind != "Add" or len(tensors) != 2 or end is None or end.is_output:
        return None
    for start, branch in (tensors, tensors[::-1]):
        between = _between_tensors(start, branch)
        if between and start.shape == end.shape and _is_closed(between, {call}):
            return Block(start, end, between | {call})
    return None


def _between_tensors(start: Tensor, end: Tensor) -> frozenset[Call] | None:
    """Return the calls that make one tensor of another alone; None where more goes into it."""
    waiting, found = [end], set()
    while waiting:
        tensor = waiting.pop()
        if tensor is start:
            continue
        if tensor.maker is None:
            return None
        if tensor.maker not in found:
            found.add(tensor.maker)
            waiting += tensor.maker.tensors
    return frozenset(found)


def _is_closed(between: frozenset[Call], behind: set[Call]) -> bool:
    """Say whether nobody else reads what these calls give, and any of them has weights."""
    given = [tensor for call in between for tensor in call.results]
    sole = all(not t.is_output and set(t.readers) <= between | behind for t in given)
    return sole and any(call.has_weights for call in between)


def _row(call: Call) -> Block | None:
    """Return the block of a layer that gives the shape it is given, with what follows it up to the next one."""
    tensors, end = call.tensors, call.sole_result
    if call.kind not in MAKERS or len(tensors) != 1 or end is None:
        return None
    (start,), row = tensors, [call]
    while len(end.readers) == 1 and not end.is_output:
        (reader,) = end.readers
        after = reader.sole_result
        is_more = reader.kind in NORMALIZATIONS | PASSING and len(reader.tensors) == 1
        if not is_more or after is None or after.shape != end.shape:
            break
        row.append(reader)
        end = after
    if start.maker is None or end.is_output or start.shape != end.shape:
        return None
    return Block(start, end, frozenset(row))
