"""LiteRT flatbuffers through ai-edge-quantizer: recipes, calibration, what stayed float."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ParameterError, QuantizationError
from strop.core.model import Binding, Model
from strop.core.samples import Samples
from strop.core.signature import Arrays
from strop.graph.litert import tensor
from strop.graph.quiet import quiet
from strop.graph.refusal import gist

# Operations with weights, whose staying in float is worth telling, and which of their inputs those are.
_WEIGHTS_AT = {
    "BATCH_MATMUL": 1, "BIDIRECTIONAL_SEQUENCE_LSTM": 2, "BIDIRECTIONAL_SEQUENCE_RNN": 1, "CONV_2D": 1, "CONV_3D": 1,
    "CONV_3D_TRANSPOSE": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "LSTM": 2, "RNN": 1, "SVDF": 1,
    "TRANSPOSE_CONV": 1, "UNIDIRECTIONAL_SEQUENCE_LSTM": 2, "UNIDIRECTIONAL_SEQUENCE_RNN": 1,
}  # fmt: skip
# Operations that look rows of a constant table up, and which of their inputs that is.
_TABLE_AT = {"EMBEDDING_LOOKUP": 1, "GATHER": 0}


def quantized(
    model: Model,
    path: Path,
    configure: Callable[[Any], None],
    *,
    calibration: Samples | None = None,
    ranges: dict[str, Any] | None = None,
    keep_float: Sequence[str] = (),
) -> Binding:
    """Write `model` quantized at `path`; return how the result spells the signature.

    Args:
        model: A float LiteRT model.
        path: Where to write.
        configure: Adds the rules to ai-edge-quantizer's `Quantizer`.
        calibration: Samples to find activations' ranges with, where the rules need any.
        ranges: Where calibration keeps what it finds, and looks first: one dictionary for one model, one set of
            rules and one set of samples spares all calibrations but the first. That first one must leave no more
            in float than those after it.
        keep_float: Names of layers (their output tensors) to leave in float.

    Raises:
        QuantizationError: If ai-edge-quantizer refuses.
        ParameterError: If a name of `keep_float` is no layer's.
    """
    with quiet():
        try:
            from ai_edge_quantizer import quantizer

            signed = _with_signature(model, path)
            work = quantizer.Quantizer(signed)
            configure(work)
            for name in _known(keep_float, model.path):
                work.update_quantization_recipe(
                    f"^{re.escape(name)};?$", "*", algorithm_key="no_quantize"
                )
            found = None
            if work.need_calibration:
                assert calibration is not None  # noqa: S101 - static rules come with samples
                found = dict(ranges or {}) or work.calibrate(
                    _calibration_data(model, signed, calibration), num_threads=2
                )
                if ranges is not None:
                    ranges.update(found)
            work.quantize(found).export_model(str(path), overwrite=True)
        except ParameterError:
            raise
        # The library raises errors of many kinds for what it can't do.
        except Exception as error:
            raise QuantizationError(
                f"ai-edge-quantizer refused the model: {gist(error)}"
            ) from error
    return rebound(path, model.binding)


@functools.lru_cache(maxsize=4)
def kept_ranges(model: str, samples: str) -> dict[str, Any]:
    """Return the dictionary in which this process keeps the ranges found in a model with samples, both by their digest."""
    return {}


def _with_signature(model: Model, beside: Path) -> str:
    """Return the path of `model` with a signature in the file, which calibration asks for by name.

    Files converted from a graph, or by other hands, may have none; a copy then gets one.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    content = tfl_flatbuffer_utils.read_model(str(model.path))
    if content.signatureDefs:
        return str(model.path)
    graph = content.subgraphs[0]

    def maps(kind: str, indices: Sequence[int]) -> list[Any]:
        entries = []
        for position, index in enumerate(indices):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = f"{kind}_{position}".encode(), int(index)
            entries.append(entry)
        return entries

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = maps("input", graph.inputs)
    signature.outputs = maps("output", graph.outputs)
    content.signatureDefs = [signature]
    target = beside.with_name("with_signature.tflite")
    tfl_flatbuffer_utils.write_model(content, str(target))
    return str(target)


def _known(names: Iterable[str], path: Path) -> Iterable[str]:
    layers = set(operations_of(path))
    stray = [name for name in names if name not in layers]
    if stray:
        raise ParameterError(f"keep_float: no layer is called {', '.join(map(repr, stray))}")
    return names


def _calibration_data(model: Model, path: str, samples: Samples) -> dict[str, list[Arrays]]:
    """Return samples by the names in the file's signature, one batch at a time as the file takes them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    signatures = interpreter._get_full_signature_list()
    key = next(iter(signatures))
    details = interpreter.get_input_details()
    by_index = {index: name for name, index in signatures[key]["inputs"].items()}
    names = [by_index[details[bound.index]["index"]] for bound in model.binding.inputs]
    size = model.binding.batch or 1

    def feed() -> Iterator[Arrays]:
        for arrays in samples.full_batches(size):
            bound = zip(model.binding.inputs, arrays.values(), strict=True)
            encoded = [b.encode(np.ascontiguousarray(array)) for b, array in bound]
            yield dict(zip(names, encoded, strict=True))

    return {key: list(feed())}  # it is gone through more than once


def rebound(path: Path, before: Binding) -> Binding:
    """Return the binding of a quantized file whose inputs and outputs stand where they stood before."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    return Binding(
        tuple(tensor(ins, bound.index) for bound in before.inputs),
        tuple(tensor(outs, bound.index) for bound in before.outputs),
        before.batch,
    )


def layers_of(path: Path) -> list[tuple[str, bool]]:
    """Return name (of the output tensor) and whether it computes or keeps its weights in float, for each layer with weights.

    Those within loops and branches count as the others do.
    """
    return [
        (operation.name, operation.is_float_at(_WEIGHTS_AT[operation.kind]))
        for operation in _operations(path)
        if operation.kind in _WEIGHTS_AT
    ]


def _float_tables_of(path: Path) -> list[str]:
    """Return the names (of the output tensors) of look-ups in a table of real numbers."""
    return [
        operation.name
        for operation in _operations(path)
        if operation.kind in _TABLE_AT
        and operation.is_float_at(_TABLE_AT[operation.kind])
        and operation.is_constant_at(_TABLE_AT[operation.kind])
    ]


@dataclass(frozen=True)
class _Operation:
    """One operation of a flatbuffer, in whichever of its subgraphs.

    Attributes:
        kind: As TensorFlow Lite calls it (``CONV_2D``).
        name: Of its first output.
        inputs: The tensors that it reads; None where one is left out. What is unpacked at each call stands as it is kept.
        content: The flatbuffer.
    """

    kind: str
    name: str
    inputs: tuple[Any, ...]
    content: Any

    def is_float_at(self, place: int) -> bool:
        """Say whether an input is there and of 32-bit real numbers."""
        from ai_edge_litert.schema_py_generated import TensorType

        given = self.inputs[place] if place < len(self.inputs) else None
        if given is None:
            return False
        return bool(given.Type() == TensorType.FLOAT32)

    def is_constant_at(self, place: int) -> bool:
        """Say whether an input's values are in the file."""
        buffer = self.content.Buffers(self.inputs[place].Buffer())
        # Beyond 2 GB the values stand behind the flatbuffer, which tells their size alone.
        return bool(buffer.DataLength() or buffer.Size())


def _operations(path: Path) -> Iterator[_Operation]:
    """Yield the operations of all subgraphs; nothing of the weights is read."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {code: kind for kind, code in vars(schema.BuiltinOperator).items()}
    content = schema.Model.GetRootAs(np.memmap(path, np.uint8, "r"))
    for number in range(content.SubgraphsLength()):
        graph = content.Subgraphs(number)
        unpacked: dict[int, int] = {}
        for place in range(graph.OperatorsLength()):
            found = graph.Operators(place)
            code = content.OperatorCodes(found.OpcodeIndex())
            kind = kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "")
            inputs = [int(found.Inputs(i)) for i in range(found.InputsLength())]
            if kind == "DEQUANTIZE":
                unpacked[int(found.Outputs(0))] = inputs[0]
            if found.OutputsLength():
                tensors = (graph.Tensors(unpacked.get(i, i)) if i >= 0 else None for i in inputs)
                name = graph.Tensors(found.Outputs(0)).Name().decode()
                yield _Operation(kind, name, tuple(tensors), content)


def operations_of(path: Path) -> list[str]:
    """Return the names (of the output tensors) of all operations on floats, in the order in which they run.

    Not only layers with weights lose precision: an addition or a softmax whose output is int8 may cost most.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=_plain_resolver()
    )
    tensors = {details["index"]: details for details in interpreter.get_tensor_details()}
    outputs = [tensors[int(op["outputs"][0])] for op in interpreter._get_ops_details()]
    return [details["name"] for details in outputs if details["dtype"] == np.float32]


def _plain_resolver() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    # With XNNPACK on, the operations it took over are one opaque node.
    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def left_in_float(
    path: Path, asked: Sequence[str], *, reason: str = "the quantizer has no rule for it"
) -> dict[str, str]:
    """Return the layers and tables whose weights are still float32, each with the reason; `reason` for want of another."""
    found = {name: reason for name, is_float in layers_of(path) if is_float}
    tables = dict.fromkeys(
        _float_tables_of(path), "a table that rows are looked up in, which the quantizer leaves"
    )
    return {**found, **tables, **dict.fromkeys(asked, "asked for")}


def answers(model: Model, samples: Samples) -> list[NDArray[Any]]:
    """Return the outputs for `samples`, decoded; the first ones again where a fixed batch has places left."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model.path))
    size = model.binding.batch or len(samples)
    outputs = interpreter.get_output_details()
    results = []
    for arrays in samples.full_batches(size):
        _feed(interpreter, model.binding, arrays)
        interpreter.invoke()
        results.append(
            [
                bound.decode(interpreter.get_tensor(outputs[bound.index]["index"]), "float32")
                for bound in model.binding.outputs
            ]
        )
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def _feed(interpreter: Any, binding: Binding, arrays: Arrays) -> None:
    details = interpreter.get_input_details()
    for bound, array in zip(binding.inputs, arrays.values(), strict=True):
        if tuple(details[bound.index]["shape"]) != array.shape:
            interpreter.resize_tensor_input(details[bound.index]["index"], array.shape)
    interpreter.allocate_tensors()
    for bound, array in zip(binding.inputs, arrays.values(), strict=True):
        encoded = bound.encode(np.ascontiguousarray(array))
        interpreter.set_tensor(details[bound.index]["index"], encoded)
