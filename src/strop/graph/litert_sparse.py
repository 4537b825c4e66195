"""Zeros in LiteRT flatbuffers: weights written sparsely, and where the engine has kernels that skip what they lack.

There are two such kernels, and all others compute with zeros like with any weight:

* LiteRT's own for dense layers whose zeros come in blocks of four inputs, on any processor. It takes one row at a time,
  and XNNPACK's dense kernel is faster where there are several.
* XNNPACK's for convolutions of 1x1, in a part of the network that it can turn to channels first as a whole: from a
  convolution of 3x3 over 3 channels, stride 2, padded by one on each side, to means over space. It has them for
  processors other than x86 with AVX. What it asks for is `xnn_subgraph_rewrite_for_nchw` in its ``src/subgraph.c``; what
  is counted here is the part of it that was seen to run and to answer rightly.

References:
    Elsen, Dukhan, Gale, Simonyan, *Fast Sparse ConvNets*, CVPR 2020 (arXiv:1911.09723).
"""

from __future__ import annotations

import functools
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Flatbuffer = Any
"""A `ModelT` of LiteRT's own reader of the schema: a tree of plain objects that may be changed."""

BLOCK = 4
"""Inputs of a dense layer whose weights are zero together, for LiteRT's kernel."""
_ENOUGH_IN_BLOCKS = 0.9  # of the zeros; the others are stored and computed with
_MORE_THAN = (2, 3)  # XNNPACK's, as a fraction: of the weights of a part's convolutions of 1x1
_WITH_WEIGHTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
# Functions of one number that XNNPACK computes whatever the order of axes.
_ANYWHERE = frozenset(
    {
        "ABS", "CEIL", "ELU", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG", "RELU", "RELU6",
        "RELU_N1_TO_1", "ROUND", "SQUARE", "TANH",
    }
)  # fmt: skip
_PADDED = {3: 1, 5: 2}  # how wide a depthwise kernel is, and what XNNPACK wants around it
_SPACE = {1, 2}
_RANK = 4
# The version of FULLY_CONNECTED that has sparse weights. XNNPACK takes all before it, and takes these for dense.
_OF_SPARSE = 8
_MOST_IN_OLD_FIELD = 127


@dataclass(frozen=True)
class Layer:
    """An operation with zeros among its weights.

    Attributes:
        operator: The operation, in the flatbuffer.
        name: Of the tensor that it gives.
        zeros: Their share of its weights.
        weights: How many weights it has.
    """

    operator: Any
    name: str
    zeros: float
    weights: int


@dataclass(frozen=True)
class Part:
    """What XNNPACK can turn to channels first, and so compute with sparse kernels.

    Attributes:
        layers: Its convolutions of 1x1 with zeros among their weights.
        unspelled: Operations in it whose padding a flatbuffer must spell out for XNNPACK to see what it is.
        ends: Means at its end that keep their dimensions, and are not known to XNNPACK as the end by themselves.
    """

    layers: tuple[Layer, ...]
    unspelled: tuple[Any, ...]
    ends: tuple[Any, ...]


def read_flatbuffer(path: Path) -> Flatbuffer:
    """Return a flatbuffer as objects."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(path))


def write_flatbuffer(model: Flatbuffer, path: Path) -> None:
    """Write a flatbuffer down."""
    from ai_edge_litert.tools import flatbuffer_utils

    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


@functools.cache
def has_avx() -> bool:
    """Say whether this is an x86 processor with AVX, for which XNNPACK keeps to dense kernels."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    file = Path("/proc/cpuinfo")
    # Where it can't be asked: there is hardly another any more.
    return not file.exists() or " avx " in file.read_text()


def layers_with_zeros(model: Flatbuffer, least: float) -> list[Layer]:
    """Return the operations of which at least a share of the weights, real numbers stored densely, is zero."""
    network = _Network(model)
    found = []
    for operator in network.operators:
        if network.kind(operator) not in _WITH_WEIGHTS:
            continue
        weights = network.constant(operator.inputs[1])
        # What a look-up reads too has to stay as it is.
        readers = {network.kind(one) for one in network.readers(operator.inputs[1])}
        if weights is None or weights.dtype != np.float32 or readers - _WITH_WEIGHTS:
            continue
        zeros = 1 - np.count_nonzero(weights) / max(weights.size, 1)
        if weights.size and zeros >= least:
            found.append(Layer(operator, network.name_of(operator), float(zeros), weights.size))
    return found


def dense_layers(model: Flatbuffer, layers: Sequence[Layer]) -> list[Layer]:
    """Return those of `layers` that are dense layers, and no convolutions."""
    network = _Network(model)
    return [layer for layer in layers if network.kind(layer.operator) == "FULLY_CONNECTED"]


def why_not_in_blocks(model: Flatbuffer, layer: Layer) -> str:
    """Return why a dense layer's zeros are nothing for LiteRT's own kernel; empty where they are."""
    network = _Network(model)
    weights = network.weights(layer.operator)
    if len(network.readers(layer.operator.inputs[1])) > 1:
        return "shares its weights with others"
    if weights.shape[1] % BLOCK:
        return f"has {weights.shape[1]} inputs, which make no whole blocks of {BLOCK}"
    if in_blocks(weights) < _ENOUGH_IN_BLOCKS * layer.zeros:
        return f"has zeros that don't come in blocks of {BLOCK} inputs"
    rows = network.shape(layer.operator.outputs[0])[:-1]
    if any(size < 0 for size in rows):
        return "is given a number of rows at a time that is left open"
    if np.prod(rows, dtype=int) != 1:
        return f"is given {np.prod(rows, dtype=int)} rows at a time, and the kernel is slow with more than one"
    return ""


def in_blocks(weights: NDArray[np.float32]) -> float:
    """Return the share of a matrix that is zero in whole blocks of its rows.

    Example:
        >>> in_blocks(np.array([[0, 0, 0, 0, 1, 0, 0, 0]], np.float32))
        0.5
    """
    blocks = weights.reshape(len(weights), -1, BLOCK)
    return float(1 - np.count_nonzero(blocks.any(axis=-1)) * BLOCK / weights.size)


def part_for_xnnpack(model: Flatbuffer, layers: Sequence[Layer]) -> Part | str:
    """Return what XNNPACK would compute with sparse kernels, or why it would compute all with dense ones.

    Args:
        model: The flatbuffer.
        layers: Its operations with zeros.
    """
    network = _Network(model)
    starts = [operator for operator in network.operators if network.is_start(operator)]
    if not starts:
        return network.why_no_start()
    found = _followed(network, starts)
    if isinstance(found, str):
        return found
    operators, unspelled, ends = found
    pointwise = [one for one in operators if network.is_pointwise(one)]
    for operator in pointwise:
        if not network.weights(operator).size:
            return f"the weights of '{network.name_of(operator)}' are no float32 stored densely"
    weights = sum(network.weights(one).size for one in pointwise)
    nonzero = sum(np.count_nonzero(network.weights(one)) for one in pointwise)
    if not weights:
        return "no convolution of 1x1 is between its start and its end"
    over, under = _MORE_THAN
    if (weights - nonzero) * under <= weights * over:
        share = (weights - nonzero) / weights
        return f"{share:.0%} of the weights of its convolutions of 1x1 are zero, and XNNPACK wants more than {over}/{under}"
    among = {id(one) for one in pointwise}
    return Part(
        tuple(layer for layer in layers if id(layer.operator) in among),
        tuple(unspelled),
        tuple(ends),
    )


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
    network = _Network(model)
    if part is not None:
        for operator in part.unspelled:
            network.spell_padding(operator)
        for operator in part.ends:
            network.end_behind(operator)
    for layer in blocks:
        network.store_in_blocks(layer.operator)
    for layer in whole:
        network.restore(layer.operator)


def _followed(
    network: _Network, starts: Sequence[Any]
) -> tuple[list[Any], list[Any], list[Any]] | str:
    """Return the operations from `starts` to means over space, which of them pad unseen, and the means to end behind.

    Where one on the way has no kernel for channels that come first, that is returned in words.
    """
    found: dict[int, Any] = {}
    unspelled: list[Any] = []
    ends: list[Any] = []
    waiting = list(starts)
    while waiting:
        operator = waiting.pop(0)
        if id(operator) in found:
            continue
        found[id(operator)] = operator
        is_start = network.is_start(operator)
        if not is_start and (reason := network.why_dense(operator)):
            return f"'{network.name_of(operator)}' {reason}"
        if network.is_unspelled(operator):
            unspelled.append(operator)
        result = int(operator.outputs[0])
        readers = network.readers(result)
        if network.kind(operator) == "DEPTH_TO_SPACE" or network.is_end(operator):
            if network.needs_ending(operator):
                ends.append(operator)
            continue
        if result in network.outputs or not readers:
            return f"'{network.name_of(operator)}' is an output, and no mean over space"
        waiting += readers
    for operator in found.values():
        for number in network.given(operator):
            source = network.producer(number)
            if not network.is_start(operator) and (source is None or id(source) not in found):
                return f"'{network.name_of(operator)}' also reads '{network.name(number)}', which comes another way"
    return list(found.values()), unspelled, ends


class _Network:
    """The first graph of a flatbuffer: what reads what, and how it is changed."""

    def __init__(self, model: Flatbuffer) -> None:
        from ai_edge_litert import schema_py_generated

        self._schema, self._model, self._graph = schema_py_generated, model, model.subgraphs[0]
        self._producers = {int(n): one for one in self.operators for n in one.outputs}
        self.outputs = {int(n) for n in self._graph.outputs}

    @property
    def operators(self) -> list[Any]:
        found: list[Any] = self._graph.operators
        return found

    def kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        return _names()[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def name(self, number: int) -> str:
        text: str = self._graph.tensors[int(number)].name.decode()
        return text.split(";")[0]

    def name_of(self, operator: Any) -> str:
        return self.name(operator.outputs[0])

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the sizes of a tensor; -1 for one that is left open."""
        tensor = self._graph.tensors[int(number)]
        sizes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return tuple(map(int, () if sizes is None else sizes))

    def producer(self, number: int) -> Any:
        return self._producers.get(int(number))

    def readers(self, number: int) -> list[Any]:
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
        found = self.constant(operator.inputs[1])
        return np.zeros(0, np.float32) if found is None else found

    # What XNNPACK has kernels for

    def is_start(self, operator: Any) -> bool:
        """Say whether an operation turns channels that come last into channels that come first."""
        return self.kind(operator) == "CONV_2D" and not self._why_no_start(operator)

    def why_no_start(self) -> str:
        """Return why no operation is a start, told of the first convolution."""
        convolutions = [one for one in self.operators if self.kind(one) == "CONV_2D"]
        if not convolutions:
            return "it has no convolution"
        first = convolutions[0]
        return f"it begins with '{self.name_of(first)}', which {self._why_no_start(first)}"

    def _why_no_start(self, operator: Any) -> str:
        height, width, channels = self.shape(operator.inputs[1])[1:]
        if (height, width, channels) != (3, 3, 3):
            return f"is of {height}x{width} over {channels} channels, and not of 3x3 over 3"
        options = operator.builtinOptions
        if (options.strideH, options.strideW) != (2, 2):
            return "has no stride of 2"
        if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
            return "is dilated"
        return self._why_unfit(operator, 1)

    def is_pointwise(self, operator: Any) -> bool:
        return self.kind(operator) == "CONV_2D" and self.shape(operator.inputs[1])[1:3] == (1, 1)

    def why_dense(self, operator: Any) -> str:
        """Return why XNNPACK has no kernel for an operation where channels come first; empty where it has."""
        kind = self.kind(operator)
        if len(self.shape(operator.inputs[0])) != _RANK:
            return f"({kind}) has no kernel for channels that come first"
        if kind == "CONV_2D":
            return self._why_dense_convolution(operator)
        if kind == "DEPTHWISE_CONV_2D":
            return self._why_dense_depthwise(operator)
        if kind in ("ADD", "MUL"):
            is_known = any(self.constant(n) is not None for n in operator.inputs)
            ranks = {len(self.shape(n)) for n in operator.inputs}
            return f"({kind}) has a constant in it" if is_known or ranks != {_RANK} else ""
        if kind == "PAD":
            readers = self.readers(operator.outputs[0])
            fits = [self.kind(one) == "DEPTHWISE_CONV_2D" for one in readers]
            return "" if fits == [True] else "(PAD) stands before no depthwise convolution alone"
        if kind == "MEAN":
            axes = self.constant(operator.inputs[1])
            is_spatial = axes is not None and {int(a) % _RANK for a in axes.flat} == _SPACE
            return "" if is_spatial else "(MEAN) is over more than space"
        if kind == "RESIZE_BILINEAR":
            sizes = self.shape(operator.inputs[0])[1:3]
            return "" if min(sizes) > 1 else "resizes what has no room"
        if kind in _ANYWHERE or kind == "DEPTH_TO_SPACE":
            return ""
        return f"({kind}) has no kernel for channels that come first"

    def _why_dense_convolution(self, operator: Any) -> str:
        options, (height, width) = operator.builtinOptions, self.shape(operator.inputs[1])[1:3]
        if (height, width) != (1, 1):
            return f"(CONV_2D) is of {height}x{width}, and not of 1x1"
        if (options.strideH, options.strideW) != (1, 1):
            return "(CONV_2D) of 1x1 has a stride"
        sizes = self.shape(operator.inputs[0])
        if sizes[-1] != self.shape(operator.inputs[1])[-1]:
            return "(CONV_2D) is in groups"
        return ""

    def _why_dense_depthwise(self, operator: Any) -> str:
        options, (height, width) = operator.builtinOptions, self.shape(operator.inputs[1])[1:3]
        if height != width or height not in _PADDED:
            return f"(DEPTHWISE_CONV_2D) is of {height}x{width}, and not of 3x3 or 5x5"
        if options.depthMultiplier != 1:
            return "(DEPTHWISE_CONV_2D) gives several channels for each"
        if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
            return "(DEPTHWISE_CONV_2D) is dilated"
        if (options.strideH, options.strideW) not in ((1, 1), (2, 2)):
            return "(DEPTHWISE_CONV_2D) has a stride of more than 2"
        reason = self._why_unfit(operator, _PADDED[height])
        return f"(DEPTHWISE_CONV_2D) {reason}" if reason else ""

    def _why_unfit(self, operator: Any, wanted: int) -> str:
        """Return what is wrong with an operation's padding, where XNNPACK wants as much on each side."""
        found = self._padding(operator)
        if found is None:
            return f"pads by what is known only with its input's size, and not by {wanted} on each side"
        if set(found) == {wanted}:
            return ""
        return f"pads by {found[0]} and {found[1]} (down) and {found[2]} and {found[3]} (across), and not by {wanted} on each side"

    def _padding(self, operator: Any) -> tuple[int, ...] | None:
        """Return what is padded above, below, left and right, by a PAD before it too; None where it can't be told."""
        options = operator.builtinOptions
        if options.padding == self._schema.Padding.SAME:
            found: list[int] = []
            steps = (options.strideH, options.strideW)
            kernel, sizes = (self.shape(operator.inputs[n])[1:3] for n in (1, 0))
            for size, step, width in zip(sizes, steps, kernel, strict=True):
                if size < 0 and step != 1:  # with steps of 1 it is the same for all sizes
                    return None
                total = max(width - 1 - (size - 1) % step, 0)
                found += [total // 2, total - total // 2]
            return tuple(found)
        padding = self.producer(operator.inputs[0])
        if padding is None or self.kind(padding) != "PAD":
            return (0, 0, 0, 0)
        widths = self.constant(padding.inputs[1])
        if widths is None or widths.shape != (_RANK, 2) or widths[[0, 3]].any():
            return (0, 0, 0, 0)
        return tuple(int(n) for n in widths[1:3].flat)

    def is_unspelled(self, operator: Any) -> bool:
        """Say whether an operation has its padding counted with its input's size, which XNNPACK does not look into."""
        if self.kind(operator) not in ("CONV_2D", "DEPTHWISE_CONV_2D") or self.is_pointwise(
            operator
        ):
            return False
        options = operator.builtinOptions
        is_same = options.padding == self._schema.Padding.SAME
        return bool(is_same and (options.strideH, options.strideW) != (1, 1))

    def is_end(self, operator: Any) -> bool:
        """Say whether an operation is a mean whose result never meets again what it is the mean of."""
        if self.kind(operator) != "MEAN":
            return False
        behind: dict[int, Any] = {}
        waiting = self.readers(operator.outputs[0])
        while waiting:
            one = waiting.pop()
            if id(one) not in behind:
                behind[id(one)] = one
                waiting += [reader for n in one.outputs for reader in self.readers(n)]
        inside = {*behind, id(operator)}
        return not any(
            (source := self.producer(number)) is not None and id(source) not in inside
            for one in behind.values()
            if self.kind(one) in ("ADD", "MUL")
            for number in self.given(one)
        )

    def needs_ending(self, operator: Any) -> bool:
        """Say whether XNNPACK would go on with channels first behind a mean at the end.

        It then fails to open the model where a convolution follows, and answers wrongly where nothing does.
        """
        result = operator.outputs[0]
        if self.kind(operator) != "MEAN" or len(self.shape(result)) != _RANK:
            return False
        kinds = [self.kind(one) for one in self.readers(result)]
        return int(result) in self.outputs or any(kind != "RESHAPE" for kind in kinds)

    # How it is changed

    def spell_padding(self, operator: Any) -> None:
        """Put a PAD before an operation, which then pads nothing by itself."""
        around = self._padding(operator)
        assert around is not None  # noqa: S101 - what is in a part has padding that fits
        given = int(operator.inputs[0])
        top, bottom, left, right = around
        batch, height, width, channels = self.shape(given)
        widths = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        sizes = (batch, height + top + bottom, width + left + right, channels)
        padded = self._tensor(f"{self.name(given)}_padded", sizes)
        self._insert("PAD", [given, self._constant("padding", widths)], padded, before=operator)
        operator.inputs = np.asarray([padded, *operator.inputs[1:]], np.int32)
        operator.builtinOptions.padding = self._schema.Padding.VALID

    def end_behind(self, operator: Any) -> None:
        """Put a RESHAPE to the same sizes behind an operation: what is turned to channels first ends there."""
        result = int(operator.outputs[0])
        sizes = self.shape(result)
        within = self._tensor(f"{self.name(result)}_within", sizes)
        place = next(n for n, one in enumerate(self.operators) if one is operator)
        operator.outputs = np.asarray([within], np.int32)
        self._producers[within] = operator
        wanted = self._constant("sizes", np.asarray(sizes, np.int32))
        self._insert("RESHAPE", [within, wanted], result, before=self.operators[place + 1 :])

    def store(self, number: int, block: int = 1) -> None:
        """Store a constant without its zeros, along its last axis."""
        values, tensor = self.constant(number), self._graph.tensors[number]
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
        dense = next((one for one in self.readers(number) if self.kind(one) == "DENSIFY"), None)
        if dense is None:
            whole = self._tensor(f"{self.name(number)}_whole", tuple(map(int, stored.shape)))
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
        places = [n for n, one in enumerate(self.operators) if following and one is following[0]]
        self.operators.insert(places[0] if places else len(self.operators), made)
        self._producers[result] = made

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


@functools.cache
def _names() -> dict[int, str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {number: name for name, number in vars(BuiltinOperator).items() if name.isupper()}
