"""Weight clustering: the weights of each layer share a few values, which are taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from strop.core.contracts import Context, Unchanged
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.passes import TaughtPass

if TYPE_CHECKING:
    pass


@final
@dataclass(frozen=True)
class ClusterWeights(TaughtPass):
    """Give the weights of each layer a few values, and teach these by data and by the original.

    Before:  x ── Conv2D(W) ── y
    After:   x ── Conv2D(c[A]) ── y      with a table c of `clusters` values, and A the place in it for each weight

    Biases and normalizations keep values of their own. A zipped file needs log₂ `clusters` bits a weight, or fewer.
    """

    place = 40
    only_shrinks_weights = True
    price = "no engine computes with tables of values: smaller zipped, not faster"

    clusters: int = parameter(
        16, low=2, search=(16, 32), doc="most values of a layer's kernel, or of a channel of it"
    )
    initialization: str = parameter(
        "kmeans_plus_plus",
        choices=("kmeans_plus_plus", "linear", "density", "random"),
        doc="where the values are sought first: far from each other, evenly between the extremes, one for as many "
        "weights each, or by chance",
    )
    per_channel: bool = parameter(False, doc="give each output channel values of its own")
    preserve_sparsity: bool = parameter(
        True, doc="keep zeros zero, one of the values being theirs"
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the clustered model."""
        from strop.graph.keras_files import opened
        from strop.train.clustering import Clustering

        live = opened(model)
        clustering = Clustering(
            live,
            self.clusters,
            initialization=self.initialization,
            per_channel=self.per_channel,
            preserve_sparsity=self.preserve_sparsity,
            exclude=self.exclude,
            seed=context.seed,
        )
        if not clustering.kernels:
            left = [f"{name}: {reason}" for name, reason in clustering.left_alone.items()]
            return Unchanged("; ".join(["no layer has weights to cluster", *left]))
        told = {}
        if self.epochs:
            told = self.teach(live, model, context, callbacks=[clustering])
        path = context.workspace / "model.keras"
        live.save(path)
        report = clustering.report()
        left_alone = {**model.facts.get("left_alone", {}), **report.left_alone}
        return model.derive(
            self, Form.KERAS, path, clusters=dict(report.values), left_alone=left_alone, **told
        )
