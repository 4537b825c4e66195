"""Weights in LiteRT flatbuffers written sparsely, and what has to be written beside them for kernels to skip their zeros.

Which kernels do stands in `strop.graph.litert_zeros`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.graph.litert_network import Flatbuffer, Network
from strop.graph.litert_zeros import BLOCK, Layer, Part

# The version of FULLY_CONNECTED that has sparse weights. XNNPACK takes all before it, and takes these for dense.
_OF_SPARSE = 8
_MOST_IN_OLD_FIELD = 127


def write_sparsely(
    model: Flatbuffer, *, whole: Iterable[Layer], blocks: Iterable[Layer], part: Part | None
) -> None:
    """Store weights without their zeros, in place.

    Args:
        model: The flatbuffer.
        whole: Layers whose kernels want all weights, which the engine restores when it loads the model.
        blocks: Dense layers whose kernel takes them as they are, in blocks.
        part: What XNNPACK is to compute with sparse kernels; its layers among `whole`.
    """
    writing = _Writing(model)
    if part is not None:
        for operator in part.unspelled:
            writing.spell_padding(operator)
        for operator in part.ends:
            writing.end_behind(operator)
    for layer in blocks:
        writing.store_in_blocks(layer.operator)
    for layer in whole:
        writing.restore(layer.operator)


class _Writing:
    """A flatbuffer being changed."""

    def __init__(self, model: Flatbuffer) -> None:
        from ai_edge_litert import schema_py_generated

        self._schema, self._model, self._graph = schema_py_generated, model, model.subgraphs[0]
        self._network = Network(model)

    def spell_padding(self, operator: Any) -> None:
        """Put a PAD before an operation, which then pads nothing by itself."""
        around = self._network.padding(operator)
        assert around is not None  # noqa: S101 - what is in a part has padding that fits
        given = int(operator.inputs[0])
        top, bottom, left, right = around
        batch, height, width, channels = self._network.shape(given)
        widths = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        sizes = (batch, height + top + bottom, width + left + right, channels)
        padded = self._tensor(f"{self._network.name(given)}_padded", sizes)
        self._insert("PAD", [given, self._constant("padding", widths)], padded, before=operator)
        operator.inputs = np.asarray([padded, *operator.inputs[1:]], np.int32)
        operator.builtinOptions.padding = self._schema.Padding.VALID

    def end_behind(self, operator: Any) -> None:
        """Put a RESHAPE to the same sizes behind an operation: what is turned to channels first ends there."""
        result = int(operator.outputs[0])
        sizes = self._network.shape(result)
        within = self._tensor(f"{self._network.name(result)}_within", sizes)
        place = next(n for n, one in enumerate(self._graph.operators) if one is operator)
        operator.outputs = np.asarray([within], np.int32)
        self._network.note(operator)
        wanted = self._constant("sizes", np.asarray(sizes, np.int32))
        self._insert(
            "RESHAPE", [within, wanted], result, before=self._graph.operators[place + 1 :]
        )

    def store(self, number: int, block: int = 1) -> None:
        """Store a constant without its zeros, along its last axis."""
        values, tensor = self._network.constant(number), self._graph.tensors[number]
        assert values is not None  # noqa: S101 - layers have weights
        rows = values.reshape(-1, values.shape[-1] // block, block)
        kept = np.asarray(rows.any(axis=-1))
        if not kept.any():  # a constant without any values is none to the engine
            kept[0, 0] = True
        segments = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        rank = values.ndim
        sparsity = self._schema.SparsityParametersT()
        dimensions = [self._dense(size) for size in values.shape[:-1]]
        dimensions.append(self._compressed(segments, np.nonzero(kept)[1]))
        if block > 1:
            dimensions.append(self._dense(block))
            sparsity.blockMap = np.asarray([rank - 1], np.int32)
        sparsity.traversalOrder = np.arange(len(dimensions), dtype=np.int32)
        sparsity.dimMetadata = dimensions
        tensor.sparsity = sparsity
        whole, tensor.buffer = tensor.buffer, self._buffer(rows[kept])
        owners = [
            *(one for graph in self._model.subgraphs for one in graph.tensors),
            *(self._model.metadata or ()),
        ]
        if all(owner.buffer != whole for owner in owners):
            self._model.buffers[whole].data = None

    def store_in_blocks(self, operator: Any) -> None:
        """Store a dense layer's weights without their blocks of zeros, for the kernel that reads them so."""
        self.store(int(operator.inputs[1]), BLOCK)
        kind = self._schema.BuiltinOperator.FULLY_CONNECTED
        operator.opcodeIndex = self._code_of(kind, _OF_SPARSE)

    def restore(self, operator: Any) -> None:
        """Store an operation's weights without their zeros, and have the engine restore these before it reads them."""
        number = int(operator.inputs[1])
        stored = self._graph.tensors[number]
        if stored.sparsity is None:
            self.store(number)
        dense = next(
            (one for one in self._network.readers(number) if self._network.kind(one) == "DENSIFY"),
            None,
        )
        if dense is None:
            whole = self._tensor(
                f"{self._network.name(number)}_whole", tuple(map(int, stored.shape))
            )
            self._insert("DENSIFY", [number], whole, before=operator)
        else:
            whole = int(dense.outputs[0])
        operator.inputs = np.asarray([operator.inputs[0], whole, *operator.inputs[2:]], np.int32)

    def _dense(self, size: int) -> Any:
        made = self._schema.DimensionMetadataT()
        made.format, made.denseSize = self._schema.DimensionType.DENSE, int(size)
        return made

    def _compressed(self, segments: NDArray[Any], places: NDArray[Any]) -> Any:
        made = self._schema.DimensionMetadataT()
        made.format = self._schema.DimensionType.SPARSE_CSR
        made.arraySegmentsType, made.arraySegments = self._numbers(segments)
        made.arrayIndicesType, made.arrayIndices = self._numbers(places)
        return made

    def _numbers(self, values: NDArray[Any]) -> tuple[int, Any]:
        """Return whole numbers in the fewest bytes that hold them."""
        largest = int(values.max(initial=0))
        fitting = next(
            name
            for name, most in (("Uint8", 2**8), ("Uint16", 2**16), ("Int32", 2**31))
            if largest < most
        )
        made = getattr(self._schema, f"{fitting}VectorT")()
        made.values = values.astype(fitting.lower())
        return getattr(self._schema.SparseIndexVector, f"{fitting}Vector"), made

    def _insert(self, kind: str, inputs: list[int], result: int, *, before: Any) -> None:
        """Put a new operation before another, or before the first of several, or at the end where there are none."""
        made = self._schema.OperatorT()
        made.inputs, made.outputs = np.asarray(inputs, np.int32), np.asarray([result], np.int32)
        made.opcodeIndex = self._code_of(getattr(self._schema.BuiltinOperator, kind))
        following = before if isinstance(before, list) else [before]
        places = [
            n for n, one in enumerate(self._graph.operators) if following and one is following[0]
        ]
        self._graph.operators.insert(places[0] if places else len(self._graph.operators), made)
        self._network.note(made)

    def _code_of(self, number: int, version: int = 1) -> int:
        """Return the place of an operation of at least a version among those used, which it is added to."""
        for place, code in enumerate(self._model.operatorCodes):
            is_same = max(code.builtinCode, code.deprecatedBuiltinCode) == number
            if is_same and code.version >= version:
                return place
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.version = number, version
        code.deprecatedBuiltinCode = min(number, _MOST_IN_OLD_FIELD)
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1

    def _tensor(self, name: str, sizes: Sequence[int]) -> int:
        """Add a tensor of real numbers; return its place."""
        made = self._schema.TensorT()
        taken = Counter(tensor.name for tensor in self._graph.tensors)
        made.name = name.encode()
        while made.name in taken:
            made.name += b"_"
        made.shape = np.asarray([max(size, 1) for size in sizes], np.int32)
        if any(size < 0 for size in sizes):
            made.shapeSignature = np.asarray(sizes, np.int32)
        made.type, made.buffer, made.hasRank = self._schema.TensorType.FLOAT32, 0, True
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def _constant(self, name: str, values: NDArray[Any]) -> int:
        place = self._tensor(name, values.shape)
        tensor = self._graph.tensors[place]
        tensor.type, tensor.buffer = self._schema.TensorType.INT32, self._buffer(values)
        return place

    def _buffer(self, values: NDArray[Any]) -> int:
        """Add a buffer; what shared the old one keeps it."""
        made = self._schema.BufferT()
        made.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(made)
        return len(self._model.buffers) - 1
