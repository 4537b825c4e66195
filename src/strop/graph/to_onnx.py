"""To ONNX: what tf2onnx does of graphs and flatbuffers, spelled so that it understands, then simplified and checked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strop.graph import onnx_spelling
from strop.graph.frozen import FrozenGraph
from strop.graph.grappler import grappled
from strop.graph.spelling import spell_einsum, spell_gelu, spell_lookup, spell_out_erfc

_COMPILED = "_XlaMustCompile"


def to_onnx(
    graph: FrozenGraph,
    path: Path,
    names: tuple[Sequence[str], Sequence[str]],
    *,
    opset: int,
    batch: int | None,
) -> None:
    """Write `graph` as ONNX at `path`, checked.

    The batch is fixed at the end, in ONNX: tf2onnx tells an LSTM by the shape of its loop, and does not know it again
    in one that was traced for a fixed batch.

    Args:
        graph: What to convert, in order (see `frozen_of`).
        path: Where to write.
        names: What inputs and outputs shall be called there.
        opset: The operator set.
        batch: A batch size to fix; None leaves it free.

    Raises:
        ValueError: If tf2onnx left operations behind that ONNX does not have.
    """
    _write(_converted(graph, names, opset), path, batch)


def foreign_nodes(graph: FrozenGraph, *, opset: int = 18) -> list[Any]:
    """Return the nodes of `graph` that tf2onnx has nothing of ONNX for, with the names that they have there."""
    return _foreign(_converted(graph, (graph.inputs, graph.outputs), opset))


def known_operations() -> set[str]:
    """Return TensorFlow's operations that tf2onnx has something for, whatever it makes of them."""
    from tf2onnx.handler import tf_op

    return {
        name
        for versions in tf_op.get_opsets().values()
        for handlers in versions
        for name in handlers
    }


def _written_out(definition: Any, ends: Sequence[str]) -> Any:
    """Return a graph with the functions written out that Keras has XLA compile: grouped convolutions.

    TensorFlow runs these in no other way on a CPU; ONNX has an operation for them.
    """
    functions = {
        function.signature.name: function
        for function in definition.library.function
        if _COMPILED in function.attr
    }
    if not functions:
        return definition
    for node in (*definition.node, *functions.values()):
        for attribute in (_COMPILED, "_noinline"):
            node.attr.pop(attribute, None)
    return grappled(definition, ends, ("function",))


def _converted(graph: FrozenGraph, names: tuple[Sequence[str], Sequence[str]], opset: int) -> Any:
    import tf2onnx

    definition = type(graph.definition)()
    definition.CopyFrom(graph.definition)
    for rule in (spell_lookup, spell_einsum, spell_gelu, spell_out_erfc):
        rule(definition)
    ends = (*graph.inputs, *graph.outputs)
    definition = _written_out(definition, [end.split(":")[0] for end in ends])

    def convert() -> Any:
        proto, _ = tf2onnx.convert.from_graph_def(
            definition,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset=opset,
            tensors_to_rename=dict(zip(ends, (*names[0], *names[1]), strict=True)),
        )
        return proto

    return _patiently(convert)


def litert_to_onnx(source: Path, path: Path, *, opset: int, batch: int | None) -> None:
    """Write the flatbuffer at `source` as ONNX at `path`, checked; names stay.

    Raises:
        ValueError: If tf2onnx left operations behind that ONNX does not have.
    """
    import tf2onnx

    def convert() -> Any:
        proto, _ = tf2onnx.convert.from_tflite(str(source), opset=opset)
        return proto

    _write(_patiently(convert), path, batch)


def _patiently(convert: Callable[[], Any]) -> Any:
    """Return what `convert` gives, without the copy of the graph that tf2onnx makes before each of its optimizers.

    It keeps them to fall back on, which for EfficientNet-B0 takes more than half of the whole time; only where an
    optimizer does fail is it done again with them.
    """
    try:
        with _environment("TF2ONNX_CATCH_ERRORS", "FALSE"):
            return _counted_anew(convert)
    # Whatever an optimizer raised, the second try shows whether it matters.
    except Exception:  # noqa: BLE001
        return _counted_anew(convert)


def _counted_anew(convert: Callable[[], Any]) -> Any:
    """Return what `convert` gives, its names numbered from one.

    tf2onnx counts on through the process's life; recipes name layers, and must find them in another process.
    """
    import tf2onnx
    import tf2onnx.rewriter  # imported later, it would take a number the first time and none after

    tf2onnx.utils.INTERNAL_NAME = 1
    return convert()


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _write(proto: Any, path: Path, batch: int | None) -> None:
    import onnx

    _refuse_foreign(proto)
    if batch:
        _fix_batch(proto, batch)
    proto = _simplified(proto)
    onnx_spelling.spell_layer_normalization(proto)
    onnx_spelling.spell_gelu(proto)
    _name_constants(proto.graph)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _name_constants(graph: Any) -> None:
    """Number the constants that tf2onnx folded in the order of their use, in place: it folds in the order of a set."""
    folded = {w.name for w in graph.initializer if w.name.startswith("const_fold_opt__")}
    used = (name for node in _all_nodes(graph) for name in node.input if name in folded)
    names = {old: f"folded__{number}" for number, old in enumerate(dict.fromkeys(used))}
    for weight in graph.initializer:
        weight.name = names.get(weight.name, weight.name)
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)
    for node in _all_nodes(graph):
        node.input[:] = [names.get(name, name) for name in node.input]


def _refuse_foreign(proto: Any) -> None:
    """Raise for operations that ONNX does not have: tf2onnx logs them and writes the file all the same."""
    unknown = {node.op_type for node in _foreign(proto)}
    if unknown:
        raise ValueError(f"unsupported operations: {', '.join(sorted(unknown))}")


def _foreign(proto: Any) -> list[Any]:
    import onnx

    version = next(
        entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")
    )
    return [
        node
        for node in _all_nodes(proto.graph)
        if node.domain not in ("", "ai.onnx", "ai.onnx.ml")
        or not onnx.defs.has(node.op_type, max_inclusive_version=version)
    ]


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _all_nodes(inner)


def _fix_batch(proto: Any, batch: int) -> None:
    """Give the first dimension of all inputs and outputs a size, in place, and forget what was inferred without."""
    for value in (*proto.graph.input, *proto.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].dim_value:
            dimensions[0].dim_value = batch
    del proto.graph.value_info[:]


def _simplified(proto: Any) -> Any:
    """Return the model with constants folded and shapes computed beforehand, where onnxslim can."""
    try:
        import onnxslim
    except ImportError:
        return proto
    copy = type(proto).FromString(proto.SerializeToString())
    try:
        slim = onnxslim.slim(copy)
    # It is an optimization only, and raises whatever it comes upon.
    except Exception:  # noqa: BLE001
        return proto
    same = [v.name for v in slim.graph.input] == [v.name for v in proto.graph.input]
    same = same and [v.name for v in slim.graph.output] == [v.name for v in proto.graph.output]
    return slim if same else proto
