"""A callback that shows the values that weights share."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
from keras import ops

from strop.compat.tfmot.clustering.marking import ClusterWeights
from strop.compat.tfmot.marks import borne


class ClusteringSummaries(keras.callbacks.TensorBoard):  # type: ignore[misc]
    """Shows in TensorBoard, beside what Keras does, the values of each clustered weight, and how many they are.

    The runs are in the folder `metrics` of `log_dir`.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        cluster_update_freq: str | int = "epoch",
        **kwargs: Any,
    ) -> None:
        """Set up.

        Args:
            log_dir: A folder, which is made where it is not there.
            cluster_update_freq: ``epoch``, ``batch``, or a number of batches.
            **kwargs: As of `keras.callbacks.TensorBoard`.

        Raises:
            ValueError: If it is no such frequency.
        """
        is_number = isinstance(cluster_update_freq, int) and cluster_update_freq > 0
        if cluster_update_freq not in ("epoch", "batch") and not is_number:
            raise ValueError(
                f"cluster_update_freq must be 'epoch', 'batch' or a number of batches, not {cluster_update_freq!r}"
            )
        super().__init__(log_dir=str(log_dir), **kwargs)
        self._every = 1 if cluster_update_freq == "batch" else cluster_update_freq
        self._batches = 0
        self._metrics: Any = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write the values where it is time."""
        super().on_train_batch_end(batch, logs)
        self._batches += 1
        if isinstance(self._every, int) and self._batches % self._every == 0:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the values where it is time."""
        super().on_epoch_end(epoch, logs)
        if self._every == "epoch":
            self._write()

    def _write(self) -> None:
        if self._metrics is None:
            self._metrics = self.summary.create_file_writer(os.path.join(self.log_dir, "metrics"))  # noqa: PTH118 - may be a bucket
        step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        with self._metrics.as_default():
            for variable, _ in borne(self.model, ClusterWeights):
                values = np.unique(ops.convert_to_numpy(variable))
                self.summary.scalar(f"{variable.path}/clusters", values.size, step=step)
                self.summary.histogram(f"{variable.path}/values", values, step=step)
        self._metrics.flush()
