"""What a model is: its operations by kind, its parameters, and its multiply-accumulates, each counted from its own form.

A layer with weights does, for every element of its output, as many multiply-accumulates as it has weights for one output
channel: ``macs = outputs · weights / channels``, be it a convolution, a depthwise one or a dense layer. A product of two
activations does ``outputs · inner``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from strop.core.model import Form, Model


@dataclass(frozen=True)
class Description:
    """What there is to say of a model by looking at its graph.

    Attributes:
        operations: How many of each kind, in the form's own words; most frequent first.
        parameters: Constant numbers of more than a scalar.
        macs: Multiply-accumulates for one sample; None where shapes are not known.
    """

    operations: dict[str, int]
    parameters: int
    macs: int | None


def describe(model: Model) -> Description:
    """Return what there is to say of `model`; Keras models and SavedModels are frozen for it first."""
    return _BY_FORM[model.form](model)


def _graph_def(model: Model) -> Description:
    from strop.graph.frozen import read_graph

    return _of_graph(read_graph(model.path), model)


def _frozen(model: Model) -> Description:
    from strop.graph.frozen import freeze

    if model.form is Form.KERAS:
        from strop.graph.keras_files import load
        from strop.graph.keras_models import by_name

        loaded = load(model.path)
        graph = freeze(lambda *x: by_name(loaded, x, model.signature), model.signature, batch=1)
    else:
        from strop.graph.saved_models import serving_function

        graph = freeze(serving_function(model), model.signature, batch=1)
    return _of_graph(graph.definition, model)


def _of_graph(definition: Any, model: Model) -> Description:
    import tensorflow as tf

    kinds = Counter(node.op for node in definition.node)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    parameters = sum(
        prod(op.outputs[0].shape.as_list()) for op in graph.get_operations() if _is_parameter(op)
    )
    weighty = (
        "Conv2D",
        "Conv3D",
        "DepthwiseConv2dNative",
        "MatMul",
        "Conv2DBackpropInput",
        "Einsum",
    )
    total = 0
    for op in graph.get_operations():
        if op.type in weighty or op.type.startswith("BatchMatMul"):
            shape = op.outputs[0].shape
            sizes = [t.shape.as_list() for t in op.inputs if t.shape.rank is not None]
            if shape.rank is None or None in shape.as_list()[1:] or not sizes:
                return Description(_ordered(kinds), parameters, None)
            outputs = prod(n or 1 for n in shape.as_list())
            total += outputs * _inner_of_graph(op, sizes)
    return Description(_ordered(kinds), parameters, total)


def _is_parameter(op: Any) -> bool:
    value = op.outputs[0] if op.type == "Const" else None
    return value is not None and bool(value.dtype.is_floating and value.shape.rank > 0)


def _inner_of_graph(op: Any, sizes: list[list[int | None]]) -> int:
    """Return how many multiply-accumulates one element of the output takes."""
    if op.type in ("Conv2D", "Conv3D"):
        return prod(n or 1 for n in sizes[1][:-1])
    if op.type == "DepthwiseConv2dNative":
        return prod(n or 1 for n in sizes[1][:2])
    if op.type == "Conv2DBackpropInput":
        return prod(n or 1 for n in sizes[1]) // max(op.outputs[0].shape[-1] or 1, 1)
    left = sizes[0]
    transposed = any(op.node_def.attr[name].b for name in ("transpose_a", "adj_x"))
    return int(left[-2 if transposed else -1] or 1)


def _litert(model: Model) -> Description:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(model.path),
        # With XNNPACK on, the operations it took over are one opaque node.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    tensors = {details["index"]: details for details in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    made = {int(out) for op in operations for out in op["outputs"]}
    made |= {details["index"] for details in interpreter.get_input_details()}
    parameters = sum(
        int(np.prod(d["shape"])) for i, d in tensors.items() if i not in made and len(d["shape"])
    )
    total = 0
    for op in operations:
        if op["op_name"] not in (
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "FULLY_CONNECTED",
            "TRANSPOSE_CONV",
            "BATCH_MATMUL",
        ):
            continue
        outputs = int(np.prod(tensors[int(op["outputs"][0])]["shape"]))
        weights = tensors[int(op["inputs"][1])]["shape"]
        if op["op_name"] == "BATCH_MATMUL":
            total += outputs * int(tensors[int(op["inputs"][0])]["shape"][-1])
        elif op["op_name"] == "DEPTHWISE_CONV_2D":
            total += outputs * int(weights[1] * weights[2])
        else:
            total += outputs * int(np.prod(weights[1:]))
    return Description(_ordered(Counter(op["op_name"] for op in operations)), parameters, total)


def _onnx(model: Model) -> Description:
    import onnx
    from onnx import numpy_helper, shape_inference

    content = onnx.load(str(model.path))
    for value in content.graph.input:
        for dimension in value.type.tensor_type.shape.dim[:1]:
            if not dimension.dim_value:
                dimension.dim_value = 1
    graph = shape_inference.infer_shapes(content).graph
    weights = {t.name: numpy_helper.to_array(t).shape for t in graph.initializer}
    shapes: dict[str, tuple[int, ...]] = dict(weights)
    for value in [*graph.value_info, *graph.output, *graph.input]:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else 0 for d in dims)
    total: int | None = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul", "ConvTranspose"):
            continue
        out, left = shapes.get(node.output[0]), shapes.get(node.input[0])
        kernel = shapes.get(node.input[1])
        if total is None or not out or not left or not kernel or 0 in out or 0 in left:
            total = None
        elif node.op_type in ("Conv", "ConvTranspose"):
            total += prod(out) * prod(kernel[1:])
        else:
            total += prod(out) * left[-1]
    parameters = sum(prod(shape) for shape in weights.values() if shape)
    return Description(_ordered(Counter(n.op_type for n in graph.node)), parameters, total)


def _openvino(model: Model) -> Description:
    import openvino

    graph = openvino.Core().read_model(str(model.path))
    dynamic = [p for p in graph.inputs if p.partial_shape.is_dynamic]
    if dynamic:
        graph.reshape({p: openvino.PartialShape([1, *list(p.partial_shape)[1:]]) for p in dynamic})
    kinds: Counter[str] = Counter()
    parameters, total = 0, 0
    for op in graph.get_ordered_ops():
        kind = op.get_type_name()
        kinds[kind] += 1
        if kind == "Constant" and op.get_output_shape(0):
            parameters += prod(op.get_output_shape(0))
        if kind not in ("Convolution", "GroupConvolution", "MatMul", "ConvolutionBackpropData"):
            continue
        if op.get_output_partial_shape(0).is_dynamic:
            return Description(_ordered(kinds), parameters, None)
        outputs, kernel = prod(op.get_output_shape(0)), list(op.input(1).get_shape())
        inner = {"Convolution": prod(kernel[1:]), "GroupConvolution": prod(kernel[2:])}
        total += outputs * inner.get(kind, list(op.input(0).get_shape())[-1])
    return Description(_ordered(kinds), parameters, total)


def _ordered(kinds: Counter[str]) -> dict[str, int]:
    return dict(kinds.most_common())


_BY_FORM: dict[Form, Callable[[Model], Description]] = {
    Form.KERAS: _frozen,
    Form.SAVED_MODEL: _frozen,
    Form.GRAPH_DEF: _graph_def,
    Form.LITERT: _litert,
    Form.ONNX: _onnx,
    Form.OPENVINO: _openvino,
}
