"""OpenVINO models through NNCF: calibration sets, what stayed float."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ParameterError, QuantizationError, StropError
from strop.core.model import Binding, Model
from strop.core.samples import Samples
from strop.graph.quiet import quiet
from strop.graph.refusal import gist

_WEIGHTY = {
    "Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "GRUSequence",
    "LSTMSequence", "MatMul",
}  # fmt: skip
_FLOAT_BITS = 32
_LOOPS = {"Loop", "TensorIterator"}
# They move numbers and compute none, so that what was quantized before them still is behind them.
_MOVING = {
    "Broadcast", "DepthToSpace", "Gather", "MaxPool", "Pad", "Reshape", "ReverseSequence", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "StridedSlice", "Tile", "Transpose", "Unsqueeze", "VariadicSplit",
}  # fmt: skip
# Between the two products of an attention: what scales, masks and rearranges the scores.
_SCORING = {"Add", "Convert", "Divide", "Multiply", "Select", "Softmax", "Subtract", *_MOVING}
_PRODUCTS = {"Einsum", "MatMul"}
# What NNCF leaves in float in transformers, by OpenVINO's names: all that computes and has no weights.
_ELEMENTWISE = (
    "Add", "AvgPool", "BatchNormInference", "Divide", "GroupNormalization", "Maximum", "Multiply", "MVN", "Power",
    "ReduceL2", "ReduceMean", "ReduceSum", "Sqrt", "SquaredDifference", "Squeeze", "Subtract",
)  # fmt: skip


def changed(model: Model, path: Path, change: Callable[[Any], Any]) -> None:
    """Write at `path` what `change` makes of the model's graph.

    Raises:
        QuantizationError: If NNCF refuses.
    """
    # NNCF asks for this at its import, and would send statistics otherwise.
    os.environ.setdefault("NNCF_TELEMETRY", "0")
    with quiet():
        try:
            import openvino

            from strop.graph.openvino_naming import settle_names

            given = openvino.Core().read_model(str(model.path))
            known = {operation.get_friendly_name() for operation in given.get_ops()}
            result = change(given)
            settle_names(result, known)
            openvino.save_model(result, str(path), compress_to_fp16=False)
        except StropError:
            raise
        # NNCF raises errors of many kinds for what it can't do.
        except Exception as error:
            raise QuantizationError(f"NNCF refused the model: {gist(error)}") from error


def dataset(model: Model, samples: Samples) -> Any:
    """Return an NNCF dataset over samples, one batch at a time as the model takes them."""
    import nncf

    def feed(arrays: Any) -> dict[int, NDArray[Any]]:
        return {
            bound.index: bound.encode(np.ascontiguousarray(array))
            for bound, array in zip(model.binding.inputs, arrays.values(), strict=True)
        }

    return nncf.Dataset(list(samples.full_batches(model.binding.batch or 1)), feed)


def ignored(graph: Any, names: Sequence[str], *, elementwise: bool = False) -> Any:
    """Return NNCF's scope of layers to leave alone; None for none.

    Args:
        graph: What is to be quantized.
        names: Layers, by name.
        elementwise: Whether to leave alone whatever adds, multiplies and averages, too.

    Raises:
        ParameterError: If a name is no layer's.
    """
    import nncf

    known = {operation.get_friendly_name() for operation in graph.get_ops()}
    stray = [name for name in names if name not in known]
    if stray:
        raise ParameterError(f"keep_float: no layer is called {', '.join(map(repr, stray))}")
    if not names and not elementwise:
        return None
    kinds = list(_ELEMENTWISE) if elementwise else []
    # Not validated by NNCF: it would refuse a graph that has not all of the kinds.
    return nncf.IgnoredScope(names=list(names), types=kinds, validate=False)


def has_attention(path: Path) -> bool:
    """Say whether the graph has attention: a softmax between two products of computed matrices."""
    import openvino

    for operation in openvino.Core().read_model(str(path)).get_ops():
        kind = operation.get_type_name()
        if kind == "ScaledDotProductAttention" or (
            kind == "Softmax"
            and _finds_product(operation, _sources)
            and _finds_product(operation, _readers)
        ):
            return True
    return False


def _finds_product(start: Any, step: Callable[[Any], list[Any]]) -> bool:
    """Say whether one comes from `start` to a product of computed matrices over nothing but scoring."""
    open_ends, seen = step(start), set()
    while open_ends:
        node = open_ends.pop()
        kind, name = node.get_type_name(), node.get_friendly_name()
        if kind in _PRODUCTS and not any(map(_is_constant, _sources(node))):
            return True
        if kind in _SCORING and name not in seen:
            seen.add(name)
            open_ends += step(node)
    return False


def _sources(node: Any) -> list[Any]:
    return [node.input_value(i).get_node() for i in range(node.get_input_size())]


def _readers(node: Any) -> list[Any]:
    return [place.get_node() for output in node.outputs() for place in output.get_target_inputs()]


def layers_of(path: Path) -> list[tuple[str, bool]]:
    """Return name and whether it computes in float, for each layer with weights, in the order in which they run."""
    computing = _computing_on_quantized(path)
    return [(name, not is_quantized) for name, kind, is_quantized in computing if kind in _WEIGHTY]


def quantized_operations_of(path: Path) -> list[str]:
    """Return the names of all operations that compute on something quantized, in the order in which they run.

    Not only layers with weights lose precision: an addition whose inputs are int8 may cost most.
    """
    return [name for name, _, is_quantized in _computing_on_quantized(path) if is_quantized]


def _computing_on_quantized(path: Path) -> list[tuple[str, str, bool]]:
    """Return name, kind and whether its data is quantized, for each operation that computes, in their order."""
    import openvino

    quantized, found = set(), []
    for operation in openvino.Core().read_model(str(path)).get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        reads_quantized = any(s.get_friendly_name() in quantized for s in _sources(operation))
        if kind == "FakeQuantize" or (kind in _MOVING and reads_quantized):
            quantized.add(name)
        elif kind not in ("Constant", "Convert", "Result", *_MOVING):
            found.append((name, kind, reads_quantized))
    return found


def left_in_float(path: Path, asked: Sequence[str]) -> dict[str, str]:
    """Return the layers and tables still in float, and the loops that hold such, each with the reason."""
    import openvino

    operations = openvino.Core().read_model(str(path)).get_ordered_ops()
    found = {
        name: "the quantizer has no rule for it" for name, is_float in layers_of(path) if is_float
    }
    tables = {
        operation.get_friendly_name(): "a table that rows are looked up in, which the quantizer leaves"
        for operation in operations
        if operation.get_type_name() == "Gather" and _bits_of_weights(operation) == _FLOAT_BITS
    }
    return {**found, **_loops(operations), **tables, **dict.fromkeys(asked, "asked for")}


def not_compressed(path: Path, bits: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return what of a model with compressed weights has them in float, and what in more bits than asked for.

    Args:
        path: The compressed model.
        bits: The width that was asked for.

    Returns:
        Two dictionaries, from an operation's name to the reason.
    """
    import openvino

    operations = openvino.Core().read_model(str(path)).get_ordered_ops()
    widths = {
        operation.get_friendly_name(): _bits_of_weights(operation)
        for operation in operations
        if operation.get_type_name() in _WEIGHTY | {"Gather"}
    }
    left = {n: "NNCF has no rule for it" for n, width in widths.items() if width == _FLOAT_BITS}
    wider = {
        name: f"in {width} bits, as NNCF has tables and the last layer, which lose most by fewer"
        for name, width in widths.items()
        if bits < width < _FLOAT_BITS
    }
    return {**left, **_loops(operations)}, wider


def _loops(operations: Sequence[Any]) -> dict[str, str]:
    loops = [node.get_friendly_name() for node in operations if _is_loop_with_layers(node)]
    return dict.fromkeys(loops, "a loop, which the quantizer does not look into")


def _bits_of_weights(operation: Any) -> int:
    """Return the width of the largest matrix of real numbers that an operation reads as a constant; 0 without any."""
    leaves = [leaf for source in _sources(operation) for leaf in _matrices(source)]
    largest = max(leaves, key=lambda leaf: math.prod(leaf.get_shape()), default=None)
    if largest is None:
        return 0
    kind = largest.get_element_type()
    # Whole numbers of many bits are numbers and no weights in codes.
    return int(kind.bitwidth) if kind.is_real() or kind.bitwidth <= 8 else 0


def _matrices(node: Any) -> list[Any]:
    """Return the constants of two axes and more that a constant input is unpacked from; none for a computed one."""
    if node.get_type_name() == "Constant":
        return [node] if len(node.get_shape()) > 1 else []
    if not _is_constant(node):
        return []
    return [leaf for source in _sources(node) for leaf in _matrices(source)]


def _is_loop_with_layers(operation: Any) -> bool:
    return operation.get_type_name() in _LOOPS and any(
        inner.get_type_name() in _WEIGHTY or _is_loop_with_layers(inner)
        for inner in operation.get_function().get_ops()
    )


def answers(
    path: Path,
    binding: Binding,
    samples: Samples,
    *,
    quantized: Path | None = None,
    only: Sequence[str] = (),
) -> list[NDArray[Any]]:
    """Return a float graph's outputs for one batch, with the operations `only` as they are in the `quantized` graph.

    Their ranges and rounded weights are copied over, which takes compiling a graph and not quantizing one.
    """
    import openvino

    core = openvino.Core()
    graph = core.read_model(str(path))
    if quantized is not None:
        donor = core.read_model(str(quantized))
        donors = {operation.get_friendly_name(): operation for operation in donor.get_ops()}
        for operation in graph.get_ordered_ops():
            name = operation.get_friendly_name()
            if name in only and name in donors:
                _quantize_alike(operation, donors[name])
                _correct_alike(operation, donors[name])
    size = binding.batch or min(len(samples), 16)
    arrays = next(samples.full_batches(size))
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(
        {
            bound.index: bound.encode(np.ascontiguousarray(array))
            for bound, array in zip(binding.inputs, arrays.values(), strict=True)
        }
    )
    return [np.array(results[bound.index]) for bound in binding.outputs]


def _quantize_alike(operation: Any, donor: Any) -> None:
    """Give an operation the quantized inputs of its counterpart in a quantized graph."""
    from openvino import opset13

    for index in range(min(operation.get_input_size(), donor.get_input_size())):
        source = donor.input_value(index).get_node()
        while source.get_type_name() in _MOVING:
            source = source.input_value(0).get_node()
        if _is_constant(source):
            value = _folded(source)
            if list(value.shape) == list(operation.get_input_shape(index)):
                operation.input(index).replace_source_output(opset13.constant(value).output(0))
        elif source.get_type_name() == "FakeQuantize":
            data = operation.input_value(index)
            before = source.input_value(0).get_node()
            if "smooth_quant" in before.get_friendly_name():  # weights were scaled the other way
                data = opset13.multiply(data, _folded(before.input_value(1).get_node())).output(0)
            ranges = [_folded(source.input_value(place).get_node()) for place in range(1, 5)]
            levels = source.get_attributes()["levels"]
            made = opset13.fake_quantize(data, *map(_scalar_if_one, ranges), levels)
            operation.input(index).replace_source_output(made.output(0))


def _correct_alike(operation: Any, donor: Any) -> None:
    """Give the bias behind an operation the correction that its counterpart's has."""
    from openvino import opset13

    ours, theirs = _bias_of(operation), _bias_of(donor)
    if ours and theirs and list(ours.get_shape()) == list(theirs.get_shape()):
        ours.replace_source_output(
            opset13.constant(_folded(theirs.get_source_output().get_node())).output(0)
        )


def _bias_of(operation: Any) -> Any:
    """Return the input that adds a constant to an operation's result; None without."""
    (first, *others) = operation.output(0).get_target_inputs()
    add = first.get_node()
    if others or add.get_type_name() != "Add":
        return None
    return next(
        (place for place in add.inputs() if _is_constant(place.get_source_output().get_node())),
        None,
    )


def _is_constant(node: Any) -> bool:
    """Say whether a node's value is known without inputs: weights, kept as integers with their scale."""
    if node.get_type_name() == "Constant":
        return True
    sources = _sources(node)
    return bool(sources) and all(map(_is_constant, sources))


def _folded(node: Any) -> NDArray[Any]:
    import openvino

    graph = openvino.Model([node.output(0)], [], "weights")
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([])[0])


def _scalar_if_one(value: NDArray[Any]) -> NDArray[Any]:
    """Return one number as a scalar, since its rank is that of where it was found."""
    return value.reshape(()) if value.size == 1 else value
