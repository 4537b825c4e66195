"""ONNX models through ONNX Runtime's quantizers: preparing, calibrating, what stayed float."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ParameterError, QuantizationError, StropError
from strop.core.model import Model
from strop.core.samples import Samples
from strop.graph.quiet import quiet
from strop.graph.refusal import gist

_WEIGHTY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU"}
_INTEGER = {
    "QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM", "MatMulIntegerToFloat",
}  # fmt: skip
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def prepared(model: Model, workspace: Path) -> Path:
    """Return a copy of the model with shapes inferred and its graph simplified, as ONNX Runtime's quantizers want it.

    Every node has a name in it: one can be left in float by its name alone. Where shape inference fails (it does for
    some loops) and all nodes have names, the model itself is returned.
    """
    return _with_names(_simplified(model, workspace), workspace)


def _simplified(model: Model, workspace: Path) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, target = model.path.absolute(), workspace.absolute() / "prepared.onnx"
    try:
        # Where it fails, the inference leaves the whole model in the current folder, which is the user's.
        with contextlib.chdir(workspace):
            quant_pre_process(str(source), str(target), skip_symbolic_shape=False)
    # Symbolic shape inference raises whatever its parts raise; quantizing works without it, if less well.
    except Exception:  # noqa: BLE001
        return model.path
    return target


def _with_names(path: Path, workspace: Path) -> Path:
    import onnx

    if all(node.name for node in onnx.load(str(path), load_external_data=False).graph.node):
        return path
    content = onnx.load(str(path))
    for node in content.graph.node:
        # Outputs are each another's; the prefix keeps them apart from names that are there.
        node.name = node.name or f"unnamed/{_name(node)}"
    onnx.save(content, str(workspace / "named.onnx"))
    return workspace / "named.onnx"


def is_quantized(path: Path) -> bool:
    """Say whether the model at `path` has quantized values in it already."""
    import onnx

    content = onnx.load(str(path), load_external_data=False)
    return any(node.op_type.startswith(_QUANTIZING) for node in content.graph.node)


def guarded(quantize: Callable[[], None]) -> None:
    """Run a quantizer quietly; what it raises becomes an error of ours.

    Raises:
        QuantizationError: If it refuses.
    """
    with quiet():
        try:
            quantize()
        except StropError:
            raise
        # The quantizers raise errors of many kinds for what they can't do.
        except Exception as error:
            raise QuantizationError(
                f"ONNX Runtime's quantizer refused the model: {type(error).__name__}: {gist(error)}"
            ) from error


def reader(model: Model, samples: Samples, *, stride: int | None = None) -> Any:
    """Return a calibration reader over samples, one batch at a time as the model takes them.

    Args:
        model: What is to be calibrated.
        samples: What it is fed.
        stride: How many batches may be asked for at once; None for all. ONNX Runtime wants all strides full, so what
            is left over is left out. The reader's own `stride` is what that comes to.
    """
    from onnxruntime.quantization import CalibrationDataReader

    size = model.binding.batch or 1
    feeds = [
        {
            bound.name: bound.encode(np.ascontiguousarray(array))
            for bound, array in zip(model.binding.inputs, arrays.values(), strict=True)
        }
        for arrays in samples.full_batches(size)
    ]

    step = min(stride or 0, len(feeds)) or None
    if step:
        del feeds[len(feeds) // step * step :]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        stride = step

        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._feeds, None)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._feeds = iter(feeds[start_index:end_index])

        def __len__(self) -> int:
            return len(feeds)

    return Reader()


def node_names(path: Path, outputs: Sequence[str]) -> list[str]:
    """Return the names of the nodes that make the given tensors.

    Raises:
        ParameterError: If a tensor is no layer's output.
    """
    import onnx

    made_by = {out: node.name for node in onnx.load(str(path)).graph.node for out in node.output}
    stray = [name for name in outputs if name not in made_by]
    if stray:
        raise ParameterError(f"keep_float: no layer is called {', '.join(map(repr, stray))}")
    return [made_by[name] for name in outputs]


def layers_of(path: Path) -> list[tuple[str, bool]]:
    """Return name (of the output tensor) and whether it computes in float, for each layer with weights."""
    import onnx

    return [(_name(node), is_float) for node, is_float in _layers(onnx.load(str(path)).graph)]


def _name(node: Any) -> str:
    """Return what a node goes by: its first output that anybody may read (an LSTM's first is often left out)."""
    return str(next(filter(None, node.output), ""))


def _layers(graph: Any) -> Iterator[tuple[Any, bool]]:
    """Yield each node with weights, and whether it computes in float."""
    made_by = {out: node for node in graph.node for out in node.output}
    for node in graph.node:
        if node.op_type in _INTEGER:
            yield node, False
        elif node.op_type in _WEIGHTY:
            origin = made_by.get(node.input[1])
            # Where the weights come out of a DequantizeLinear, the engine fuses the three into one integer kernel.
            yield node, origin is None or origin.op_type != "DequantizeLinear"


def operations_of(path: Path) -> list[str]:
    """Return the names (of the output tensors) of all operations that could be quantized, in the order in which they run.

    Not only layers with weights lose precision: an addition or a softmax whose output is int8 may cost most.
    """
    import onnx
    from onnxruntime.quantization.registry import QDQRegistry

    kinds = set(QDQRegistry) | {"Softmax", "Add", "Mul"}
    return [node.output[0] for node in onnx.load(str(path)).graph.node if node.op_type in kinds]


def left_in_float(
    path: Path, asked: Sequence[str], *, reasons: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the layers and tables still in float, and the loops and branches that hold such, each with the reason.

    Args:
        path: The quantized model.
        asked: Layers that somebody wanted in float.
        reasons: Why operations of a kind were left alone on purpose, by their type (``Conv``).
    """
    import onnx

    graph = onnx.load(str(path)).graph
    why = reasons or {}
    found = {
        _name(node): why.get(node.op_type, "the quantizer has no integer kernel for it")
        for node, is_float in _layers(graph)
        if is_float
    }
    unseen = {
        _name(node): f"a {node.op_type}, which the quantizer does not look into"
        for node in graph.node
        if _holds_float_layers(node)
    }
    tables = {
        _name(node): "a table that rows are looked up in, which the quantizer leaves"
        for node in _float_tables(graph)
    }
    everything = {**found, **unseen, **tables}
    return {n: "asked for" if n in asked else reason for n, reason in everything.items()}


def _float_tables(graph: Any) -> Iterator[Any]:
    """Yield each node that looks rows of a constant matrix of real numbers up."""
    import onnx

    matrices = {
        weight.name
        for weight in graph.initializer
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1
    }
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in matrices:
            yield node


def left_in_single(path: Path, kinds: Collection[str]) -> dict[str, str]:
    """Return the operations of a model in half precision that still compute in 32 bits, each with the reason.

    Args:
        path: The model.
        kinds: The types of operation that the converter leaves alone.
    """
    import onnx

    found = {}
    for graph in _graphs(onnx.load(str(path)).graph):
        # The converter casts what such a node gives, and the cast bears the name that the node's output had.
        cast = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Cast"}
        for node in graph.node:
            if node.op_type in kinds and set(node.input) & _single(graph):
                name = cast.get(_name(node), _name(node))
                found[name] = f"the converter leaves {node.op_type} in 32 bits"
    return found


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and all graphs within it: bodies of loops, and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _single(graph: Any) -> set[str]:
    """Return the names of the constants in 32 bits, and of what is cast to 32 bits."""
    import onnx

    single = onnx.TensorProto.FLOAT
    cast = (
        node.output[0]
        for node in graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == single for a in node.attribute)
    )
    return {w.name for w in graph.initializer if w.data_type == single} | set(cast)


def _holds_float_layers(node: Any) -> bool:
    return any(
        any(is_float for _, is_float in _layers(attribute.g))
        or any(map(_holds_float_layers, attribute.g.node))
        for attribute in node.attribute
        if attribute.HasField("g")
    )


def answers(path: Path, model: Model, samples: Samples) -> list[NDArray[Any]]:
    """Return the outputs for `samples`; the first ones again where a fixed batch has places left.

    Args:
        path: The file to run, `model` itself or made of it.
        model: What says how inputs and outputs are spelled.
        samples: Inputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    size = model.binding.batch or len(samples)
    names = [bound.name for bound in model.binding.outputs]
    results = [
        session.run(
            names,
            {
                bound.name: bound.encode(np.ascontiguousarray(array))
                for bound, array in zip(model.binding.inputs, arrays.values(), strict=True)
            },
        )
        for arrays in samples.full_batches(size)
    ]
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]
