"""Keras and TensorFlow: ``predict``, ``tf.function``, and ``tf.function`` compiled by XLA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.by_hand.way import Array, Opened, Way, Workplace


def load_keras(workplace: Workplace) -> Any:
    """Load the case's model with Keras, which reads ``.keras`` and legacy ``.h5`` alike."""
    import keras

    return keras.models.load_model(workplace.case.model(), compile=False)


def load_functional(workplace: Workplace) -> Any:
    """Load the case's model as a Functional one.

    The converters of tf2onnx and OpenVINO do not get along with Keras 3's Sequential models; the
    same layers between the same inputs and outputs they take.
    """
    import keras

    model = load_keras(workplace)
    return (
        keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
    )


def is_saved_model(workplace: Workplace) -> bool:
    """Tell whether the case is a SavedModel, which Keras 3 does not load."""
    return workplace.case.model().is_dir()


def freeze_saved_model(folder: Path) -> tuple[Any, list[str], list[str]]:
    """Load a SavedModel as TensorFlow 1 did and turn its variables into constants.

    What remains where ``tf.saved_model.load`` refuses a folder; see "Migrate SavedModel" in
    TensorFlow's migration guide.

    Returns:
        The GraphDef, and the names of its input and output tensors.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        signature = v1.saved_model.load(session, ["serve"], str(folder)).signature_def[
            "serving_default"
        ]
        inputs = [tensor.name for tensor in signature.inputs.values()]
        outputs = [tensor.name for tensor in signature.outputs.values()]
        frozen = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [name.split(":")[0] for name in outputs]
        )
    return frozen, inputs, outputs


def callable_model(workplace: Workplace) -> Callable[[Any], Any]:
    """Return the model as a Python function of one tensor."""
    import tensorflow as tf

    if not is_saved_model(workplace):
        model = load_keras(workplace)
        return lambda x: model(x, training=False)
    frozen, inputs, outputs = freeze_saved_model(workplace.case.model())

    def import_graph() -> None:
        tf.graph_util.import_graph_def(frozen, name="")

    imported = tf.compat.v1.wrap_function(import_graph, []).prune(inputs, outputs)
    return lambda x: imported(x)


def compute_reference(workplace: Workplace) -> Path:
    """Answer all evaluation samples with the original model; candidates are compared with it."""

    def make(path: Path) -> None:
        import tensorflow as tf

        function = tf.function(callable_model(workplace), reduce_retracing=True)
        (samples,) = workplace.case.draw().evaluate.inputs.values()
        batches = [samples[start : start + 32] for start in range(0, len(samples), 32)]
        outputs = [_as_arrays(function(tf.constant(batch))) for batch in batches]
        with path.open("wb") as file:
            np.savez(file, *[np.concatenate(parts) for parts in zip(*outputs, strict=True)])

    return workplace.once("reference.npz", make, engines=("tensorflow", "keras"))


def _as_arrays(outputs: Any) -> list[Array]:
    import tensorflow as tf

    return [tensor.numpy() for tensor in tf.nest.flatten(outputs)]


def _open_predict(workplace: Workplace) -> Opened:
    model = load_keras(workplace)

    def predict(x: Array) -> list[Array]:
        outputs = model.predict(x, batch_size=workplace.batch, verbose=0)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    return Opened(predict, predict_many=predict)


def _open_function(workplace: Workplace, *, jit_compile: bool) -> Opened:
    import tensorflow as tf

    (sample,) = workplace.case.draw().evaluate.batch(0, workplace.batch).values()
    function = tf.function(
        callable_model(workplace),
        input_signature=[tf.TensorSpec(sample.shape, sample.dtype)],
        jit_compile=jit_compile,
    )
    return Opened(lambda x: _as_arrays(function(tf.constant(x))))


def _nothing_to_build(workplace: Workplace) -> None:
    """TensorFlow runs the model as it is."""


WAYS = (
    Way(
        "keras_predict",
        "model.predict(x, batch_size=batch), what most people do (keras.io: Model training APIs)",
        _nothing_to_build,
        _open_predict,
    ),
    Way(
        "tf_function",
        "the model called in a tf.function of fixed shape (tensorflow.org: Better performance "
        "with tf.function)",
        _nothing_to_build,
        lambda workplace: _open_function(workplace, jit_compile=False),
    ),
    Way(
        "tf_function_xla",
        "the same with jit_compile=True (tensorflow.org: Use XLA with tf.function)",
        _nothing_to_build,
        lambda workplace: _open_function(workplace, jit_compile=True),
    ),
)
