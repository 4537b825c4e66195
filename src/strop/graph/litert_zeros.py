"""Zeros in LiteRT flatbuffers: which weights have them, and where the engine has kernels that skip them.

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.graph.litert_network import Flatbuffer, Network

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
    network = Network(model)
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
    network = Network(model)
    return [layer for layer in layers if network.kind(layer.operator) == "FULLY_CONNECTED"]


def why_not_in_blocks(model: Flatbuffer, layer: Layer) -> str:
    """Return why a dense layer's zeros are nothing for LiteRT's own kernel; empty where they are."""
    network = Network(model)
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
    network = Network(model)
    starts = [operator for operator in network.operators if _is_start(network, operator)]
    if not starts:
        return _why_nothing_starts(network)
    found = _followed(network, starts)
    if isinstance(found, str):
        return found
    operators, unspelled, ends = found
    pointwise = [one for one in operators if _is_pointwise(network, one)]
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


def _followed(
    network: Network, starts: Sequence[Any]
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
        is_start = _is_start(network, operator)
        if not is_start and (reason := _why_dense(network, operator)):
            return f"'{network.name_of(operator)}' {reason}"
        if _is_unspelled(network, operator):
            unspelled.append(operator)
        result = int(operator.outputs[0])
        readers = network.readers(result)
        if network.kind(operator) == "DEPTH_TO_SPACE" or _is_end(network, operator):
            if _needs_ending(network, operator):
                ends.append(operator)
            continue
        if result in network.outputs or not readers:
            return f"'{network.name_of(operator)}' is an output, and no mean over space"
        waiting += readers
    for operator in found.values():
        for number in network.given(operator):
            source = network.producer(number)
            if not _is_start(network, operator) and (source is None or id(source) not in found):
                return f"'{network.name_of(operator)}' also reads '{network.name(number)}', which comes another way"
    return list(found.values()), unspelled, ends


def _is_start(network: Network, operator: Any) -> bool:
    """Say whether an operation turns channels that come last into channels that come first."""
    return network.kind(operator) == "CONV_2D" and not _why_no_start(network, operator)


def _why_nothing_starts(network: Network) -> str:
    """Return why no operation is a start, told of the first convolution."""
    convolutions = [one for one in network.operators if network.kind(one) == "CONV_2D"]
    if not convolutions:
        return "it has no convolution"
    first = convolutions[0]
    return f"it begins with '{network.name_of(first)}', which {_why_no_start(network, first)}"


def _why_no_start(network: Network, operator: Any) -> str:
    height, width, channels = network.shape(operator.inputs[1])[1:]
    if (height, width, channels) != (3, 3, 3):
        return f"is of {height}x{width} over {channels} channels, and not of 3x3 over 3"
    options = operator.builtinOptions
    if (options.strideH, options.strideW) != (2, 2):
        return "has no stride of 2"
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        return "is dilated"
    return _why_unfit(network, operator, 1)


def _is_pointwise(network: Network, operator: Any) -> bool:
    return network.kind(operator) == "CONV_2D" and network.shape(operator.inputs[1])[1:3] == (1, 1)


def _why_dense(network: Network, operator: Any) -> str:
    """Return why XNNPACK has no kernel for an operation where channels come first; empty where it has."""
    kind = network.kind(operator)
    if len(network.shape(operator.inputs[0])) != _RANK:
        return f"({kind}) has no kernel for channels that come first"
    if kind == "CONV_2D":
        return _why_dense_convolution(network, operator)
    if kind == "DEPTHWISE_CONV_2D":
        return _why_dense_depthwise(network, operator)
    if kind in ("ADD", "MUL"):
        is_known = any(network.constant(n) is not None for n in operator.inputs)
        ranks = {len(network.shape(n)) for n in operator.inputs}
        return f"({kind}) has a constant in it" if is_known or ranks != {_RANK} else ""
    if kind == "PAD":
        readers = network.readers(operator.outputs[0])
        fits = [network.kind(one) == "DEPTHWISE_CONV_2D" for one in readers]
        return "" if fits == [True] else "(PAD) stands before no depthwise convolution alone"
    if kind == "MEAN":
        axes = network.constant(operator.inputs[1])
        is_spatial = axes is not None and {int(a) % _RANK for a in axes.flat} == _SPACE
        return "" if is_spatial else "(MEAN) is over more than space"
    if kind == "RESIZE_BILINEAR":
        sizes = network.shape(operator.inputs[0])[1:3]
        return "" if min(sizes) > 1 else "resizes what has no room"
    if kind in _ANYWHERE or kind == "DEPTH_TO_SPACE":
        return ""
    return f"({kind}) has no kernel for channels that come first"


def _why_dense_convolution(network: Network, operator: Any) -> str:
    options, (height, width) = operator.builtinOptions, network.shape(operator.inputs[1])[1:3]
    if (height, width) != (1, 1):
        return f"(CONV_2D) is of {height}x{width}, and not of 1x1"
    if (options.strideH, options.strideW) != (1, 1):
        return "(CONV_2D) of 1x1 has a stride"
    sizes = network.shape(operator.inputs[0])
    if sizes[-1] != network.shape(operator.inputs[1])[-1]:
        return "(CONV_2D) is in groups"
    return ""


def _why_dense_depthwise(network: Network, operator: Any) -> str:
    options, (height, width) = operator.builtinOptions, network.shape(operator.inputs[1])[1:3]
    if height != width or height not in _PADDED:
        return f"(DEPTHWISE_CONV_2D) is of {height}x{width}, and not of 3x3 or 5x5"
    if options.depthMultiplier != 1:
        return "(DEPTHWISE_CONV_2D) gives several channels for each"
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        return "(DEPTHWISE_CONV_2D) is dilated"
    if (options.strideH, options.strideW) not in ((1, 1), (2, 2)):
        return "(DEPTHWISE_CONV_2D) has a stride of more than 2"
    reason = _why_unfit(network, operator, _PADDED[height])
    return f"(DEPTHWISE_CONV_2D) {reason}" if reason else ""


def _why_unfit(network: Network, operator: Any, wanted: int) -> str:
    """Return what is wrong with an operation's padding, where XNNPACK wants as much on each side."""
    found = network.padding(operator)
    if found is None:
        return (
            f"pads by what is known only with its input's size, and not by {wanted} on each side"
        )
    if set(found) == {wanted}:
        return ""
    return f"pads by {found[0]} and {found[1]} (down) and {found[2]} and {found[3]} (across), and not by {wanted} on each side"


def _is_unspelled(network: Network, operator: Any) -> bool:
    """Say whether an operation has its padding counted with its input's size, which XNNPACK does not look into."""
    is_wide = not _is_pointwise(network, operator)
    if network.kind(operator) not in ("CONV_2D", "DEPTHWISE_CONV_2D") or not is_wide:
        return False
    options = operator.builtinOptions
    return network.pads_by_size(operator) and (options.strideH, options.strideW) != (1, 1)


def _is_end(network: Network, operator: Any) -> bool:
    """Say whether an operation is a mean whose result never meets again what it is the mean of."""
    if network.kind(operator) != "MEAN":
        return False
    behind: dict[int, Any] = {}
    waiting = network.readers(operator.outputs[0])
    while waiting:
        one = waiting.pop()
        if id(one) not in behind:
            behind[id(one)] = one
            waiting += [reader for n in one.outputs for reader in network.readers(n)]
    inside = {*behind, id(operator)}
    return not any(
        (source := network.producer(number)) is not None and id(source) not in inside
        for one in behind.values()
        if network.kind(one) in ("ADD", "MUL")
        for number in network.given(one)
    )


def _needs_ending(network: Network, operator: Any) -> bool:
    """Say whether XNNPACK would go on with channels first behind a mean at the end.

    It then fails to open the model where a convolution follows, and answers wrongly where nothing does.
    """
    result = operator.outputs[0]
    if network.kind(operator) != "MEAN" or len(network.shape(result)) != _RANK:
        return False
    kinds = [network.kind(one) for one in network.readers(result)]
    return int(result) in network.outputs or any(kind != "RESHAPE" for kind in kinds)
