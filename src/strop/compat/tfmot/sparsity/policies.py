"""Which layers of a model are to be pruned, and whether it is worth it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from strop.compat.tfmot.copies import refuse_subclassed
from strop.core.errors import message
from strop.graph.keras_calls import nodes_of

Conv2D, DepthwiseConv2D = keras.layers.Conv2D, keras.layers.DepthwiseConv2D
_FUNCTIONS = ("elu", "leaky_relu", "relu", "relu6", "sigmoid")
_ANY = (
    "Add", "Dropout", "ELU", "Identity", "LeakyReLU", "Multiply", "ReLU", "Subtract", "ZeroPadding2D",
)  # fmt: skip


class PruningPolicy(abc.ABC):
    """Says which layers of a model are pruned, and whether a model may be."""

    @abc.abstractmethod
    def allow_pruning(self, layer: Any) -> bool:
        """Say whether a layer is to be pruned."""

    @abc.abstractmethod
    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Refuse a model that pruning would not help.

        Raises:
            ValueError: If it is such a one.
        """


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes convolutions of 1x1 alone, in models that XNNPACK computes with sparse kernels.

    XNNPACK turns to sparse kernels from a first convolution of 3x3 over 3 channels, stride 2 and explicit padding, to a
    global average pooling that keeps its dimensions, where each layer between them has a kernel for channels that come
    first.

    References:
        Elsen, Dukhan, Gale, Simonyan, *Fast Sparse ConvNets*, CVPR 2020 (arXiv:1911.09723).
    """

    def allow_pruning(self, layer: Any) -> bool:
        """Say whether a layer is a convolution of 1x1."""
        return isinstance(layer, Conv2D) and layer.kernel_size == (1, 1)

    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Refuse a model that XNNPACK computes with dense kernels whatever its weights.

        Raises:
            ValueError: If it is one.
        """
        refuse_subclassed(model)
        if not model.built:
            raise ValueError(
                message("the model is not built.", "Call it once.", next_step="model(x[:1])")
            )
        links = _Links(getattr(model, "_functional", None) or model)
        starts = _first(links.inputs, lambda op: _is_start(op, links), links.readers)
        if starts is None:
            raise ValueError(
                "not every input leads to a Conv2D of 3x3 over 3 channels with strides=2 and padding='valid' behind a "
                "ZeroPadding2D of 1, from which on XNNPACK has sparse kernels"
            )
        ends = _first(links.outputs, _is_end, links.sources)
        if ends is None:
            raise ValueError(
                "not every output comes of a GlobalAveragePooling2D, up to which XNNPACK has sparse kernels"
            )
        _refuse_unsupported(starts, ends, links)


class _Links:
    """Which operations of a model read what others give."""

    def __init__(self, functional: Any) -> None:
        self._readers: dict[int, list[Any]] = {}
        self._sources: dict[int, list[Any]] = {}
        for node in nodes_of(functional):
            sources = [t._keras_history.operation for t in node.input_tensors]
            self._sources.setdefault(id(node.operation), []).extend(sources)
            for source in sources:
                self._readers.setdefault(id(source), []).append(node.operation)
        self.inputs = [t._keras_history.operation for t in functional.inputs]
        self.outputs = [t._keras_history.operation for t in functional.outputs]

    def readers(self, operation: Any) -> list[Any]:
        return self._readers.get(id(operation), [])

    def sources(self, operation: Any) -> list[Any]:
        return self._sources.get(id(operation), [])

    def padding_before(self, operation: Any) -> Any:
        """Return what a ZeroPadding2D alone before an operation adds; None where none is."""
        sources = self.sources(operation)
        is_padded = len(sources) == 1 and isinstance(sources[0], keras.layers.ZeroPadding2D)
        return sources[0].padding if is_padded else None


def _first(
    operations: Sequence[Any], is_found: Callable[[Any], bool], further: Callable[[Any], list[Any]]
) -> Mapping[int, Any] | None:
    """Return the first operation of a kind on each way; None where a way has none."""
    found, seen, waiting = {}, set(), list(operations)
    while waiting:
        operation = waiting.pop()
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        if is_found(operation):
            found[id(operation)] = operation
            continue
        if not (beyond := further(operation)):
            return None
        waiting += beyond
    return found


def _refuse_unsupported(starts: Mapping[int, Any], ends: Mapping[int, Any], links: _Links) -> None:
    seen: set[int] = set()
    waiting = [reader for start in starts.values() for reader in links.readers(start)]
    while waiting:
        operation = waiting.pop()
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        is_end = id(operation) in ends
        if is_end and operation.keepdims:
            continue
        if is_end or not _has_kernel(operation, links):
            raise ValueError(_refusal(operation, is_end=is_end))
        waiting += links.readers(operation)


def _refusal(operation: Any, *, is_end: bool) -> str:
    kind = type(operation).__name__
    why = "drops dimensions: give it keepdims=True" if is_end else "has no sparse kernel as it is"
    return f"XNNPACK would compute with dense kernels: the layer '{operation.name}' ({kind}) {why}"


def _is_start(operation: Any, links: _Links) -> bool:
    return (
        isinstance(operation, Conv2D)
        and tuple(operation.kernel.shape[:3]) == (3, 3, 3)
        and operation.strides == (2, 2)
        and operation.padding == "valid"
        and links.padding_before(operation) == ((1, 1), (1, 1))
    )


def _is_end(operation: Any) -> bool:
    return isinstance(operation, keras.layers.GlobalAveragePooling2D)


def _has_kernel(operation: Any, links: _Links) -> bool:
    """Say whether XNNPACK has a kernel for channels that come first."""
    if isinstance(operation, DepthwiseConv2D):
        return _has_depthwise_kernel(operation, links)
    if isinstance(operation, Conv2D):
        shapes = (operation.kernel_size, operation.strides, operation.dilation_rate)
        return operation.groups == 1 and all(shape == (1, 1) for shape in shapes)
    if isinstance(operation, keras.layers.BatchNormalization):
        return operation.axis in (3, -1)
    if isinstance(operation, keras.layers.UpSampling2D):
        return bool(operation.interpolation == "bilinear")
    if isinstance(operation, keras.layers.Activation):
        return getattr(operation.activation, "__name__", "") in _FUNCTIONS
    return type(operation).__name__ in _ANY


def _has_depthwise_kernel(operation: Any, links: _Links) -> bool:
    if operation.depth_multiplier != 1 or tuple(operation.dilation_rate) != (1, 1):
        return False
    around = {(3, 3): ((1, 1), (1, 1)), (5, 5): ((2, 2), (2, 2))}.get(operation.kernel_size)
    if around is None:
        return False
    if operation.padding == "same":
        return bool(operation.strides == (1, 1))
    return operation.strides in ((1, 1), (2, 2)) and links.padding_before(operation) == around
