"""Frozen graphs to ONNX: what tf2onnx does, with the operations put right that it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.core.signature import Signature
from strop.graph.frozen import FrozenGraph, with_shapes


def to_onnx(
    graph: FrozenGraph,
    signature: Signature,
    path: Path,
    *,
    opset: int,
    batch: int | None,
) -> None:
    """Write `graph` as ONNX at `path`, checked, with the graph's own tensor names for inputs and outputs.

    Args:
        graph: What to convert.
        signature: Gives the inputs' shapes.
        path: Where to write.
        opset: The operator set.
        batch: A batch size to fix; None leaves it free.
    """
    import onnx
    import tf2onnx

    definition = with_shapes(graph, signature, batch=batch).definition
    _spell_out_erfc(definition)
    proto, _ = tf2onnx.convert.from_graph_def(
        definition,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        opset=opset,
    )
    unknown = sorted({f"{n.op_type}" for n in proto.graph.node if _is_foreign(n.domain)})
    if unknown:
        raise ValueError(f"unsupported operations: {', '.join(unknown)}")
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _is_foreign(domain: str) -> bool:
    return domain not in ("", "ai.onnx", "ai.onnx.ml")


def _spell_out_erfc(definition: Any) -> None:
    """Replace each ``Erfc(x)`` by ``1 - Erf(x)``, in place: tf2onnx writes Erfc as it is, which no engine knows.

    The two differ where erfc is tiny (x > 4: both ends of float32's grain at 1.0); GELU multiplies it by x, so its
    error there stays below 1e-6 of x.
    """
    import tensorflow as tf

    for node in list(definition.node):
        if node.op != "Erfc":
            continue
        dtype = node.attr["T"].type
        one, erf = definition.node.add(), definition.node.add()
        one.name, one.op = f"{node.name}/one", "Const"
        one.attr["dtype"].type = dtype
        one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0, dtype=dtype, shape=[]))
        erf.name, erf.op = f"{node.name}/erf", "Erf"
        erf.input.append(node.input[0])
        erf.attr["T"].type = dtype
        node.op = "Sub"
        del node.input[:]
        node.input.extend([one.name, erf.name])
