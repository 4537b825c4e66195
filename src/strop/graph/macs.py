"""Multiply-accumulates, counted from each form's own graph.

A convolution does, for each element of its output, one for each weight of one output channel. A transposed one spreads
each element of its *input* over one channel's weights: its outputs are as many times more as its stride says, its
products are not. A product of matrices does ``outputs · inner``; a recurrent layer ``steps · weights``.

Where a size is not known, or how often a loop runs, neither is the count: None, never a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sizes = Sequence[int | None]
# A loop's condition that consists of these runs as often as its smallest bound says.
_COUNTING = frozenset({"Const", "Identity", "Less", "LogicalAnd", "NoOp"})


class _Unknown(Exception):  # noqa: N818 - it never leaves this file
    """A size that the graph does not tell."""


def of_graph_def(definition: Any) -> int | None:
    """Return the multiply-accumulates of one call of a GraphDef; None where they can't be told.

    Args:
        definition: The `GraphDef`, its batch fixed.
    """
    import tensorflow as tf

    functions = {function.signature.name: function for function in definition.library.function}
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
        return _or_none(lambda: _of_operations(graph, functions))


def of_flatbuffer(interpreter: Any) -> int | None:
    """Return the multiply-accumulates of the last call of a LiteRT interpreter that runs without delegates.

    Shapes are worked out while it runs, so it has to have run once.
    """
    tensors = {details["index"]: details["shape"].tolist() for details in _tensors(interpreter)}

    def of(operation: Mapping[str, Any]) -> int:
        inputs = [tensors.get(int(index), []) for index in operation["inputs"]]
        outputs = [tensors.get(int(index), []) for index in operation["outputs"]]
        return _of_litert(operation["op_name"], inputs, outputs)

    return _or_none(lambda: sum(map(of, interpreter._get_ops_details())))


def of_onnx(proto: Any) -> int | None:
    """Return the multiply-accumulates of one call of an ONNX model whose inputs' shapes are fixed."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes: dict[str, Sizes] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.output, *graph.input):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = [d.dim_value if d.HasField("dim_value") else None for d in dims]
    if proto.functions:
        return None
    return _or_none(lambda: sum(_of_onnx_node(node, shapes) for node in graph.node))


def of_openvino(model: Any) -> int | None:
    """Return the multiply-accumulates of one call of an OpenVINO model whose inputs' shapes are fixed."""
    return _or_none(lambda: sum(map(_of_openvino_node, model.get_ordered_ops())))


def _or_none(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except _Unknown:
        return None


def _size(shape: Sizes | None) -> int:
    if shape is None:
        raise _Unknown
    found = 1
    for length in shape:
        if length is None or length < 0:
            raise _Unknown
        found *= length
    return found


def _einsum(equation: str, shapes: Sequence[Sizes | None]) -> int:
    """Return the size of the space that an Einsum's letters span, each of whose points is one product."""
    operands = equation.replace(" ", "").split("->")[0].split(",")
    if "." in equation or len(operands) != len(shapes):
        raise _Unknown
    lengths: dict[str, int | None] = {}
    for letters, shape in zip(operands, shapes, strict=True):
        if shape is None or len(shape) != len(letters):
            raise _Unknown
        lengths.update(zip(letters, shape, strict=True))
    return _size(list(lengths.values())) if len(operands) > 1 else 0


def _of_operations(graph: Any, functions: Mapping[str, Any]) -> int:
    return sum(_of_operation(operation, functions) for operation in graph.get_operations())


def _of_operation(operation: Any, functions: Mapping[str, Any]) -> int:
    # TensorFlow's own optimizer puts _Fused before what it joined a bias or an activation to.
    kind = operation.type.removeprefix("_Fused")
    if kind == "Enter":
        raise _Unknown  # a loop of TensorFlow 1, whose steps lie among the other nodes
    if kind in ("While", "StatelessWhile"):
        body = operation.node_def.attr["body"].func.name
        once = _of_body(functions[body], operation.inputs, functions)
        return once and once * _rounds(operation, functions)
    if kind in ("If", "StatelessIf"):
        branches = [
            operation.node_def.attr[f"{name}_branch"].func.name for name in ("then", "else")
        ]
        return max(_of_body(functions[b], operation.inputs[1:], functions) for b in branches)
    if kind in ("PartitionedCall", "StatefulPartitionedCall"):
        called = operation.node_def.attr["f"].func.name
        return _of_body(functions[called], operation.inputs, functions)
    return _of_product(kind, operation)


def _of_product(kind: str, operation: Any) -> int:
    shapes = [_known(tensor.shape) for tensor in operation.inputs]
    if kind in ("Conv2D", "Conv3D"):
        return _size(_known(operation.outputs[0].shape)) * _size((shapes[1] or [None])[:-1])
    if kind in ("DepthwiseConv2dNative", "DepthwiseConv2D"):
        return _size(_known(operation.outputs[0].shape)) * _size((shapes[1] or [None])[:2])
    if kind in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):
        return _size(shapes[2]) * _size((shapes[1] or [None])[:-1])
    if kind == "MatMul" or kind.startswith("BatchMatMul"):
        attributes = operation.node_def.attr
        turned = attributes["transpose_a"].b or attributes["adj_x"].b
        return _of_matrices(shapes[0], _known(operation.outputs[0].shape), turned=turned)
    if kind == "Einsum":
        return _einsum(operation.node_def.attr["equation"].s.decode(), shapes)
    return 0


def _known(shape: Any) -> Sizes | None:
    return None if shape.rank is None else shape.as_list()


def _of_matrices(left: Sizes | None, result: Sizes | None, *, turned: bool) -> int:
    if not left:
        raise _Unknown
    return _size(result) * _size([left[-2 if turned and len(left) > 1 else -1]])


def _of_body(function: Any, inputs: Sequence[Any], functions: Mapping[str, Any]) -> int:
    from tensorflow.python.framework import function_def_to_graph

    shapes = [tensor.shape for tensor in inputs]
    return _of_operations(
        function_def_to_graph.function_def_to_graph(function, input_shapes=shapes), functions
    )


def _rounds(loop: Any, functions: Mapping[str, Any]) -> int:
    """Return how often a loop runs that counts up by one to the smallest of its bounds."""
    from tensorflow.python.framework import tensor_util

    condition = functions[loop.node_def.attr["cond"].func.name]
    if any(node.op not in _COUNTING for node in condition.node_def):
        raise _Unknown
    names = [argument.name for argument in condition.signature.input_arg]
    values = dict(zip(names, map(tensor_util.constant_value, loop.inputs), strict=True))
    for node in condition.node_def:
        if node.op == "Const":
            values[f"{node.name}:output:0"] = tensor_util.MakeNdarray(node.attr["value"].tensor)
    bounds = []
    for node in condition.node_def:
        start, bound = (
            (values.get(name) for name in node.input[:2]) if node.op == "Less" else (None, None)
        )
        if start is not None and bound is not None:
            bounds.append(int(bound) - int(start))
    if not bounds:
        raise _Unknown
    return max(min(bounds), 0)


def _tensors(interpreter: Any) -> list[Any]:
    return list(interpreter.get_tensor_details())


def _of_litert(kind: str, inputs: Sequence[Sizes], outputs: Sequence[Sizes]) -> int:
    if kind in ("WHILE", "IF", "CALL", "STABLEHLO_COMPOSITE", "BIDIRECTIONAL_SEQUENCE_LSTM"):
        raise _Unknown  # what they run is not shown
    if kind in ("CONV_2D", "FULLY_CONNECTED"):
        return _size(outputs[0]) * _size(inputs[1][1:])
    if kind == "CONV_3D":
        return _size(outputs[0]) * _size(inputs[1][:-1])
    if kind == "DEPTHWISE_CONV_2D":
        return _size(outputs[0]) * _size(inputs[1][1:3])
    if kind == "TRANSPOSE_CONV":
        return _size(inputs[2]) * _size(inputs[1][:3])
    if kind == "BATCH_MATMUL":
        # Which of its operands are turned is not shown, but a matrix has rows · inner elements either way.
        return _size(outputs[0]) * _size(inputs[0][-2:]) // (outputs[0][-2] or 1)
    if kind in ("UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM"):
        weights = [*inputs[1:9], *inputs[16:17]]
        return _size(inputs[0][:-1]) * sum(_size(shape) for shape in weights if shape)
    if kind in ("UNIDIRECTIONAL_SEQUENCE_RNN", "RNN", "SVDF"):
        return _size(inputs[0][:-1]) * (_size(inputs[1]) + _size(inputs[2]))
    return 0


# Where each operation has its kernel; those with integer weights have scales in between.
_ONNX_KERNELS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_ONNX_PRODUCTS = frozenset(
    {
        "DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulInteger",
        "MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QLinearMatMul",
    }
)  # fmt: skip
_ONNX_OPAQUE = frozenset(
    {
        "Attention", "DynamicQuantizeLSTM", "GroupQueryAttention", "If", "Loop", "MultiHeadAttention",
        "QAttention", "Scan",
    }
)  # fmt: skip


def _of_onnx_node(node: Any, shapes: Mapping[str, Sizes]) -> int:
    kind = node.op_type
    inputs = [shapes.get(name) for name in node.input]
    if kind in _ONNX_OPAQUE:
        raise _Unknown
    if kind in _ONNX_KERNELS:
        kernel = inputs[_ONNX_KERNELS[kind]]
        return _size(shapes.get(node.output[0])) * _size((kernel or [None])[1:])
    if kind == "ConvTranspose":
        return _size(inputs[0]) * _size((inputs[1] or [None])[1:])
    if kind in _ONNX_PRODUCTS:
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        return _of_matrices(inputs[0], shapes.get(node.output[0]), turned=turned)
    if kind in ("LSTM", "GRU", "RNN"):
        return _size((inputs[0] or [None])[:2]) * (_size(inputs[1]) + _size(inputs[2]))
    if kind == "Einsum":
        equation = next(a.s.decode() for a in node.attribute if a.name == "equation")
        return _einsum(equation, inputs)
    return 0


# Where each recurrent operation has its two matrices of weights.
_OPENVINO_WEIGHTS = {
    "LSTMSequence": 4, "GRUSequence": 3, "RNNSequence": 3,
    "LSTMCell": 3, "GRUCell": 2, "RNNCell": 2,
}  # fmt: skip


def _of_openvino_node(node: Any) -> int:
    kind = node.get_type_name()
    if kind in ("Loop", "TensorIterator", "If"):
        raise _Unknown  # how often they run, or which way, shows only at work
    inputs = [_ports(port.get_partial_shape()) for port in node.inputs()]
    result = _ports(node.get_output_partial_shape(0)) if node.get_output_size() else None
    if kind in ("Convolution", "GroupConvolution"):
        # A grouped kernel is [groups, outputs, inputs, …], another [outputs, inputs, …].
        return _size(result) * _size((inputs[1] or [None])[1 if kind == "Convolution" else 2 :])
    if kind in ("ConvolutionBackpropData", "GroupConvolutionBackpropData"):
        grouped = kind.startswith("Group")
        return _size(inputs[0]) * _size((inputs[1] or [None])[2 if grouped else 1 :])
    if kind == "MatMul":
        return _of_matrices(inputs[0], result, turned=bool(node.get_attributes()["transpose_a"]))
    if kind in _OPENVINO_WEIGHTS:
        first = _OPENVINO_WEIGHTS[kind]
        steps = _size((inputs[0] or [None])[:-1])
        return steps * (_size(inputs[first]) + _size(inputs[first + 1]))
    if kind == "Einsum":
        return _einsum(str(node.get_attributes()["equation"]), inputs)
    if kind == "ScaledDotProductAttention":
        keys = _size([(inputs[1] or [None, None])[-2]])
        return keys * (_size(inputs[0]) + _size(result))
    return 0


def _ports(shape: Any) -> Sizes | None:
    if shape.rank.is_dynamic:
        return None
    return [None if n.is_dynamic else n.get_length() for n in shape]
