"""What only training, checking or looking on needs, left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

if TYPE_CHECKING:
    from strop.graph.simplifying import Ends
    from strop.graph.view import GraphView

_IDENTICAL = frozenset(
    {
        "CheckNumerics", "CheckNumericsV2", "Identity", "PlaceholderWithDefault", "PreventGradient", "Print",
        "Snapshot", "StopGradient",
    }
)  # fmt: skip
# Stateful only in that they speak, stop, or draw lots: nothing comes out otherwise for having waited for them.
_HARMLESS = frozenset(
    {"Assert", "NoOp", "Placeholder", "PlaceholderWithDefault", "Print", "PrintV2"}
)
_HARMLESS_ENDINGS = ("Summary", "SummaryV2")
_LOTS = frozenset(
    {
        "RandomStandardNormal", "RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2",
        "TruncatedNormal",
    }
)  # fmt: skip
_BETWEEN_LOTS_AND_MASK = frozenset({"Add", "AddV2", "Cast", "Floor", "GreaterEqual", "Mul", "Sub"})
_ALMOST = 1e-5


@final
@dataclass(frozen=True)
class Strip(Rewriting):
    """Leave out what the outputs don't need, what only hands on, and what only training needs.

    Before:  DecodeJpeg ── x ── Identity ── Conv2D ── Dropout ── CheckNumerics ── y;   y ── ScalarSummary;   Assert ┄ y
    After:   x(Placeholder) ── Conv2D ── y

    Dropout that was left on is left out too, which the model's notes tell: what the graph answered differed from call
    to call and is the same at each afterwards, so that there was nothing to be exact to.
    Where nodes steer which others run (TensorFlow 1's loops and branches), all waiting for each other stays.
    """

    exactness = Exactness.ROUNDING
    never_grows = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the stripped graph."""
        from strop.graph.simplifying import simplified

        active: list[str] = []

        def strip(definition: Any, ends: Ends) -> bool:
            return _strip(definition, ends, active)

        nothing = "all that is there is needed, and none of it only hands on"
        found = simplified(self, model, context, strip, nothing=nothing)
        if isinstance(found, Unchanged) or not active:
            return found
        listed = ", ".join(f"'{name}'" for name in active[:3]) + (", …" if active[3:] else "")
        note = f"dropout was left on, which made answers differ from call to call; it is gone: {listed}"
        return replace(
            found, facts={**found.facts, "notes": [*found.facts.get("notes", []), note]}
        )


def _strip(definition: Any, ends: Ends, active: list[str]) -> bool:
    from strop.graph.simplifying import STEERING, leave_out_unneeded
    from strop.graph.view import GraphView

    found = leave_out_unneeded(definition, ends)
    view = GraphView(definition)
    is_steered = any(node.op in STEERING for node in definition.node)
    if not is_steered:
        found += _stop_waiting(view)
    for node in list(definition.node):
        kept = _kept_of_dropout(view, node)
        if kept is not None:
            source, rate = kept
            found += _hand_on(view, node, source, ends)
            if rate:
                active.append(node.name)
    for node in list(definition.node):
        if node.op in _IDENTICAL and node.input and not _hands_on_for_a_reason(view, node, ends):
            found += _hand_on(view, node, node.input[0], ends)
    return found > 0


def _hand_on(view: GraphView, node: Any, source: str, ends: Ends) -> int:
    """Let `source` stand for `node`; an output stays, as what hands on. Return 1 if anything changed."""
    from strop.graph.view import attribute

    if node.name not in ends.nodes:
        view.redirect(node, source)
        view.detach(node)
        return 1
    kind = attribute(node, "T", "type", 0) or attribute(node, "dtype", "type", 0)
    if node.op == "Identity" and node.input[0] == source:
        return 0
    view.become(node, "Identity", [source], T=kind)
    return 1


def _hands_on_for_a_reason(view: GraphView, node: Any, ends: Ends) -> bool:
    """Say whether a node that hands on is one that something would miss: an input, or one that steers or waits."""
    from strop.graph.simplifying import STEERING

    is_fed = f"{node.name}:0" in ends.inputs
    waits = any(name.startswith("^") for name in node.input)
    steers = view.node(node.input[0]).op in STEERING or any(
        reader.op in STEERING for reader in view.readers(node)
    )
    return is_fed or waits or steers


def _stop_waiting(view: GraphView) -> int:
    """Take out the control edges that change no answer; return how many."""
    found = 0
    for node in view.definition.node:
        awaited = [name for name in node.input if name.startswith("^")]
        for name in awaited:
            if all(_is_harmless(view, behind) for behind in _all_behind(view, name)):
                view.stop_waiting(node, name)
                found += 1
    return found


def _all_behind(view: GraphView, name: str) -> Iterator[Any]:
    """Yield a node and all that it depends on."""
    seen: set[str] = set()
    open_ends = [name]
    while open_ends:
        node = view.node(open_ends.pop())
        if node.name not in seen:
            seen.add(node.name)
            yield node
            open_ends += node.input


def _is_harmless(view: GraphView, node: Any) -> bool:
    """Say whether nothing comes out otherwise for not having waited for a node, whatever functions it calls."""
    from tensorflow.python.framework import op_def_registry

    if node.op in _HARMLESS or node.op in _LOTS or node.op.endswith(_HARMLESS_ENDINGS):
        return True
    called = [f for value in node.attr.values() for f in (value.func, *value.list.func) if f.name]
    if called:
        functions = {f.signature.name: f for f in view.definition.library.function}
        inner = [n for f in called if f.name in functions for n in functions[f.name].node_def]
        return all(_is_harmless(view, one) for one in inner)
    known = op_def_registry.get(node.op)
    return known is not None and not known.is_stateful


def _kept_of_dropout(view: GraphView, node: Any) -> tuple[str, float] | None:
    """Return what a dropout that ends in `node` drops from, and at which rate; None if it is none.

    Three spellings: x/k · ⌊k + u⌋ of TensorFlow 1, x·s · (u ≥ r) after it, and Select(u ≥ r, x·s, 0) today, with
    k = 1 − r = 1/s and u uniform between 0 and 1.
    """
    if node.op == "Mul":
        pairs = [(node.input[0], node.input[1]), (node.input[1], node.input[0])]
    elif node.op == "SelectV2" and view.scalar(node.input[2]) == 0:
        pairs = [(node.input[1], node.input[0])]
    else:
        return None
    for data, mask in pairs:
        rate = _rate_of_mask(view, mask)
        found = None if rate is None else _unscaled(view, data, rate)
        if rate is not None and found:
            return found, rate
    return None


def _rate_of_mask(view: GraphView, tensor: str) -> float | None:
    """Return the rate at which a random mask is zero; None of anything else."""
    node = view.maker(tensor)
    while node.op == "Cast":
        node = view.maker(node.input[0])
    if node.op == "Floor":
        total = view.maker(node.input[0])
        if total.op in ("Add", "AddV2"):
            for lots, keep in (total.input, total.input[::-1]):
                kept = view.scalar(keep)
                if kept is not None and _draws_lots(view, lots):
                    return 1 - kept
    if node.op == "GreaterEqual" and _draws_lots(view, node.input[0]):
        return view.scalar(node.input[1])
    return None


def _draws_lots(view: GraphView, tensor: str) -> bool:
    """Say whether a tensor is uniform between 0 and 1, as far as its operations tell."""
    node = view.maker(tensor)
    # Between a draw and its use stand a product with 1 and a sum with 0.
    while node.op in _BETWEEN_LOTS_AND_MASK:
        node = view.maker(node.input[0])
    return "RandomUniform" in node.op and node.op in _LOTS


def _unscaled(view: GraphView, tensor: str, rate: float) -> str | None:
    """Return what is scaled by 1/(1 − rate) in `tensor`; None where it is scaled otherwise."""
    node = view.maker(tensor)
    if node.op == "RealDiv":
        kept = view.scalar(node.input[1])
        if kept is not None and abs(kept - (1 - rate)) < _ALMOST:
            return str(node.input[0])
    if node.op == "Mul":
        for place in (0, 1):
            scale = view.scalar(node.input[place])
            if scale is not None and abs(scale * (1 - rate) - 1) < _ALMOST:
                return str(node.input[1 - place])
    return tensor if rate == 0 else None
