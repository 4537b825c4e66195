"""OpenVINO models through NNCF: calibration sets, what stayed float."""

from __future__ import annotations

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

_WEIGHTY = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}


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
            gist = next(
                (ln for ln in str(error).splitlines() if ln.strip()),
                type(error).__name__,
            )
            raise QuantizationError(f"NNCF refused the model: {gist[:300]}") from error


def dataset(model: Model, samples: Samples) -> Any:
    """Return an NNCF dataset over samples, one batch at a time as the model takes them."""
    import nncf

    size = model.binding.batch or 1
    batches = [b for b in samples.batches(size) if len(next(iter(b.values()))) == size]

    def feed(arrays: Any) -> dict[int, NDArray[Any]]:
        return {
            bound.index: bound.encode(np.ascontiguousarray(array))
            for bound, array in zip(model.binding.inputs, arrays.values(), strict=True)
        }

    return nncf.Dataset(batches, feed)


def ignored(graph: Any, names: Sequence[str]) -> Any:
    """Return NNCF's scope of layers to leave alone; None for none.

    Raises:
        ParameterError: If a name is no layer's.
    """
    import nncf

    known = {operation.get_friendly_name() for operation in graph.get_ops()}
    stray = [name for name in names if name not in known]
    if stray:
        raise ParameterError(f"keep_float: no layer is called {', '.join(map(repr, stray))}")
    return nncf.IgnoredScope(names=list(names)) if names else None


def layers_of(path: Path) -> list[tuple[str, bool]]:
    """Return name and whether it computes in float, for each layer with weights, in the order in which they run."""
    import openvino

    found = []
    for operation in openvino.Core().read_model(str(path)).get_ordered_ops():
        if operation.get_type_name() not in _WEIGHTY:
            continue
        data = operation.input_value(0).get_node()
        # Reshapes and the like may lie between a layer and the quantization of its input.
        while data.get_type_name() in ("Reshape", "Transpose", "Squeeze", "Unsqueeze"):
            data = data.input_value(0).get_node()
        found.append((operation.get_friendly_name(), data.get_type_name() != "FakeQuantize"))
    return found


def quantized_operations_of(path: Path) -> list[str]:
    """Return the names of all operations that read something quantized, in the order in which they run.

    Not only layers with weights lose precision: an addition whose inputs are int8 may cost most.
    """
    import openvino

    names = []
    for operation in openvino.Core().read_model(str(path)).get_ordered_ops():
        sources = [operation.input_value(i).get_node() for i in range(operation.get_input_size())]
        if any(source.get_type_name() == "FakeQuantize" for source in sources):
            names.append(operation.get_friendly_name())
    return names


def left_in_float(path: Path, asked: Sequence[str]) -> dict[str, str]:
    """Return the layers that still compute in float, each with the reason."""
    found = {
        name: "the quantizer has no rule for it" for name, is_float in layers_of(path) if is_float
    }
    return {**found, **dict.fromkeys(asked, "asked for")}


def errors_by_layer(
    before: Path, after: Path, binding: Binding, samples: Samples
) -> list[tuple[str, float]]:
    """Return the relative error of each quantized operation's output, in the order in which they run."""
    from strop.numerics.similarity import relative_error

    names = quantized_operations_of(after)
    one, other = (_activations(path, names, binding, samples) for path in (before, after))
    return [
        (name, relative_error(one[name], other[name]))
        for name in names
        if name in one and name in other and one[name].shape == other[name].shape
    ]


def _activations(
    path: Path, names: Sequence[str], binding: Binding, samples: Samples
) -> dict[str, NDArray[Any]]:
    """Return the named layers' outputs for one batch."""
    import openvino

    core = openvino.Core()
    graph = core.read_model(str(path))
    by_name = {operation.get_friendly_name(): operation for operation in graph.get_ops()}
    wanted = [name for name in names if name in by_name]
    count = len(graph.outputs)
    graph.add_outputs([by_name[name].output(0) for name in wanted])
    size = binding.batch or min(len(samples), 16)
    arrays = next(samples.batches(size))
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(
        {
            bound.index: bound.encode(np.ascontiguousarray(array))
            for bound, array in zip(binding.inputs, arrays.values(), strict=True)
        }
    )
    return {name: np.array(results[count + i]) for i, name in enumerate(wanted)}
