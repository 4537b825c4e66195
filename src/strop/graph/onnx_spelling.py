"""ONNX models spelled as engines know them: rules that change how a function is written, not which.

Each rule edits the model in place and returns how often it found something to do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def spell_layer_normalization(proto: Any) -> int:
    """Write layer normalization as ONNX's own operation, which engines have one kernel for.

    Before:  x·s + (β − μ·s)    with s = γ / √(σ² + ε), and μ, σ² the mean and variance of x along its last axis
    After:   LayerNormalization(x, γ, β)
    """
    view, found = _View(proto), 0
    for node in view.nodes("Add"):
        parts = _normalization(view, node)
        if parts is None:
            continue
        x, scale, shift, epsilon = parts
        inputs = [x, view.add_constant(f"{node.name}/scale", scale)]
        inputs += [view.add_constant(f"{node.name}/shift", shift)]
        view.become(node, "LayerNormalization", inputs, axis=-1, epsilon=epsilon)
        found += 1
    return _swept(proto, found)


def _normalization(
    view: _View, node: Any
) -> tuple[str, NDArray[np.float32], NDArray[np.float32], float] | None:
    """Return (x, γ, β, ε) where `node` is the last sum of a layer normalization; None where it is none."""
    for scaled, rest in view.both_ways(node):
        if scaled is None or scaled.op_type != "Mul":
            continue
        for x, slope in ((scaled.input[0], scaled.input[1]), (scaled.input[1], scaled.input[0])):
            found = _slope(view, slope, x)
            shift = _shift(view, rest, slope, found[0]) if found else None
            if found is None or shift is None:
                continue
            _, gamma, epsilon = found
            size = max(gamma.size, shift.size)
            if 1 not in (gamma.size, shift.size) and gamma.size != shift.size:
                continue
            flat = [np.broadcast_to(a.reshape(-1), size) for a in (gamma, shift)]
            if size > 1 and view.last_size(x) in (None, size):
                return x, flat[0].astype(np.float32), flat[1].astype(np.float32), epsilon
    return None


def _slope(view: _View, tensor: str, x: str) -> tuple[str, NDArray[Any], float] | None:
    """Return (the mean's tensor, γ, ε) where `tensor` is γ / √(variance of x + ε)."""
    node, gamma = view.maker(tensor), np.ones(1, np.float32)
    if node is not None and node.op_type == "Mul":
        for inner, other in view.both_ways(node):
            constant = view.constant(other)
            if constant is not None and _is_along_last(constant) and inner is not None:
                node, gamma = inner, constant
                break
    if node is None or node.op_type != "Reciprocal":
        return None
    root = view.maker(node.input[0])
    shifted = view.maker(root.input[0]) if root is not None and root.op_type == "Sqrt" else None
    if shifted is None or shifted.op_type != "Add":
        return None
    for variance, other in view.both_ways(shifted):
        epsilon = view.constant(other)
        mean = _mean_in(view, variance, x) if epsilon is not None and epsilon.size == 1 else None
        if mean is not None and epsilon is not None:
            return mean, gamma, float(epsilon.reshape(()))
    return None


def _mean_in(view: _View, variance: Any, x: str) -> str | None:
    """Return the mean's tensor where `variance` is the mean along the last axis of (x − mean)²."""
    if variance is None or not view.is_mean_of_last(variance):
        return None
    square = view.maker(variance.input[0])
    if square is None or square.op_type != "Mul" or square.input[0] != square.input[1]:
        return None
    apart = view.maker(square.input[0])
    if apart is None or apart.op_type != "Sub" or apart.input[0] != x:
        return None
    mean = view.maker(apart.input[1])
    if mean is None or not view.is_mean_of_last(mean) or mean.input[0] != x:
        return None
    return str(apart.input[1])


def _shift(view: _View, tensor: str, slope: str, mean: str) -> NDArray[Any] | None:
    """Return β where `tensor` is β − mean·slope (or only −mean·slope)."""
    node = view.maker(tensor)
    if node is None:
        return None
    if _is_product(view, node, mean, slope, negated=True):
        return np.zeros(1, np.float32)
    if node.op_type == "Sub":
        beta, taken = view.constant(node.input[0]), view.maker(node.input[1])
        if beta is not None and taken is not None and _is_along_last(beta):
            return beta if _is_product(view, taken, mean, slope, negated=False) else None
    if node.op_type == "Add":
        for taken, other in view.both_ways(node):
            beta = view.constant(other)
            if beta is not None and taken is not None and _is_along_last(beta):
                return beta if _is_product(view, taken, mean, slope, negated=True) else None
    return None


def _is_product(view: _View, node: Any, mean: str, slope: str, *, negated: bool) -> bool:
    if node.op_type != "Mul":
        return False
    for factor, other in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
        if other == slope and not negated and factor == mean:
            return True
        made = view.maker(factor)
        if other == slope and negated and made is not None and made.op_type == "Neg":
            return bool(made.input[0] == mean)
    return False


def _is_along_last(constant: NDArray[Any]) -> bool:
    return constant.size == constant.shape[-1] if constant.ndim else True


def spell_gelu(proto: Any) -> int:
    """Divide by √2 where GELU multiplies by its inverse: ONNX Runtime fuses only the first.

    Before:  Erf(x · 0.70710678)
    After:   Erf(x / 1.41421356)
    """
    view, found = _View(proto), 0
    for node in view.nodes("Erf"):
        product = view.maker(node.input[0])
        if product is None or product.op_type != "Mul":
            continue
        for factor, other in (
            (product.input[1], product.input[0]),
            (product.input[0], product.input[1]),
        ):
            value = view.constant(factor)
            if (
                value is not None
                and value.size == 1
                and math.isclose(value.item(), math.sqrt(0.5), rel_tol=1e-5)
            ):
                root = np.full(value.shape, math.sqrt(2.0), value.dtype)
                view.become(
                    product, "Div", [other, view.add_constant(f"{product.name}/root", root)]
                )
                found += 1
                break
    return found


class _View:
    """The nodes of one ONNX graph and how they hang together; edits go to the graph itself."""

    def __init__(self, proto: Any) -> None:
        import onnx

        self._graph = proto.graph
        self._makers = {name: node for node in self._graph.node for name in node.output}
        self._constants = {value.name: value for value in self._graph.initializer}
        for node in self._graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        known = (*self._graph.value_info, *self._graph.input, *self._graph.output)
        self._shapes = {value.name: value.type.tensor_type.shape.dim for value in known}
        self._onnx = onnx

    def nodes(self, operation: str) -> list[Any]:
        return [node for node in self._graph.node if node.op_type == operation]

    def maker(self, tensor: str) -> Any | None:
        return self._makers.get(tensor)

    def both_ways(self, node: Any) -> Iterator[tuple[Any | None, str]]:
        """Yield (the maker of one operand, the other operand), both ways round."""
        if len(node.input) == 2:
            yield self.maker(node.input[0]), str(node.input[1])
            yield self.maker(node.input[1]), str(node.input[0])

    def constant(self, tensor: str) -> NDArray[Any] | None:
        found = self._constants.get(tensor)
        return None if found is None else self._onnx.numpy_helper.to_array(found)

    def last_size(self, tensor: str) -> int | None:
        shape = self._shapes.get(tensor)
        return (shape[-1].dim_value or None) if shape else None

    def is_mean_of_last(self, node: Any) -> bool:
        """Say whether `node` is a mean along the last axis alone that keeps it."""
        if node.op_type != "ReduceMean":
            return False
        settings = {a.name: a for a in node.attribute}
        if "axes" in settings:
            axes = list(settings["axes"].ints)
        else:
            given = self.constant(node.input[1]) if len(node.input) > 1 else None
            axes = [] if given is None else given.tolist()
        rank = len(self._shapes.get(node.input[0], ()))
        keeps = settings["keepdims"].i == 1 if "keepdims" in settings else True
        return keeps and len(axes) == 1 and (axes[0] == -1 or (rank > 0 and axes[0] == rank - 1))

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        unique, number = name, 1
        while unique in self._constants or unique in self._makers:
            unique, number = f"{name}_{number}", number + 1
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(value, unique))
        self._constants[unique] = self._graph.initializer[-1]
        return unique

    def become(self, node: Any, operation: str, inputs: list[str], **settings: Any) -> None:
        """Make `node` another operation on other inputs; who reads it does not notice."""
        node.op_type = operation
        node.input[:] = inputs
        del node.attribute[:]
        node.attribute.extend(self._onnx.helper.make_attribute(k, v) for k, v in settings.items())


def _swept(proto: Any, found: int) -> int:
    """Take out nodes and constants that nothing reads any more, in place."""
    graph = proto.graph
    while found:
        often: defaultdict[str, int] = defaultdict(int)
        for name in _read_in(graph):
            often[name] += 1
        ends = {value.name for value in graph.output}
        idle = [n for n in graph.node if not any(often[o] or o in ends for o in n.output)]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            break
    read = set(_read_in(graph)) | {value.name for value in graph.output}
    for value in [value for value in graph.initializer if value.name not in read]:
        graph.initializer.remove(value)
    return found


def _read_in(graph: Any) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _read_in(inner)
                yield from (value.name for value in inner.output)
