"""The watch over a training: it keeps the best weights, ends what leads nowhere, and tells how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

Report = Callable[[float, str], None]
"""Told what share is done, and what there is to say."""
SECONDS_A_LOOK = 1.0


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the best weights, ends what leads nowhere, and tells how far it is.

    Attributes:
        losses: On what was held out, an epoch each since training began or was gone on with.
        best: The epoch (from 0) whose weights are kept; None where none are.
        has_diverged: Whether it ended training because the loss or a weight was no number any more.
    """

    def __init__(
        self,
        model: Any,
        *,
        epochs: int,
        steps: int,
        patience: int,
        keep_from: int,
        is_enough: Callable[[], bool] | None,
        report: Report,
        kept: Path | None,
    ) -> None:
        """Set up.

        Args:
            model: The `keras.Model` whose weights are kept, which need not be the one that is fitted.
            epochs: How many there are to be at most.
            steps: Batches an epoch.
            patience: Epochs without a better loss, after which it ends.
            keep_from: The first epoch whose weights may be kept.
            is_enough: Asked after each epoch that counts; where it says so, training ends with that epoch's weights.
            report: Told what share is done, and what there is to say.
            kept: The file to keep the best weights in, and to go on from where it is there; None for none.
        """
        super().__init__()
        self.losses: list[float] = []
        self.best: int | None = None
        self.has_diverged = False
        self._least = math.inf
        self._taught, self._report = model, report
        self._epochs, self._steps, self._patience = epochs, steps, patience
        self._keep_from, self._is_enough, self._kept = keep_from, is_enough, kept
        self._before: list[Any] = model.get_weights()
        self._weights: list[Any] | None = None
        # The first step of a process is not measured: it is compiled then.
        self._started, self._begun, self._done = math.nan, 0, 0
        self._looked = -math.inf
        if kept and kept.exists():
            self._go_on_from(kept)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the steps of epochs before an interruption as done."""
        if not self._done:
            self._done = epoch * self._steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell how far it is, and end where the loss is no number."""
        self._done += 1
        now = time.monotonic()
        if math.isnan(self._started):
            self._started, self._begun = now, self._done
        if now - self._looked < SECONDS_A_LOOK:
            return
        self._looked = now
        self._report(min(self._done / (self._steps * self._epochs), 1.0), self._told(now))
        self._stop_if_diverged((logs or {}).get("loss", 0.0))

    def _told(self, now: float) -> str:
        if self._done == self._begun:
            return "training"
        each = (now - self._started) / (self._done - self._begun)
        left = each * max(self._steps * self._epochs - self._done, 0)
        return f"training, about {left:.0f} s left"

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the weights where they are the best so far."""
        loss = float((logs or {}).get("val_loss", math.nan))
        # Some kernels make numbers of NaN: a ReLU of oneDNN's gives 0 for it.
        self._stop_if_diverged(loss if _is_finite(self._taught) else math.nan)
        if self.has_diverged:
            return
        self.losses.append(loss)
        if epoch < self._keep_from:
            return
        is_enough = bool(self._is_enough and self._is_enough())
        if is_enough or self.best is None or loss < self._least:
            self.best, self._least = epoch, loss
            self._weights = self._taught.get_weights()
            self._keep()
        if is_enough or epoch - self.best >= self._patience:
            self.model.stop_training = True

    def _keep(self) -> None:
        """Write the best weights down, for what goes on after an interruption."""
        if self._kept and self._weights is not None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            draft = self._kept.with_suffix(".draft")
            arrays = {f"weight_{place}": weight for place, weight in enumerate(self._weights)}
            told = {"best": np.asarray(self.best), "least": np.asarray(self._least)}
            with draft.open("wb") as file:
                np.savez(file, allow_pickle=False, **told, **arrays)
            draft.replace(self._kept)

    def _go_on_from(self, kept: Path) -> None:
        with np.load(kept) as found:
            self.best, self._least = int(found["best"]), float(found["least"])
            # NumPy writes down the bytes of bfloat16, and not what they are.
            self._weights = [
                found[f"weight_{place}"].view(weight.dtype)
                for place, weight in enumerate(self._before)
            ]

    def restore(self) -> None:
        """Give the model its best weights, or, where it diverged before there were any, those it came with."""
        if self._weights is not None:
            self._taught.set_weights(self._weights)
        elif self.has_diverged:
            self._taught.set_weights(self._before)

    def _stop_if_diverged(self, loss: float) -> None:
        if not math.isfinite(float(loss)):
            self.has_diverged = True
            self.model.stop_training = True


def _is_finite(model: Any) -> bool:
    """Say whether none of a model's weights is NaN or infinite."""
    return all(
        bool(np.isfinite(keras.ops.convert_to_numpy(weight).astype(np.float32)).all())
        for weight in model.weights
        if "float" in keras.backend.standardize_dtype(weight.dtype)
    )
