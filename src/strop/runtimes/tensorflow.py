"""TensorFlow itself: Keras models in a `tf.function`, SavedModels by their signature, frozen graphs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from strop.core.contracts import TENSORFLOW, Runtime
from strop.core.errors import ExecutionError
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.core.predictor import Session
from strop.graph.refusal import gist

# Without it TensorFlow clusters for accelerators alone, whatever `set_jit` is told. It reads its flags when it first
# runs a function; where `set_jit` is told nothing, this one changes nothing.
_CLUSTERING = "--tf_xla_cpu_global_jit"


@final
@dataclass(frozen=True)
class TensorFlow(Runtime):
    """Run Keras models, SavedModels and frozen graphs in TensorFlow."""

    takes = frozenset({Form.KERAS, Form.SAVED_MODEL, Form.GRAPH_DEF})
    requires = (TENSORFLOW,)
    loads_tensorflow = True
    title = "TensorFlow"
    distribution = "tensorflow"

    jit: str = parameter(
        "off",
        choices=("off", "xla", "auto"),
        search=("off", "xla", "auto"),
        doc="XLA: off, for the whole model, or by auto-clustering",
    )
    threads: int = parameter(
        0,
        low=0,
        search=(0, 1),
        doc="threads within one operation; 0 leaves it to TensorFlow, which takes all cores",
    )

    @classmethod
    def environment(cls) -> dict[str, str]:
        """Return what lets auto-clustering happen on the CPU; see `Runtime.environment`."""
        flags = os.environ.get("TF_XLA_FLAGS", "").split()
        return {
            "TF_XLA_FLAGS": " ".join([*flags, *([] if _CLUSTERING in flags else [_CLUSTERING])])
        }

    def session(self, model: Model) -> Session:
        """Return the model opened; see `Runtime.session`.

        With ``jit="auto"`` it sets ``TF_XLA_FLAGS`` in this process where that lacks what clustering needs, and warns
        where TensorFlow, imported already, may have read it before.
        """
        if self.jit == "auto":
            _allow_clustering()
        return _Session(model, self)


@final
class _Session(Session):
    """One concrete function a shape."""

    def __init__(self, model: Model, runtime: TensorFlow) -> None:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        self._model, self._runtime, self._tf = model, runtime, tf
        _set_threads(tf, runtime.threads)
        tf.config.optimizer.set_jit("autoclustering" if runtime.jit == "auto" else False)
        try:
            self._function = _functions[model.form](tf, model)
        except (ValueError, TypeError, OSError, DecodeError, tf.errors.OpError) as error:
            raise ExecutionError(f"TensorFlow can't open the model: {gist(error)}") from None
        self.batch_sizes = (model.binding.batch,) if model.binding.batch else None
        self._concrete: dict[tuple[tuple[int, ...], ...], Any] = {}

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        key = tuple(feed.shape for feed in feeds)
        try:
            function = self._concrete.get(key) or self._trace(key)
            results = function(*[self._tf.constant(feed) for feed in feeds])
            return [result.numpy() for result in results]
        except (ValueError, TypeError, self._tf.errors.OpError) as error:
            raise ExecutionError(f"TensorFlow failed while running: {gist(error)}") from None

    def _trace(self, key: tuple[tuple[int, ...], ...]) -> Any:
        tf, bound = self._tf, self._model.binding.inputs
        specs = [tf.TensorSpec(shape, b.dtype) for shape, b in zip(key, bound, strict=True)]
        jit = True if self._runtime.jit == "xla" else None
        function = tf.function(self._function, jit_compile=jit, autograph=False)
        self._concrete[key] = function.get_concrete_function(*specs)
        return self._concrete[key]

    def clone(self) -> Session:
        return _Session(self._model, self._runtime)

    def close(self) -> None:
        self._concrete = {}
        if self._runtime.jit == "auto":  # it is the whole process's, and others come after us
            self._tf.config.optimizer.set_jit(False)


def _allow_clustering() -> None:
    needed = TensorFlow.environment()
    if os.environ.get("TF_XLA_FLAGS") == needed["TF_XLA_FLAGS"]:
        return
    os.environ.update(needed)
    if "tensorflow" in sys.modules:
        warnings.warn(
            "TensorFlow was imported before: jit='auto' may do nothing in this process. Start it with "
            f"TF_XLA_FLAGS={_CLUSTERING}, or open the model before TensorFlow runs anything.",
            RuntimeWarning,
            stacklevel=4,  # who called `Runtime.open`
        )


def _set_threads(tf: Any, threads: int) -> None:
    if not threads or tf.config.threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        raise ExecutionError(
            "TensorFlow fixes its threads when it first runs; this process already runs with others"
        ) from None


def _keras_function(tf: Any, model: Model) -> Callable[..., list[Any]]:
    from strop.graph.keras_files import opened
    from strop.graph.keras_models import by_name

    loaded = opened(model)

    def function(*tensors: Any) -> list[Any]:
        return by_name(loaded, tensors, model.signature)

    return function


def _saved_model_function(tf: Any, model: Model) -> Callable[..., list[Any]]:
    from strop.graph.saved_models import serving_function

    return serving_function(model)


def _graph_function(tf: Any, model: Model) -> Callable[..., list[Any]]:
    from strop.graph.frozen import imported, read_graph

    bound = model.binding
    names = [[b.name for b in side] for side in (bound.inputs, bound.outputs)]
    pruned = imported(read_graph(model.path), *names)
    return lambda *tensors: list(pruned(*tensors))


_functions: dict[Form, Callable[[Any, Model], Callable[..., list[Any]]]] = {
    Form.KERAS: _keras_function,
    Form.SAVED_MODEL: _saved_model_function,
    Form.GRAPH_DEF: _graph_function,
}
