"""LiteRT: float32, float16, dynamic-range int8 and static int8, through the TFLite converter.

The model is exported as a SavedModel with the batch size fixed, the way the documentation shows
for recurrent networks ("Convert RNN models"), because it works for all kinds: with the batch left
open the transformer and the LSTM do not convert, and convolutional networks are no faster. A
TF1-style SavedModel goes through the v1 converter and is resized when it is opened.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.by_hand.way import Array, Opened, Way, Workplace
from benchmarks.by_hand.with_tensorflow import is_saved_model, load_keras

# "Post-training quantization" asks for 100 to 500 samples; its examples take 100.
_CALIBRATION_SAMPLES = 100


def _export(workplace: Workplace) -> Path:
    """Return a SavedModel for the converter: the case's own, or one exported for this batch."""
    if is_saved_model(workplace):
        return workplace.case.model()

    def make(folder: Path) -> None:
        import keras

        model = load_keras(workplace)
        signature = [
            keras.InputSpec(shape=(workplace.batch, *tensor.shape[1:]), dtype=tensor.dtype)
            for tensor in model.inputs
        ]
        model.export(folder, format="tf_saved_model", input_signature=signature, verbose=False)

    return workplace.once(f"saved_model_batch{workplace.batch}", make, engines=("keras",))


def _converter(workplace: Workplace, saved_model: Path) -> Any:
    import tensorflow as tf

    lite = tf.compat.v1.lite if is_saved_model(workplace) else tf.lite
    return lite.TFLiteConverter.from_saved_model(str(saved_model))


def _set_nothing(converter: Any, workplace: Workplace, parts: dict[str, float]) -> None:
    """Keep weights and arithmetic in float32."""


def _set_float16(converter: Any, workplace: Workplace, parts: dict[str, float]) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _set_dynamic(converter: Any, workplace: Workplace, parts: dict[str, float]) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _set_static(converter: Any, workplace: Workplace, parts: dict[str, float]) -> None:
    """Quantize weights and activations; inputs and outputs stay float, as documented for CPUs."""
    import tensorflow as tf

    (samples,) = workplace.case.draw().calibrate.inputs.values()

    batch = 1 if is_saved_model(workplace) else workplace.batch
    batches = min(_CALIBRATION_SAMPLES, len(samples)) // batch

    def representative_dataset() -> Iterator[list[Array]]:
        start = time.perf_counter()
        # The converter runs what it got before it asks for more, so this times the calibration.
        for index in range(batches):
            yield [samples[index * batch : (index + 1) * batch]]
        parts["calibration"] = time.perf_counter() - start

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset


Setting = Callable[[Any, Workplace, dict[str, float]], None]


def _file_name(name: str, workplace: Workplace) -> str:
    if is_saved_model(workplace):  # its batch is left open
        return f"{name}.tflite"
    return f"{name}_batch{workplace.batch}.tflite"


def _build(name: str, setting: Setting, workplace: Workplace) -> Path:
    saved_model = _export(workplace)

    def make(path: Path) -> dict[str, float]:
        parts: dict[str, float] = {}
        converter = _converter(workplace, saved_model)
        setting(converter, workplace, parts)
        path.write_bytes(converter.convert())
        return parts

    return workplace.once(_file_name(name, workplace), make, engines=("tensorflow",))


def _open(name: str, workplace: Workplace) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    path = workplace.folder / _file_name(name, workplace)
    interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
    (entry,) = interpreter.get_input_details()
    shape = [workplace.batch, *entry["shape"][1:]]
    if list(entry["shape"]) != shape:
        interpreter.resize_tensor_input(entry["index"], shape)
    interpreter.allocate_tensors()
    outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def predict(x: Array) -> list[Array]:
        interpreter.set_tensor(entry["index"], x)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return Opened(predict)


def _way(name: str, how: str, setting: Setting) -> Way:
    return Way(name, how, partial(_build, name, setting), partial(_open, name))


WAYS = (
    _way(
        "litert_float32",
        "TFLiteConverter.from_saved_model, Interpreter with a thread a core "
        "(ai.google.dev/edge/litert: Convert TensorFlow models)",
        _set_nothing,
    ),
    _way(
        "litert_float16",
        "the same with supported_types = [tf.float16] (Post-training float16 quantization)",
        _set_float16,
    ),
    _way(
        "litert_dynamic_int8",
        "the same with optimizations = [DEFAULT] (Post-training dynamic range quantization)",
        _set_dynamic,
    ),
    _way(
        "litert_static_int8",
        "the same with a representative dataset, float inputs and outputs "
        "(Post-training quantization: integer with float fallback)",
        _set_static,
    ),
)
