"""What the LiteRT converter made of a taught graph, put right: in the flatbuffer the very codes that were taught.

The converter finds ranges of weights anew, so that four bits of weights, or a few values that they share, come out as
other codes than those that were taught; it quantizes what was to stay in float; it has no rule for ELU, though the
engine has a kernel; and it knows of codes of eight bits only, so that what was taught with sixteen is converted as if
with eight and widened then.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.graph.coded_weights import CodedWeights, Rounding, is_wall
from strop.graph.names import unique
from strop.numerics.grids import short

Flatbuffer = Any
"""A `ModelT` of TensorFlow's own reader of the schema: a tree of plain objects that may be changed."""

# Where an operation with a kernel has its data, its kernel and its bias.
_PLACES = {
    "CONV_2D": (0, 1, 2), "DEPTHWISE_CONV_2D": (0, 1, 2), "FULLY_CONNECTED": (0, 1, 2), "TRANSPOSE_CONV": (2, 1, 3),
}  # fmt: skip
# Operations with integer kernels that the converter leaves in float.
_WITH_KERNELS = frozenset({"ELU"})
_WIDE = 16
# Operations with kernels for data of 16 bits, their weights having 8.
_WITH_WIDE_KERNELS = frozenset(
    {
        "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "EXP", "EXPAND_DIMS",
        "FULLY_CONNECTED", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PAD", "QUANTIZE",
        "REDUCE_MAX", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SHAPE", "SOFTMAX",
        "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
    }
)  # fmt: skip
_OF_CONVERSION = b"CONVERSION_METADATA"
# Operations whose kernels for 16 bits give results in steps of 2**-15, and in no others.
_OF_KNOWN_STEP = frozenset({"LOGISTIC", "SOFTMAX", "TANH"})


def put_right(
    model: Flatbuffer, kernels: Sequence[CodedWeights], roundings: Sequence[Rounding]
) -> None:
    """Change a flatbuffer that was made of a taught graph, in place.

    Args:
        model: The flatbuffer.
        kernels: The graph's kernels in codes.
        roundings: What its tensors are rounded to.
    """
    _take_walls_down(model)
    _compute_in_codes(model)
    _put_codes(model, kernels)
    if any(rounding.bits == _WIDE for rounding in roundings):
        _widen(model)
    _leave_out_unread(model)
    for graph in model.subgraphs:
        _shorten_names(graph)
        _shorten_steps_of_biases(model, graph)


def _take_walls_down(model: Flatbuffer) -> None:
    for graph in model.subgraphs:
        walls = [
            operator
            for operator in graph.operators
            if is_wall(graph.tensors[operator.outputs[0]].name.decode().split(";")[0])
            and len(operator.inputs) == 1
        ]
        for wall in walls:
            _redirect(graph, wall.outputs[0], wall.inputs[0])
        graph.operators = [operator for operator in graph.operators if operator not in walls]


def _compute_in_codes(model: Flatbuffer) -> None:
    """Have functions, and what brings codes onto another grid, read codes where these are decoded for them alone."""
    for graph in model.subgraphs:
        decoded = {
            operator.outputs[0]: operator.inputs[0]
            for operator in graph.operators
            if _kind(model, operator) == "DEQUANTIZE"
        }
        gone = []
        for operator in graph.operators:
            kind, codes = _kind(model, operator), decoded.get(_first(operator.inputs))
            if codes is None or kind not in {"QUANTIZE", *_WITH_KERNELS}:
                continue
            if kind in _WITH_KERNELS:
                behind = [o for o in graph.operators if operator.outputs[0] in o.inputs]
                is_rounded = [_kind(model, reader) for reader in behind] == ["QUANTIZE"]
                if not is_rounded or operator.outputs[0] in graph.outputs:
                    continue
                operator.outputs = behind[0].outputs
                gone += behind
            operator.inputs = np.asarray([codes], np.int32)
        read = {int(i) for o in graph.operators if o not in gone for i in o.inputs}
        read |= {int(i) for i in graph.outputs}
        graph.operators = [
            operator
            for operator in graph.operators
            if operator not in gone
            and (_kind(model, operator) != "DEQUANTIZE" or operator.outputs[0] in read)
        ]


def _first(inputs: Sequence[int]) -> int:
    return int(inputs[0]) if len(inputs) else -1


def _put_codes(model: Flatbuffer, kernels: Sequence[CodedWeights]) -> None:
    """Write the codes and steps that were taught over those that the converter found."""
    graph = model.subgraphs[0]  # in the others are loops, whose layers are in float
    written: set[int] = set()
    for operator, (_, place, _) in _layers(model, graph):
        if place not in written:
            found = _taught(model, graph.tensors[place], kernels)
            if found is None:
                continue
            _write(model, graph.tensors[place], found)
            written.add(place)
        _scale_bias(model, graph, operator)


def _taught(
    model: Flatbuffer, tensor: Any, kernels: Sequence[CodedWeights]
) -> CodedWeights | None:
    """Return the kernel whose values a tensor has, as near as its own codes tell; None where there is none."""
    if tensor.type != _schema().TensorType.INT8:
        return None
    scales = _steps(tensor).reshape(-1, 1)
    codes = _array(model, tensor, np.int8)
    rows = np.moveaxis(codes, tensor.quantization.quantizedDimension, 0)
    rows = rows.reshape(len(scales), -1) if len(scales) > 1 else codes.reshape(1, -1)
    found = rows * scales
    for kernel in kernels:
        if kernel.rows.shape != rows.shape:
            continue
        values = kernel.rows * kernel.steps.reshape(-1, 1).astype(np.float64)
        # Half a step for its rounding, and a grain of float32 for what it rounded.
        if np.all(np.abs(found - values) <= (0.5 + 2.0**-15) * scales):
            return kernel
    return None


def _write(model: Flatbuffer, tensor: Any, kernel: CodedWeights) -> None:
    axis, shape = tensor.quantization.quantizedDimension, list(tensor.shape)
    channels = kernel.rows.shape[0]
    if channels > 1:
        others = [size for place, size in enumerate(shape) if place != axis]
        codes = np.moveaxis(kernel.rows.reshape(channels, *others), 0, axis)
    else:
        codes = kernel.rows.reshape(shape)
    _put(model, tensor, np.ascontiguousarray(codes))
    tensor.quantization.scale = kernel.steps.reshape(-1).astype(np.float32)
    tensor.quantization.zeroPoint = np.zeros(channels, np.int64)


def _scale_bias(model: Flatbuffer, graph: Any, operator: Any) -> None:
    """Count a layer's bias in the steps of its sums, those of data times those of weights, as kernels add it."""
    data, weights, place = _places(model, operator)
    types = _schema().TensorType
    if place < 0 or graph.tensors[place].type not in (types.INT32, types.INT64):
        return
    bias = graph.tensors[place]
    was = _steps(bias)
    steps = _steps(graph.tensors[data])[0] * _steps(graph.tensors[weights])
    codes = _array(model, bias, np.int64 if bias.type == types.INT64 else np.int32)
    found = np.rint(codes * was / steps)
    # Sums of data of 16 bits have 64, and kernels for them want biases of as many.
    is_wide = graph.tensors[data].type == types.INT16
    bias.type = types.INT64 if is_wide else types.INT32
    _put(model, bias, found.astype(np.int64 if is_wide else np.int32))
    bias.quantization.scale = np.broadcast_to(steps, was.shape).astype(np.float32)
    bias.quantization.zeroPoint = np.zeros(was.size, np.int64)


def _widen(model: Flatbuffer) -> None:
    """Make data of 8 bits data of 16; where no kernel takes that, have it decoded before and encoded behind.

    The ranges lie evenly about zero, so that a step of 8 bits is one of 16 times 65535/255, and zero the code of zero.
    """
    for graph in model.subgraphs:
        layers = list(_layers(model, graph))
        kernels = {weights for _, (_, weights, _) in layers}
        known = {
            int(operator.outputs[0])
            for operator in graph.operators
            if _kind(model, operator) in _OF_KNOWN_STEP
        }
        for number, tensor in enumerate(graph.tensors):
            if tensor.type == _schema().TensorType.INT8 and number not in kernels:
                _widen_tensor(model, tensor, has_known_step=number in known)
        for operator, _ in layers:
            _scale_bias(model, graph, operator)
        for operator in list(graph.operators):
            if _kind(model, operator) not in _WITH_WIDE_KERNELS:
                _compute_in_float(model, graph, operator)


def _widen_tensor(model: Flatbuffer, tensor: Any, *, has_known_step: bool) -> None:
    quantization, was = tensor.quantization, float(_steps(tensor)[0])
    tensor.type = _schema().TensorType.INT16
    if _is_constant(model, tensor):
        codes = _array(model, tensor, np.int8).astype(np.float64)
        values = (codes - quantization.zeroPoint[0]) * was
        largest = max(float(np.abs(values).max(initial=0)), float(np.finfo(np.float32).tiny))
        step = largest / np.iinfo(np.int16).max
        _put(model, tensor, np.rint(values / step).astype(np.int16))
    elif has_known_step:
        step = 2.0**-15
    else:
        step = was * (2**8 - 1) / (2**_WIDE - 1)
    quantization.scale = np.asarray([step], np.float32)
    quantization.zeroPoint = np.zeros(1, np.int64)


def _compute_in_float(model: Flatbuffer, graph: Any, operator: Any) -> None:
    """Put an operation that decodes before one, and one that encodes behind it."""
    wide = _schema().TensorType.INT16
    place = next(n for n, one in enumerate(graph.operators) if one is operator)
    inputs, outputs, before, behind = [], [], [], []
    for number in map(int, operator.inputs):
        if number >= 0 and graph.tensors[number].type == wide:
            added = _float_like(graph, number)
            before.append(_operator(model, "DEQUANTIZE", number, added))
            number = added
        inputs.append(number)
    for number in map(int, operator.outputs):
        if graph.tensors[number].type == wide:
            added = _float_like(graph, number)
            behind.append(_operator(model, "QUANTIZE", added, number))
            number = added
        outputs.append(number)
    operator.inputs, operator.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
    graph.operators[place : place + 1] = [*before, operator, *behind]


def _leave_out_unread(model: Flatbuffer) -> None:
    """Take out what nothing reads any more, and what tells of the converter alone: small files are asked for."""
    for graph in model.subgraphs:
        read = {int(i) for side in (graph.inputs, graph.outputs) for i in side}
        for operator in graph.operators:
            between = () if operator.intermediates is None else operator.intermediates
            read |= {int(i) for i in (*operator.inputs, *operator.outputs, *between)}
        kept = sorted(read - {-1})
        moved = {old: new for new, old in enumerate(kept)} | {-1: -1}
        graph.tensors = [graph.tensors[i] for i in kept]
        for holder in (graph, *graph.operators):
            holder.inputs, holder.outputs = (
                np.asarray([moved[int(i)] for i in side], np.int32)
                for side in (holder.inputs, holder.outputs)
            )
        for operator in graph.operators:
            if operator.intermediates is not None:
                operator.intermediates = [moved[int(i)] for i in operator.intermediates]
    model.metadata = [one for one in model.metadata or () if one.name != _OF_CONVERSION]
    owners = [*(tensor for graph in model.subgraphs for tensor in graph.tensors), *model.metadata]
    for owner in owners:
        if not _is_constant(model, owner):
            owner.buffer = 0
    kept = sorted({0} | {owner.buffer for owner in owners})
    moved = {old: new for new, old in enumerate(kept)}
    for owner in owners:
        owner.buffer = moved[owner.buffer]
    model.buffers = [model.buffers[i] for i in kept]


def _shorten_names(graph: Any) -> None:
    """Leave of names what tells tensors apart: of those that were made one, the last; and not the model's own."""
    ends = {int(i) for side in (graph.inputs, graph.outputs) for i in side}
    inner = [tensor for place, tensor in enumerate(graph.tensors) if place not in ends]
    names = [tensor.name.decode().split(";")[0] for tensor in inner]
    scopes = {name.split("/")[0] for name in names if "/" in name}
    if len(scopes) == 1:
        names = [name.removeprefix(f"{min(scopes)}/") for name in names]
    for tensor, name in zip(inner, unique(names), strict=True):
        tensor.name = name.encode()


def _shorten_steps_of_biases(model: Flatbuffer, graph: Any) -> None:
    """Cut digits off that kernels never look at: they go by the steps of data and weights."""
    types = _schema().TensorType
    for place in {place for _, (_, _, place) in _layers(model, graph)} - {-1}:
        bias = graph.tensors[place]
        if bias.type in (types.INT32, types.INT64):
            bias.quantization.scale = short(_steps(bias))


# Flatbuffers


def _schema() -> Any:
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def _layers(model: Flatbuffer, graph: Any) -> Iterator[tuple[Any, tuple[int, int, int]]]:
    """Yield the operations that have kernels, with the places of their data, weights and bias."""
    for operator in graph.operators:
        if _kind(model, operator) in _PLACES:
            yield operator, _places(model, operator)


def _places(model: Flatbuffer, operator: Any) -> tuple[int, int, int]:
    """Return the places of a layer's data, weights and bias; -1 for a bias that it has not."""
    data, weights, bias = (
        int(operator.inputs[place]) if place < len(operator.inputs) else -1
        for place in _PLACES[_kind(model, operator)]
    )
    return data, weights, bias


def _operator(model: Flatbuffer, kind: str, given: int, result: int) -> Any:
    """Return a new operation of one operand."""
    schema = _schema()
    made = schema.OperatorT()
    made.inputs, made.outputs = np.asarray([given], np.int32), np.asarray([result], np.int32)
    made.opcodeIndex = _code_of(model, getattr(schema.BuiltinOperator, kind))
    return made


def _code_of(model: Flatbuffer, number: int) -> int:
    """Return the place of an operation among those that a flatbuffer uses, which it is added to."""
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return place
    code = _schema().OperatorCodeT()
    code.builtinCode, code.version = number, 1
    code.deprecatedBuiltinCode = min(number, 127)  # all that the field of the first readers holds
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _float_like(graph: Any, number: int) -> int:
    """Add a tensor of real numbers, of the sizes of another; return its place."""
    schema, like = _schema(), graph.tensors[number]
    made = schema.TensorT()
    made.name = like.name + b"_decoded"
    made.shape, made.shapeSignature, made.hasRank = like.shape, like.shapeSignature, like.hasRank
    made.type, made.buffer = schema.TensorType.FLOAT32, 0
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _is_constant(model: Flatbuffer, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _kind(model: Flatbuffer, operator: Any) -> str:
    """Return an operation's name, as TensorFlow Lite writes it."""
    code = model.operatorCodes[operator.opcodeIndex]
    return _names()[max(code.builtinCode, code.deprecatedBuiltinCode)]


@functools.cache
def _names() -> dict[int, str]:
    return {number: name for name, number in vars(_schema().BuiltinOperator).items()}


def _redirect(graph: Any, before: int, after: int) -> None:
    """Have all that read one tensor read another."""
    for holder, side in ((graph, "outputs"), *((o, "inputs") for o in graph.operators)):
        places = np.asarray(getattr(holder, side), np.int32)
        setattr(holder, side, np.where(places == before, np.int32(after), places))


def _steps(tensor: Any) -> NDArray[np.float64]:
    """Return what the codes of a tensor of integers are worth, one number or one for each channel."""
    return np.asarray(tensor.quantization.scale, np.float64)


def _array(model: Flatbuffer, tensor: Any, dtype: Any) -> NDArray[Any]:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    found: NDArray[Any] = data.view(dtype).reshape(list(tensor.shape))
    return found


def _put(model: Flatbuffer, tensor: Any, values: NDArray[Any]) -> None:
    """Give a tensor other values, in a buffer of its own: converters have equal ones share theirs."""
    buffer = _schema().BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
