"""What becomes of the weights of a model that is taught to be quantized: the defaults, and what can be kept of them."""

from __future__ import annotations

from typing import Any, final

import keras
import numpy as np
from keras import ops

from strop.compat.tfmot.copies import copied
from strop.compat.tfmot.marked import warn_of_left_alone
from strop.compat.tfmot.marks import KeepingMark, borne, put, take_off
from strop.graph.keras_layers import layers_of
from strop.train.kernels import Kernel
from strop.train.quantized_layer import QuantizedLayer
from strop.train.shared_values import SharedValues


@final
@keras.saving.register_keras_serializable(package="strop")
class ZerosKept(KeepingMark):
    """A weight whose zeros stay zeros."""

    method = "get_prunable_weights"

    def found(self, kernel: Kernel) -> Any:
        """Return where the weights are other than zero."""
        # A variable itself, so that a compiled step sees it change.
        return kernel.variable, keras.Variable(
            kernel.weights != 0, trainable=False, dtype="bool", name="kept"
        )

    def settled(self, kept: Any) -> None:
        """Keep the zeros that there are now."""
        variable, is_other = kept
        is_other.assign(ops.convert_to_numpy(variable) != 0)

    def project(self, kept: Any, weights: Any) -> Any:
        """Return weights with the zeros that there were."""
        _, is_other = kept
        return ops.where(is_other, weights, ops.zeros((), weights.dtype))


@final
@keras.saving.register_keras_serializable(package="strop")
class ClustersKept(KeepingMark):
    """A weight whose numbers stay equal where they are equal, while their values are trained."""

    method = "get_clusterable_weights"

    def __init__(
        self, within: Any = None, *, preserve_sparsity: bool = True, **of_mark: Any
    ) -> None:
        super().__init__(within, **of_mark)
        self.preserve_sparsity = preserve_sparsity

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {**super().get_config(), "preserve_sparsity": self.preserve_sparsity}

    def found(self, kernel: Kernel) -> SharedValues | None:
        """Return the clusters that the weights are in; None where they share no values."""
        shared = SharedValues.equal(kernel, keeps_zeros=self.preserve_sparsity, is_told=True)
        if shared is None:
            warn_of_left_alone({kernel.layer: "its weights share no values"}, "clustered")
        return shared

    def settled(self, kept: SharedValues) -> None:
        """Go by the clusters that the weights have."""
        kept.settle()

    def project(self, kept: SharedValues, weights: Any) -> Any:
        """Return weights as the means of their clusters."""
        return kept.project(weights)


class QuantizeScheme:
    """What becomes of the weights of a model that is taught to be quantized."""

    def apply(self, model: Any) -> None:
        """Have the layers of a model that rounds do as the scheme says."""
        raise NotImplementedError


class Default8BitQuantizeScheme(QuantizeScheme):
    """Weights of 8 bits, of 7 in kernels that read inputs (see `strop.train.rounding`), with a grid an output channel."""

    def __init__(self, disable_per_axis: bool = False) -> None:
        """Set up.

        Args:
            disable_per_axis: Whether each layer has one grid for all its channels.
        """
        self.disable_per_axis = disable_per_axis

    def apply(self, model: Any) -> None:
        """Have the layers of a model that rounds do as the scheme says."""
        for layer in _rounding(model):
            layer.per_channel = layer.per_channel and not self.disable_per_axis


class Default8BitPrunePreserveQuantizeScheme(Default8BitQuantizeScheme):
    """The same, with zeros that stay zeros: pruned weights taught to be quantized (PQAT)."""

    def apply(self, model: Any) -> None:
        """Have the layers of a model that rounds do as the scheme says."""
        super().apply(model)
        _keep(model, ZerosKept, ZerosKept)


class Default8BitClusterPreserveQuantizeScheme(Default8BitQuantizeScheme):
    """The same, with weights that stay equal where they are equal: clustered weights taught to be quantized (CQAT, PCQAT)."""

    def __init__(self, preserve_sparsity: bool = True) -> None:
        """Set up.

        Args:
            preserve_sparsity: Whether zeros stay zeros.
        """
        super().__init__()
        self.preserve_sparsity = preserve_sparsity

    def apply(self, model: Any) -> None:
        """Have the layers of a model that rounds do as the scheme says."""
        super().apply(model)

        def make(within: Any, **of_mark: Any) -> ClustersKept:
            return ClustersKept(within, preserve_sparsity=self.preserve_sparsity, **of_mark)

        _keep(model, make, ClustersKept)


def strip_clustering_cqat(to_strip: Any) -> Any:
    """Return a model whose weights need not share values any more: another one, of the same weights.

    Raises:
        ValueError: If it is no Sequential or Functional model.
        ModelError: If one of its layers can't be copied.
    """
    made = copied(to_strip)
    take_off(made, ClustersKept)
    return made


def _rounding(model: Any) -> list[QuantizedLayer]:
    return [layer for layer in layers_of(model) if isinstance(layer, QuantizedLayer)]


def _keep(model: Any, make: Any, kind: type[KeepingMark]) -> None:
    for layer in _rounding(model):
        put(layer.layer, make, kind)
    for variable, mark in borne(model, kind):
        if variable.trainable and np.size(variable):
            mark.begin(variable)
