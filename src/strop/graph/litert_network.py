"""The graph of a LiteRT flatbuffer: what is computed, what reads what, and which constants there are."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Flatbuffer = Any
"""A `ModelT` of LiteRT's own reader of the schema: a tree of plain objects that may be changed."""
_RANK = 4  # of what is padded


def read_flatbuffer(path: Path) -> Flatbuffer:
    """Return a flatbuffer as objects."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(path))


def write_flatbuffer(model: Flatbuffer, path: Path) -> None:
    """Write a flatbuffer down."""
    from ai_edge_litert.tools import flatbuffer_utils

    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


class Network:
    """The first graph of a flatbuffer.

    Attributes:
        outputs: The numbers of the tensors that it gives.
    """

    def __init__(self, model: Flatbuffer) -> None:
        from ai_edge_litert import schema_py_generated

        self._schema, self._model, self._graph = schema_py_generated, model, model.subgraphs[0]
        self._producers: dict[int, Any] = {}
        self.outputs = {int(n) for n in self._graph.outputs}
        for operator in self.operators:
            self.note(operator)

    @property
    def operators(self) -> list[Any]:
        """All operations, in the order of work."""
        found: list[Any] = self._graph.operators
        return found

    def kind(self, operator: Any) -> str:
        """Return what an operation is, as the schema names it."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        return _names()[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def name(self, number: int) -> str:
        """Return a tensor's name; of those that several layers made together, the first."""
        text: str = self._graph.tensors[int(number)].name.decode()
        return text.split(";")[0]

    def name_of(self, operator: Any) -> str:
        """Return the name of the tensor that an operation gives."""
        return self.name(operator.outputs[0])

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the sizes of a tensor; -1 for one that is left open."""
        tensor = self._graph.tensors[int(number)]
        sizes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return tuple(map(int, () if sizes is None else sizes))

    def note(self, operator: Any) -> None:
        """Take note of the tensors that an operation gives, which is new or gives others now."""
        self._producers |= {int(number): operator for number in operator.outputs}

    def producer(self, number: int) -> Any:
        """Return the operation that gives a tensor; None for an input or a constant."""
        return self._producers.get(int(number))

    def readers(self, number: int) -> list[Any]:
        """Return the operations that read a tensor."""
        return [one for one in self.operators if int(number) in map(int, one.inputs)]

    def given(self, operator: Any) -> list[int]:
        """Return the tensors that an operation reads and that are no constants, through a PAD before it."""
        found = []
        for number in map(int, operator.inputs):
            if number >= 0 and self.constant(number) is None:
                padding = self.producer(number)
                is_padded = padding is not None and self.kind(padding) == "PAD"
                found.append(int(padding.inputs[0]) if is_padded else number)
        return found

    def constant(self, number: int) -> NDArray[Any] | None:
        """Return a constant of real numbers or of whole ones; None for what is none, or stored in another way."""
        tensor = self._graph.tensors[int(number)]
        data = self._model.buffers[tensor.buffer].data
        types = self._schema.TensorType
        dtype = {types.FLOAT32: np.float32, types.INT32: np.int32, types.INT64: np.int64}
        if data is None or not len(data) or tensor.sparsity or tensor.type not in dtype:
            return None
        found = np.asarray(data, np.uint8).view(dtype[tensor.type])
        return found.reshape([int(n) for n in tensor.shape])

    def weights(self, operator: Any) -> NDArray[np.float32]:
        """Return the weights of an operation; none where they are stored in a way that `constant` does not read."""
        found = self.constant(operator.inputs[1])
        return np.zeros(0, np.float32) if found is None else found

    def pads_by_size(self, operator: Any) -> bool:
        """Say whether an operation has its padding counted with its input's size."""
        return bool(operator.builtinOptions.padding == self._schema.Padding.SAME)

    def padding(self, operator: Any) -> tuple[int, ...] | None:
        """Return what is padded above, below, left and right, by a PAD before it too; None where it can't be told."""
        options = operator.builtinOptions
        if self.pads_by_size(operator):
            found: list[int] = []
            steps = (options.strideH, options.strideW)
            kernel, sizes = (self.shape(operator.inputs[n])[1:3] for n in (1, 0))
            for size, step, width in zip(sizes, steps, kernel, strict=True):
                if size < 0 and step != 1:  # with steps of 1 it is the same for all sizes
                    return None
                total = max(width - 1 - (size - 1) % step, 0)
                found += [total // 2, total - total // 2]
            return tuple(found)
        before = self.producer(operator.inputs[0])
        if before is None or self.kind(before) != "PAD":
            return (0, 0, 0, 0)
        widths = self.constant(before.inputs[1])
        if widths is None or widths.shape != (_RANK, 2) or widths[[0, 3]].any():
            return (0, 0, 0, 0)
        return tuple(int(n) for n in widths[1:3].flat)


@functools.cache
def _names() -> dict[int, str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {number: name for name, number in vars(BuiltinOperator).items() if name.isupper()}
