"""What tf2onnx made of a taught graph, put right: weights in the codes that were taught.

tf2onnx writes weights as real numbers, whatever they were; ONNX Runtime wants them decoded from codes, by a
DequantizeLinear, for its integer kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.graph.coded_weights import CodedWeights

# The axis of output channels, of a kernel as ONNX has it.
_CHANNELS = {"Conv": 0, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}


def put_codes(path: Path, kernels: Sequence[CodedWeights]) -> None:
    """Have the ONNX file at `path` hold codes where it holds what they stand for."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    readers = {name: node for node in graph.node for name in node.input}
    decoding = []
    for tensor in list(graph.initializer):
        reader = readers.get(tensor.name)
        if reader is None or reader.op_type not in _CHANNELS:
            continue
        values = numpy_helper.to_array(tensor)
        axis = _CHANNELS[reader.op_type] % values.ndim
        found = _codes_of(values, axis, kernels)
        if found is None:
            continue
        name, (codes, steps) = tensor.name, found
        graph.initializer.remove(tensor)
        arrays: dict[str, NDArray[Any]] = {
            f"{name}_codes": codes,
            f"{name}_steps": steps,
            f"{name}_zeros": np.zeros(steps.size, np.int8),
        }
        graph.initializer.extend(numpy_helper.from_array(a, part) for part, a in arrays.items())
        decoding.append(
            onnx.helper.make_node(
                "DequantizeLinear", list(arrays), [name], name=f"{name}_decoded", axis=axis
            )
        )
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*decoding, *others])
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _codes_of(
    values: NDArray[Any], axis: int, kernels: Sequence[CodedWeights]
) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Return codes and steps of the kernel whose values these are; None where there is none."""
    for kernel in kernels:
        if kernel.codes.size != values.size or kernel.rows.shape[0] != values.shape[axis]:
            continue
        for codes in _arrangements(kernel, values.shape):
            steps = kernel.steps.reshape(-1)
            along = steps.reshape([-1 if n == axis else 1 for n in range(values.ndim)])
            if np.allclose(codes * along, values, rtol=1e-6, atol=0):
                return np.ascontiguousarray(codes), steps
    return None


def _arrangements(kernel: CodedWeights, shape: Sequence[int]) -> Iterator[NDArray[np.int8]]:
    """Yield a kernel's codes as ONNX may have them: as TensorFlow has them, or with channels before places."""
    codes = kernel.codes
    if codes.ndim > 2:
        # Both of output channels and input channels lie last in TensorFlow, in either order.
        for order in ((-1, -2), (-2, -1)):
            axes = [axis % codes.ndim for axis in order]
            yield np.transpose(codes, [*axes, *range(codes.ndim - 2)]).reshape(shape)
    else:
        yield codes.reshape(shape)
