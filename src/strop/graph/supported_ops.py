"""Which operations of a model an engine can't run, node by node, and what could stand for them."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from strop.core.contracts import LITERT, OPENVINO, Requirement
from strop.core.errors import (
    ConversionError,
    MissingDependencyError,
    ParameterError,
    UnknownNameError,
)
from strop.core.model import Form, Model
from strop.graph.freezing import as_frozen
from strop.graph.frozen import FrozenGraph
from strop.graph.graph_safety import with_called
from strop.graph.quiet import quiet
from strop.graph.refusal import refusal

_SELECT = "TensorFlow's own kernel, in a LiteRT with TF select (litert_select)"
_BEFORE = "doing it before the model, and feeding the model what comes out"
_INSTEAD = {
    "Bucketize": "comparisons with each border, added up",
    "Erfc": "1 - Erf(x)",
    "Einsum": "Transpose, Reshape and MatMul",
    "LookupTableFind": _BEFORE,
    "MatrixInverse": "the inverse as a constant, where the matrix is one",
    "PyFunc": "the same in TensorFlow's operations",
    "RandomUniform": "leaving dropout out (simplify.strip), or noise as an input",
    "RandomStandardNormal": "noise as an input",
    "TensorList": "a batch size fixed while freezing: convert.graph_def(batch=1)",
    "HashTable": _BEFORE,
    "Iterator": "feeding the tensor behind it: --inputs NAME",
    "Variable": "freezing the model: convert.graph_def",
    "VarHandleOp": "freezing the model: convert.graph_def",
    "ReadVariableOp": "freezing the model: convert.graph_def",
    "Switch": "freezing with the branch decided: convert.graph_def",
    "Merge": "freezing with the branch decided: convert.graph_def",
}
_MOST_LISTED = 5
_NEEDS = {
    "litert": LITERT,
    "litert_select": LITERT,
    "onnxruntime": Requirement("tf2onnx", "tf2onnx", "train"),
    "openvino": OPENVINO,
}
_NAMED = re.compile(r"'?tf\.(\w+)")
_BEFORE_THE_MODEL = ("Decode", "Parse", "Read", "String", "Regex", "Unicode", "Encode", "AsString")


@dataclass(frozen=True)
class Unsupported:
    """A node that an engine can't run.

    Attributes:
        node: Its name in the graph that is converted.
        operation: Its operation.
        instead: What could stand for it, in words; empty where nothing is known.
    """

    node: str
    operation: str
    instead: str = ""

    def __str__(self) -> str:
        instead = f", instead of which: {self.instead}" if self.instead else ""
        return f"{self.operation} ({self.node}){instead}"


def unsupported(model: Model, target: str) -> list[Unsupported]:
    """Return the nodes of `model` that `target` can't run, as its own converter or registry tells.

    Args:
        model: A Keras model, a SavedModel or a frozen graph.
        target: One of `TARGETS`.

    Raises:
        UnknownNameError: If there is no such target.
        ParameterError: If the model is of another form.
        MissingDependencyError: If its converter is not installed.
        ConversionError: If its converter refuses the model and does not tell what of it.
    """
    if target not in TARGETS:
        raise UnknownNameError("engine", target, TARGETS)
    if model.form not in (Form.KERAS, Form.SAVED_MODEL, Form.GRAPH_DEF):
        raise ParameterError(
            f"only TensorFlow's own models are asked node by node, and this is of the form {model.form}"
        )
    needed = _NEEDS.get(target)
    if needed and not needed.is_met():
        raise MissingDependencyError(
            f"asking '{target}'", needed.package, f"pip install strop[{needed.extra}]"
        )
    with quiet():
        graph = as_frozen(model, batch=model.binding.batch)
        found = list(TARGETS[target](graph, model))
        with_select: set[str] = set()
        if found and target == "litert":
            # What is known stays told where this can't be.
            with contextlib.suppress(Exception):
                without = {operation for _, operation in TARGETS["litert_select"](graph, model)}
                with_select = {operation for _, operation in found} - without
    order = {node.name: place for place, node in enumerate(graph.definition.node)}
    return [
        Unsupported(name, operation, _instead(operation, has_select=operation in with_select))
        for name, operation in sorted(found, key=lambda one: order.get(one[0], len(order)))
    ]


def refusal_of(converter: str, error: BaseException, model: Model, target: str) -> ConversionError:
    """Return the error of ours for a converter's own: what of the model can't be run, else what it said.

    Args:
        converter: Its name as people know it.
        error: What it raised.
        model: What it was given.
        target: One of `TARGETS`.
    """
    # Whatever else is wrong with the model may come up again while it is looked at.
    with contextlib.suppress(Exception):
        nodes = unsupported(model, target)
        if nodes:
            more = [f"and {len(nodes) - _MOST_LISTED} more"] if nodes[_MOST_LISTED:] else []
            listing = "; ".join([*map(str, nodes[:_MOST_LISTED]), *more])
            return ConversionError(f"{converter} has nothing for these operations: {listing}")
    return refusal(converter, error)


def _instead(operation: str, *, has_select: bool) -> str:
    ways = [way for name, way in _INSTEAD.items() if operation.startswith(name)][:1]
    if not ways and operation.startswith(_BEFORE_THE_MODEL):
        ways = [_BEFORE]
    return "; or ".join([*ways, _SELECT] if has_select else ways)


def _litert(
    graph: FrozenGraph, model: Model, *, with_select: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield what the converter leaves as operations of the user's own, which it is told to let pass."""
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    from strop.graph.frozen import traced

    function = traced(graph, model.signature, batch=model.binding.batch)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    known = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.target_spec.supported_ops = (
        [*known, tf.lite.OpsSet.SELECT_TF_OPS] if with_select else known
    )
    converter.allow_custom_ops = True
    left = defaultdict(list)
    for node in with_called(graph.definition.library, graph.definition.node):
        left[node.op].append(node.name)
    try:
        content = converter.convert()
    # The converter lets errors of every kind through. Some operations it refuses even to let pass.
    except Exception as error:
        told = [operation for operation in _NAMED.findall(str(error)) if operation in left]
        if not told:
            raise refusal("the LiteRT converter", error) from error
        yield from ((name, kind) for kind in dict.fromkeys(told) for name in left[kind])
        return
    flat = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for part in flat.subgraphs:
        for operator in part.operators or ():
            code = flat.operatorCodes[operator.opcodeIndex]
            operation = (code.customCode or b"").decode()
            is_custom = code.builtinCode == schema.BuiltinOperator.CUSTOM
            # "Flex" stands before those that TensorFlow's own kernels run.
            if is_custom and not (with_select and operation.startswith("Flex")):
                given = [part.tensors[place].name.decode() for place in operator.outputs[:1]]
                named = given[0].split(";")[-1] if given else ""
                # What gives an output of the model is called as that output is.
                name = named if named in left[operation] else next(iter(left[operation]), named)
                if name in left[operation]:
                    left[operation].remove(name)
                yield name, operation


def _onnx(graph: FrozenGraph, model: Model) -> Iterator[tuple[str, str]]:
    from strop.graph.to_onnx import foreign_nodes, known_operations

    try:
        foreign = foreign_nodes(graph)
    # tf2onnx lets errors of every kind through, as in a loop whose body has what it does not know.
    except Exception as error:
        known = known_operations()
        nodes = with_called(graph.definition.library, graph.definition.node)
        unknown = [(node.name, node.op) for node in nodes if node.op not in known]
        if not unknown:
            raise refusal("tf2onnx", error) from error
        yield from unknown
        return
    for node in foreign:
        yield node.name, node.op_type


def _openvino(graph: FrozenGraph, model: Model) -> Iterator[tuple[str, str]]:
    from openvino.frontend import FrontEndManager

    nodes = with_called(graph.definition.library, graph.definition.node)
    operations = {node.name: node.op for node in nodes}
    with TemporaryDirectory(prefix="strop-") as scratch:
        path = Path(scratch) / "model.pb"
        path.write_bytes(graph.definition.SerializeToString())
        reader = FrontEndManager().load_by_framework("tf")
        partly = reader.convert_partially(reader.load(str(path)))
    for node in _in_openvino(partly):
        if node.get_type_name().endswith("FrameworkNode"):
            name = node.get_friendly_name()
            yield name, operations.get(name, node.get_type_name())


def _in_openvino(model: Any) -> Iterator[Any]:
    """Yield the operations of a model, and those in the bodies of its loops and branches."""
    for node in model.get_ops():
        yield node
        for body in _bodies(node):
            yield from _in_openvino(body)


def _bodies(node: Any) -> list[Any]:
    kind = node.get_type_name()
    if kind == "If":
        return [node.get_function(0), node.get_function(1)]
    return [node.get_function()] if kind in ("Loop", "TensorIterator") else []


def _xla(graph: FrozenGraph, model: Model) -> Iterator[tuple[str, str]]:
    import tensorflow as tf
    from tensorflow.python.framework import kernels

    # The compiler's kernels are registered when it is first used.
    tf.function(lambda: tf.zeros(()) + 1, jit_compile=True)()
    fed = {name.split(":")[0] for name in graph.inputs}
    compiled: dict[str, bool] = {}
    nodes: Iterable[Any] = with_called(graph.definition.library, graph.definition.node)
    for node in nodes:
        if node.name in fed or node.op in ("NoOp", "Placeholder"):
            continue
        if node.op not in compiled:
            registered = kernels.get_registered_kernels_for_op(node.op).kernel
            compiled[node.op] = any(kernel.device_type == "XLA_CPU_JIT" for kernel in registered)
        if not compiled[node.op]:
            yield node.name, node.op


TARGETS: dict[str, Callable[[FrozenGraph, Model], Iterator[tuple[str, str]]]] = {
    "litert": _litert,
    "litert_select": partial(_litert, with_select=True),
    "onnxruntime": _onnx,
    "openvino": _openvino,
    "xla": _xla,
}
"""The engines that can be asked, by name; ``litert_select`` is LiteRT with TensorFlow's kernels, ``xla`` its compiler."""
