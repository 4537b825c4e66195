"""Which weights of a live Keras model can be dropped, or made to share values: the kernels of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import ModelError, message
from strop.graph.keras_layers import Chain, chains_within, name_of
from strop.train.exclusions import Exclusion, exclusions


@dataclass(frozen=True)
class Kernel:
    """A variable of which single weights can be dropped.

    Attributes:
        layer: The name of the layer that owns it, after those of the models and wrappers around it.
        variable: The Keras variable.
        summed: The axes that the layer sums over, the innermost last; empty for a look-up.
    """

    layer: str
    variable: Any
    summed: tuple[int, ...]

    @property
    def group_axis(self) -> int | None:
        """The axis along which groups of N:M lie: the innermost that is summed over, input channels in most layers."""
        return self.summed[-1] if self.summed else None

    @property
    def weights(self) -> NDArray[Any]:
        """What the variable holds."""
        found: NDArray[Any] = ops.convert_to_numpy(self.variable)
        return found


def kernels_of(
    model: Any, exclude: Sequence[Exclusion] = ()
) -> tuple[list[Kernel], dict[str, str]]:
    """Return the kernels that can be pruned, each variable once, and the layers left alone with the reason.

    Layers within models, wrappers and recurrent layers are found. Biases, and what normalizations have, are never
    pruned. Of a class that is not Keras' own, what its method `get_prunable_weights` returns is pruned.

    Args:
        model: A built `keras.Model`.
        exclude: Layers to leave alone with all that they contain: names, with or without those around them; names of
            classes; functions from a layer to a bool, or where they stand (``module:name``).

    Raises:
        ModelError: If the model is not built.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
        ParameterError: If a function in `exclude` can't be found.
    """
    chains = _chains(model)
    excluded = exclusions(exclude, chains)
    kernels: list[Kernel] = []
    left: dict[str, str] = {}
    for kernel, places in _kernels_with_places(chains):
        # A layer that stands in two places is left alone where one of them is.
        reason = next((why for why in map(excluded, places) if why), None)
        if reason is None and not kernel.variable.trainable:
            reason = "it is frozen (trainable=False)"
        if reason is None and 0 in kernel.variable.shape:
            reason = "its kernel has no weights"
        if reason:
            left[kernel.layer] = reason
        else:
            kernels.append(kernel)
    for chain in _once([(model,), *chains]):
        if why := _untreatable(chain[-1]):
            left[name_of(chain)] = excluded(chain) or why
    return kernels, left


def sparsity_of(model: Any) -> dict[str, float]:
    """Return the share of zeros in the kernels of each layer that has any, frozen ones too.

    Raises:
        ModelError: If the model is not built.
    """
    return shares_of_zeros([kernel for kernel, _ in _kernels_with_places(_chains(model))])


def has_kernel(operation: Any) -> bool:
    """Say whether a layer has more than a number a channel, as normalizations have, or the range of a rounding."""
    return any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ()))


def declared_kernels(layer: Any) -> dict[str, tuple[int, ...]]:
    """Return the attributes in which a layer, built or not, has its kernels, with the axes of its output channels.

    Returns:
        Axes counted from the end; nothing for a class that is none of Keras' own and derived from none.

    Example:
        >>> declared_kernels(keras.layers.SeparableConv2D(4, 3))
        {'depthwise_kernel': (-2, -1), 'pointwise_kernel': (-1,)}
    """
    found = {}
    for attribute, axes in (_declared(layer) or {}).items():
        rank = _rank_of_equation(layer) if hasattr(layer, "equation") else _ANY_RANK
        summed = axes(layer, rank)
        channels = [axis - rank for axis in range(rank) if axis not in summed]
        found[attribute] = tuple(channels) if summed else (-1,)
    return found


def shares_of_zeros(kernels: Sequence[Kernel]) -> dict[str, float]:
    """Return the share of zeros in all the kernels of each layer."""
    zeros: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for kernel in kernels:
        weights = kernel.weights
        zeros[kernel.layer] = zeros.get(kernel.layer, 0) + int(np.sum(weights == 0))
        sizes[kernel.layer] = sizes.get(kernel.layer, 0) + weights.size
    return {layer: zeros[layer] / sizes[layer] for layer in zeros if sizes[layer]}


# Where a layer's kernels are, by the name of its class, and which of their axes it sums over.
_Axes = Callable[[Any, int], tuple[int, ...]]


def _all_but_last(layer: Any, rank: int) -> tuple[int, ...]:
    return tuple(range(rank - 1))


def _all_but_last_but_one(layer: Any, rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1)


def _spatial(layer: Any, rank: int) -> tuple[int, ...]:
    return tuple(range(rank - 2))


def _none(layer: Any, rank: int) -> tuple[int, ...]:
    return ()


def _of_equation(layer: Any, rank: int) -> tuple[int, ...]:
    """Return the axes of an einsum's kernel whose letters its result does not have."""
    operands, result = layer.equation.replace(" ", "").split("->")
    letters = operands.split(",")[1]
    return tuple(axis for axis, letter in enumerate(letters) if letter not in result)


def _rank_of_equation(layer: Any) -> int:
    return len(layer.equation.replace(" ", "").split("->")[0].split(",")[1])


_ANY_RANK = (
    6  # more than any kernel of the classes below has, where its axes are counted from the end
)
_RECURRENT: dict[str, _Axes] = {"kernel": _all_but_last, "recurrent_kernel": _all_but_last}
_KERNELS: dict[str, dict[str, _Axes]] = {
    "Dense": {"kernel": _all_but_last},
    "EinsumDense": {"kernel": _of_equation},
    "BaseConv": {"kernel": _all_but_last},
    "BaseConvTranspose": {"kernel": _all_but_last_but_one},
    "BaseDepthwiseConv": {"kernel": _spatial},
    "BaseSeparableConv": {"depthwise_kernel": _spatial, "pointwise_kernel": _all_but_last},
    "ReversibleEmbedding": {"embeddings": _none, "reverse_embeddings": _all_but_last},
    "Embedding": {"embeddings": _none},
    "SimpleRNNCell": _RECURRENT,
    "GRUCell": _RECURRENT,
    "LSTMCell": _RECURRENT,
    "ConvLSTMCell": _RECURRENT,
}


def _chains(model: Any) -> list[Chain]:
    """Return the layers of a model, each after all that are around it; one that stands in two places twice."""
    if not model.built:
        raise ModelError(
            message(
                f"the model '{model.name}' is not built: it has no weights to prune yet.",
                "Call it once on a batch of real inputs.",
                next_step="model(x[:1])",
            )
        )
    return list(chains_within(model))


def _once(chains: Sequence[Chain]) -> list[Chain]:
    """Return the first place of each layer."""
    first: dict[int, Chain] = {}
    for chain in chains:
        first.setdefault(id(chain[-1]), chain)
    return list(first.values())


def _kernels_with_places(chains: Sequence[Chain]) -> list[tuple[Kernel, list[Chain]]]:
    """Return each kernel once, named after its first place, with all its places."""
    found: dict[int, tuple[Kernel, list[Chain]]] = {}
    for chain in chains:
        for variable, summed in _kernels_in(chain[-1]):
            kernel = Kernel(name_of(chain), variable, summed)
            found.setdefault(id(variable), (kernel, []))[1].append(chain)
    return list(found.values())


def _declared(layer: Any) -> dict[str, _Axes] | None:
    """Return where the layer's kernels are; None for a class that is none of Keras' own and derived from none."""
    classes = [kind for kind in type(layer).__mro__ if kind.__module__.startswith("keras.")]
    return next((_KERNELS[kind.__name__] for kind in classes if kind.__name__ in _KERNELS), None)


def _kernels_in(layer: Any) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Yield the layer's own kernels that hold weights as they are used, with the axes that it sums over."""
    if hasattr(layer, "get_prunable_weights"):
        for variable in layer.get_prunable_weights():
            yield variable, _all_but_last(layer, len(variable.shape))
    elif layer.built and not _is_rewritten(layer):
        for attribute, axes in (_declared(layer) or {}).items():
            variable = getattr(layer, attribute, None)
            if isinstance(variable, keras.Variable):
                yield variable, axes(layer, len(variable.shape))


def _is_rewritten(layer: Any) -> bool:
    return bool(getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False))


def _untreatable(layer: Any) -> str | None:
    """Return why a layer with weights of its own has no kernels to prune; None where it has, or needs none."""
    if hasattr(layer, "get_prunable_weights"):
        return None
    if _declared(layer):
        if not layer.built:
            return "it is not built"
        if _is_rewritten(layer):
            return "its kernel is quantized, or adapted by LoRA"
        return None
    # Vectors are biases, and scales and offsets of normalizations.
    if any(len(variable.shape) > 1 for variable in layer._trainable_variables):
        return (
            f"no kernels of its class '{type(layer).__name__}' are known "
            "(a method 'get_prunable_weights' would name them)"
        )
    return None
