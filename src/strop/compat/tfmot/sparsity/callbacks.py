"""Callbacks that prune while a model is trained, and that show how far it has come."""

from __future__ import annotations

import os
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from strop.compat.tfmot.marks import borne, marks_in
from strop.compat.tfmot.sparsity.marking import PruneLowMagnitude, prunings_of


class UpdatePruningStep(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts the steps of training and prunes what is marked; a marked model can't be trained without it.

    In a training loop of one's own: `set_model`, `on_train_begin`, `on_train_batch_begin` before each step and
    `on_epoch_end` after each epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._marks: list[tuple[Any, Any]] = []
        self._batch = -1  # the last that was counted in this epoch
        self._waits = False  # for a model that is built in its first step

    def on_train_begin(self, logs: Any = None) -> None:
        """Have masks in the training step."""
        self._batch, self._waits = -1, not self.model.built
        if self._waits:
            for mark in marks_in(self.model, PruneLowMagnitude):
                mark.is_under_way = True
        else:
            self._begin()

    def _begin(self) -> None:
        self._marks, self._waits = prunings_of(self.model), False
        if not self._marks:
            warnings.warn("no layer of the model is marked to be pruned", stacklevel=2)
        if any(mark.has_refused for mark, _ in self._marks):
            _renew_optimizer(self.model)
        for mark, hook in self._marks:
            mark.is_under_way, mark.has_refused = True, False
            hook.set_model(self.model)
            hook.on_train_begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find out which step it is, where training goes on that an earlier process began."""
        self._batch = -1
        steps = (self.params or {}).get("steps") or 0
        for mark, _ in self._marks:
            mark.step = max(mark.step, epoch * steps)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Count the step, and drop weights where it is time."""
        if self._waits and self.model.built:
            self._begin()
        # In loops of people's own, batches may all have one number.
        ahead = max(batch - self._batch, 1)
        self._batch = batch
        for mark, hook in self._marks:
            mark.step += ahead
            hook.advance_to(mark.step - 1)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the other steps of an execution of several, and the first of a model that was built by it."""
        is_built_by_it = self._waits and self.model.built
        if is_built_by_it:
            self._begin()
            self._batch = -1
        # Keras gives the last step that an execution has room for, which may lie behind the epoch's end.
        steps = (self.params or {}).get("steps")
        last = min(batch, steps - 1) if steps else batch
        ahead = max(last - self._batch, 0)
        self._batch += ahead
        for mark, hook in self._marks:
            mark.step += ahead
            if is_built_by_it:
                hook.advance_to(mark.step - 1)

    def on_epoch_end(self, epoch: Any = None, logs: Any = None, *, batch: Any = None) -> None:
        """Drop what is due before the next step, where that is the last of it: there may be no next step."""
        for mark, hook in self._marks:
            share = hook.schedule.sparsity_at(mark.step)
            if share >= hook.schedule.target:
                hook.update(mark.step)

    def on_train_end(self, logs: Any = None) -> None:
        """Take the masks out of the training step, and leave the zeros."""
        for _, hook in self._marks:
            hook.on_train_end()
        for mark in (*marks_in(self.model, PruneLowMagnitude), *(mark for mark, _ in self._marks)):
            mark.is_under_way = False


class PruningSummaries(keras.callbacks.TensorBoard):  # type: ignore[misc]
    """Shows in TensorBoard, beside what Keras does, how sparse each pruned weight is at the beginning of an epoch.

    The runs are in the folder `metrics` of `log_dir`: the share of zeros, and the least magnitude that stayed
    (`threshold`).
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], update_freq: str | int = "epoch", **kwargs: Any
    ) -> None:
        """Set up.

        Args:
            log_dir: A folder, which is made where it is not there.
            update_freq: As of `keras.callbacks.TensorBoard`.
            **kwargs: As of `keras.callbacks.TensorBoard`.

        Raises:
            ValueError: If there is no name of a folder.
        """
        if not isinstance(log_dir, str | os.PathLike) or not str(log_dir):
            raise ValueError(f"log_dir must be the path of a folder, not {log_dir!r}")
        super().__init__(log_dir=str(log_dir), update_freq=update_freq, **kwargs)
        self._metrics: Any = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Write how sparse the weights are."""
        super().on_epoch_begin(epoch, logs)
        if self._metrics is None:
            self._metrics = self.summary.create_file_writer(os.path.join(self.log_dir, "metrics"))  # noqa: PTH118 - may be a bucket
        step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        with self._metrics.as_default():
            for name, value in _figures(self.model).items():
                self.summary.scalar(name, value, step=step)
        self._metrics.flush()


def _renew_optimizer(model: Any) -> None:
    """Give a model an optimizer like its own, where that was made in a step that could not be compiled.

    Its variables would never get values. One that was used before has them.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not int(ops.convert_to_numpy(optimizer.iterations)):
        model.optimizer = type(optimizer).from_config(optimizer.get_config())


def _figures(model: Any) -> dict[str, float]:
    """Return the share of zeros and the least magnitude that is none, for each weight that is to be pruned."""
    found: dict[str, float] = {}
    for variable, _ in borne(model, PruneLowMagnitude):
        magnitudes = np.abs(ops.convert_to_numpy(variable))
        others = magnitudes[magnitudes > 0]
        found[f"{variable.path}/sparsity"] = 1 - others.size / magnitudes.size
        found[f"{variable.path}/threshold"] = float(others.min()) if others.size else 0.0
    return found
