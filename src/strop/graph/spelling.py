"""GraphDefs spelled as those who read them next know them: rules that change how a function is written, not which.

Each rule edits the graph in place and returns how often it found something to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from strop.graph.view import GraphView, array, attribute

Shapes = Callable[[str], "list[int | None] | None"]
_FLOAT, _INT32 = 1, 3  # TensorFlow's DT_FLOAT and DT_INT32


def spell_products(definition: Any) -> int:
    """Write a dense layer on sequences as one product.

    Before:  Reshape(MatMul(Reshape(x, [−1, D]), W), Shape(x)[:−1] + [N])
    After:   BatchMatMulV2(x, W)

    TensorFlow works the shapes out anew at every call, and every engine that is made of the graph with it; worse, what
    comes after is no longer known to have the shape that it has.
    """
    view, found = GraphView(definition), 0
    products = view.nodes("MatMul")
    shapes = inferred_shapes(definition) if products else lambda _: None
    for product in products:
        readers = view.readers(product)
        flat = view.maker(product.input[0])
        if (
            len(readers) != 1
            or readers[0].op != "Reshape"
            or flat.op != "Reshape"
            or _is_transposed(product)
        ):
            continue
        whole = flat.input[0]
        before = view.maker(whole)
        if before.op == "Transpose":
            order = view.folded(before.input[1])
            if order is None or order.tolist() != list(range(order.size)):
                continue
            whole = before.input[0]
        last = readers[0]
        if not _keeps_leading_sizes(view, shapes, whole, product.input[1], last.input[1]):
            continue
        view.become(last, "BatchMatMulV2", (whole, product.input[1]), T=product.attr["T"].type)
        found += 1
    return found


def _is_transposed(product: Any) -> bool:
    return bool(product.attr["transpose_a"].b or product.attr["transpose_b"].b)


def _keeps_leading_sizes(
    view: GraphView, shapes: Shapes, whole: str, weights: str, target: str
) -> bool:
    """Say whether reshaping the product to `target` gives it the leading sizes of `whole`."""
    given, matrix = shapes(whole), shapes(weights)
    if (
        given is None
        or matrix is None
        or len(given) < 3
        or given[-1] is None
        or given[-1] != matrix[0]
    ):
        return False
    rank = len(given)
    computed = view.maker(target)
    if computed.op == "ConcatV2" and len(computed.input) == 3:
        taken, added = view.maker(computed.input[0]), view.folded(computed.input[1])
        if taken.op == "GatherV2" and added is not None and added.tolist() == [matrix[1]]:
            measured, places = view.maker(taken.input[0]), view.folded(taken.input[1])
            return (
                measured.op == "Shape"
                and view.maker(measured.input[0]) is view.maker(whole)
                and places is not None
                and places.tolist() == list(range(rank - 1))
            )
    sizes = view.folded(target)
    if sizes is None or sizes.size != rank or sizes[-1] != matrix[1]:
        return False
    # With all sizes but one the same, the one left is the same too, for the products are.
    apart = [a for a, b in zip(given[:-1], sizes[:-1].tolist(), strict=True) if a != b]
    return len(apart) <= 1


def spell_einsum(definition: Any) -> int:
    """Write an Einsum of two operands as a product of stacks of matrices, which is what it is.

    Before:  Einsum("BTNH,BSNH->BNTS", q, k)
    After:   BatchMatMulV2(Transpose(q, BNTH), Transpose(k, BNHS))

    With free sizes, tf2onnx and the LiteRT converter write it as a dozen operations that work out shapes.
    """
    view, found = GraphView(definition), 0
    for node in view.nodes("Einsum"):
        plan = _plan(node.attr["equation"].s.decode()) if len(node.input) == 2 else None
        if plan is None:
            continue
        dtype = node.attr["T"].type
        left, right = (str(node.input[place]) for place in plan.order)
        left = _transposed(view, f"{node.name}/left", left, plan.left, dtype)
        right = _transposed(view, f"{node.name}/right", right, plan.right, dtype)
        if plan.result == sorted(plan.result):
            view.become(node, "BatchMatMulV2", (left, right), T=dtype)
        else:
            product = view.add(f"{node.name}/product", "BatchMatMulV2", (left, right), T=dtype)
            order = view.add_constant(f"{node.name}/order", np.array(plan.result, np.int32))
            view.become(node, "Transpose", (product, order), T=dtype, Tperm=_INT32)
        found += 1
    return found


@dataclass(frozen=True)
class _Plan:
    """How an Einsum is a product: which operand stands left, and how all three are turned."""

    order: tuple[int, int]
    left: list[int]
    right: list[int]
    result: list[int]


def _plan(equation: str) -> _Plan | None:
    """Return how to write `equation` as a product; None where it is more than one."""
    operands, _, result = equation.replace(" ", "").partition("->")
    first, _, second = operands.partition(",")
    if "." in equation or any(len(set(part)) != len(part) for part in (first, second, result)):
        return None
    summed = [c for c in first if c in second and c not in result]
    own = [[c for c in one if c not in other] for one, other in ((first, second), (second, first))]
    if len(summed) != 1 or any(len(free) != 1 or free[0] not in result for free in own):
        return None
    shared = [c for c in result if c in first and c in second]
    swapped = result.index(own[0][0]) > result.index(own[1][0])
    order = (1, 0) if swapped else (0, 1)
    left, right = ((first, second)[place] for place in order)
    rows, columns = (own[place] for place in order)
    made = [*shared, *rows, *columns]
    return _Plan(
        order,
        [left.index(c) for c in (*shared, *rows, *summed)],
        [right.index(c) for c in (*shared, *summed, *columns)],
        [made.index(c) for c in result],
    )


def _transposed(view: GraphView, name: str, tensor: str, order: list[int], dtype: int) -> str:
    if order == sorted(order):
        return tensor
    places = view.add_constant(f"{name}/order", np.array(order, np.int32))
    return view.add(name, "Transpose", (tensor, places), T=dtype, Tperm=_INT32)


def spell_lookup(definition: Any) -> int:
    """Look up negative places as they are, for readers that count them from the end, as ONNX does.

    Before:  Gather(table, Select(x < 0, x + rows, x))
    After:   Gather(table, x)

    In TensorFlow the two are not the same.
    """
    view, found = GraphView(definition), 0
    for node in view.nodes("GatherV2"):
        chosen = view.maker(node.input[1])
        axis = view.scalar(node.input[2])
        table = view.constant(node.input[0])
        if chosen.op != "SelectV2" or axis != 0 or table is None:
            continue
        asked, moved = view.maker(chosen.input[0]), view.maker(chosen.input[1])
        plain = str(chosen.input[2])
        if (
            asked.op == "Less"
            and moved.op in ("Add", "AddV2")
            and asked.input[0] == moved.input[0] == plain
            and view.scalar(asked.input[1]) == 0
            and view.number(moved.input[1]) == table.shape[0]
        ):
            view.replace_input(node, 1, plain)
            found += 1
    return found


def spell_gelu(definition: Any) -> int:
    """Write GELU as ONNX Runtime recognizes it (and fuses it).

    Before:  0.5·x · erfc(−x · 0.70710678)
    After:   0.5·x · (erf(x / 1.41421356) + 1)

    Both are x·Φ(x): erfc(−y) = 1 − erf(−y) = 1 + erf(y).
    """
    view, found = GraphView(definition), 0
    for node in view.nodes("Erfc"):
        product = view.maker(node.input[0])
        negated = view.operands(product, "Neg") if product.op == "Mul" else None
        factor = view.scalar(negated[1]) if negated else None
        if (
            negated is None
            or factor is None
            or not math.isclose(factor, math.sqrt(0.5), rel_tol=1e-5)
        ):
            continue
        dtype = node.attr["T"].type
        root = view.add_constant(f"{node.name}/root", array(math.sqrt(2.0), dtype))
        scaled = view.add(f"{node.name}/scaled", "RealDiv", (negated[0].input[0], root), T=dtype)
        erf = view.add(f"{node.name}/erf", "Erf", (scaled,), T=dtype)
        one = view.add_constant(f"{node.name}/one", array(1.0, dtype))
        view.become(node, "AddV2", (erf, one), T=dtype)
        found += 1
    return found


def spell_out_erfc(definition: Any) -> int:
    """Write what is left of erfc by erf, which ONNX has: tf2onnx logs Erfc as unsupported and leaves it in the file.

    Before:  erfc(x)
    After:   1 − erf(x)

    Where erfc is tiny (x > 4) the difference keeps no digits, and an absolute error of float32's grain at 1 (6e-8).
    """
    view, found = GraphView(definition), 0
    for node in view.nodes("Erfc"):
        dtype = node.attr["T"].type
        erf = view.add(f"{node.name}/erf", "Erf", (node.input[0],), T=dtype)
        one = view.add_constant(f"{node.name}/one", array(1.0, dtype))
        view.become(node, "Sub", (one, erf), T=dtype)
        found += 1
    return found


def inferred_shapes(definition: Any) -> Shapes:
    """Return a function that tells the shape of a tensor, as far as TensorFlow infers it."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")

    def shape(name: str) -> list[int | None] | None:
        found = graph.get_tensor_by_name(name if ":" in name else f"{name}:0").shape
        return None if found.rank is None else list(found.as_list())

    return shape


_PLAIN = {
    "_FusedBatchMatMulV2": ("BatchMatMulV2", ("adj_x", "adj_y")),
    "_FusedConv2D": (
        "Conv2D", ("strides", "padding", "explicit_paddings", "data_format", "dilations"),
    ),
    "_FusedConv3D": ("Conv3D", ("strides", "padding", "data_format", "dilations")),
    "_FusedDepthwiseConv2dNative": (
        "DepthwiseConv2dNative", ("strides", "padding", "explicit_paddings", "data_format", "dilations"),
    ),
    "_FusedMatMul": ("MatMul", ("transpose_a", "transpose_b")),
}  # fmt: skip
# What can stand in a fused kernel, as the operation that it is, and how many more operands it takes.
_FUSED = {
    "Add": ("AddV2", 1),
    "BiasAdd": ("BiasAdd", 1),
    "FusedBatchNorm": ("FusedBatchNormV3", 4),
    **{name: (name, 0) for name in ("Elu", "LeakyRelu", "Relu", "Relu6", "Sigmoid", "Tanh")},
}


def spell_fused(definition: Any) -> int:
    """Write TensorFlow's fused kernels out, which no other engine knows.

    Before:  x ── _FusedConv2D(W, b; BiasAdd, Relu)
    After:   x ── Conv2D(W) ── BiasAdd(b) ── Relu

    A kernel with a function that is not known here stays as it is.
    """
    view, found = GraphView(definition), 0
    for node in [node for node in definition.node if node.op in _PLAIN]:
        fused = [name.decode() for name in node.attr["fused_ops"].list.s]
        if fused and all(name in _FUSED for name in fused):
            _write_out(view, node, fused)
            found += 1
    for node in view.nodes("_FusedBatchNormEx"):
        function = attribute(node, "activation_mode", "s", b"Identity").decode()
        if function in ("Identity", *_FUSED) and not attribute(
            node, "is_training", "b", default=True
        ):
            _write_out_normalization(view, node, function)
            found += 1
    return found


def _write_out_normalization(view: GraphView, node: Any, function: str) -> None:
    """Write batch normalization, the sum with a residual, and the function behind them out."""
    dtype, residual = node.attr["T"].type, list(node.input[5:])
    plain = "FusedBatchNormV3"
    made = view.node(view.add(f"{node.name}/{plain}", plain, node.input[:5], T=dtype))
    for name in ("U", "epsilon", "exponential_avg_factor", "data_format", "is_training"):
        if name in node.attr:
            made.attr[name].CopyFrom(node.attr[name])
    source = made.name
    if residual:
        source = view.add(f"{node.name}/AddV2", "AddV2", [source, *residual], T=dtype)
    view.become(node, function, [source], T=dtype)


def _write_out(view: GraphView, node: Any, fused: list[str]) -> None:
    plain, settings = _PLAIN[node.op]
    dtype, others = node.attr["T"].type, list(node.input[2:])
    was = type(node)()
    was.CopyFrom(node)
    made = view.node(view.add(f"{node.name}/{plain}", plain, node.input[:2], T=dtype))
    for name in settings:
        if name in was.attr:
            made.attr[name].CopyFrom(was.attr[name])
    for place, function in enumerate(fused):
        operation, more = _FUSED[function]
        operands = [made.name, *(others.pop(0) for _ in range(more))]
        if place < len(fused) - 1:
            made = view.node(view.add(f"{node.name}/{operation}", operation, operands, T=dtype))
        else:
            view.become(node, operation, operands, T=dtype)
            made = node
        if function == "FusedBatchNorm":
            made.attr["U"].type = _FLOAT
            made.attr["epsilon"].f = attribute(was, "epsilon", "f", 1e-4)
            made.attr["is_training"].b = False
        if (
            function in ("BiasAdd", "FusedBatchNorm")
            and attribute(was, "data_format", "s", b"NHWC") == b"NCHW"
        ):
            made.attr["data_format"].s = b"NCHW"
        if function == "LeakyRelu":
            made.attr["alpha"].f = attribute(was, "leakyrelu_alpha", "f", 0.2)
