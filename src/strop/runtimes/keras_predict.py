"""`keras.Model.predict`, as most people run their models today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from strop.core.contracts import KERAS, TENSORFLOW, Runtime
from strop.core.errors import ExecutionError
from strop.core.model import Form, Model
from strop.core.predictor import Session


@final
@dataclass(frozen=True)
class KerasPredict(Runtime):
    """Call ``model.predict(x, verbose=0)``: shown beside the baseline, since so many people do this."""

    takes = frozenset({Form.KERAS})
    requires = (TENSORFLOW, KERAS)
    loads_tensorflow = True
    title = "keras predict"
    distribution = "keras"
    is_for_comparison = True

    def session(self, model: Model) -> Session:
        """Return the model opened; see `Runtime.session`."""
        return _Session(model)


@final
class _Session(Session):
    def __init__(self, model: Model) -> None:
        from strop.graph.keras_files import opened

        self._model = model
        self._keras = opened(model)

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        from strop.graph.keras_models import arranged, outputs_of

        inputs = arranged(self._keras, feeds, self._model.signature)
        try:
            results = self._keras.predict(inputs, batch_size=len(feeds[0]), verbose=0)
        except (ValueError, TypeError) as error:
            raise ExecutionError(f"Keras failed while running: {error}") from None
        return outputs_of(results, self._model.signature)

    def clone(self) -> Session:
        return _Session(self._model)
