"""ONNX Runtime: float32, dynamic int8 and static int8 in QDQ format, through tf2onnx.

Sessions run by default settings: all graph optimizations, a thread a core.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.by_hand.way import Array, Opened, Way, Workplace
from benchmarks.by_hand.with_tensorflow import freeze_saved_model, is_saved_model, load_functional

_CALIBRATION_SAMPLES = 100

_FLOAT32 = "onnxruntime_float32.onnx"
_QUANTIZER = ("onnxruntime.quantization.shape_inference",)


def _convert(workplace: Workplace) -> Path:

    def make(path: Path) -> None:
        import tf2onnx

        if is_saved_model(workplace):
            frozen, inputs, outputs = freeze_saved_model(workplace.case.model())
            tf2onnx.convert.from_graph_def(
                frozen, input_names=inputs, output_names=outputs, output_path=str(path)
            )
        else:
            tf2onnx.convert.from_keras(load_functional(workplace), output_path=str(path))

    return workplace.once(_FLOAT32, make, engines=("keras", "tf2onnx"))


def _prepare_for_quantization(workplace: Workplace) -> Path:
    source = _convert(workplace)

    def make(path: Path) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        quant_pre_process(str(source), str(path))

    return workplace.once("onnxruntime_prepared.onnx", make, engines=_QUANTIZER)


def _quantize_dynamic(workplace: Workplace, source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The integer convolution of dynamic quantization is made for unsigned weights: with the
    # default it runs four times slower yet.
    convolutional = workplace.case.kind == "convolutional"
    weight_type = QuantType.QUInt8 if convolutional else QuantType.QInt8
    quantize_dynamic(source, target, weight_type=weight_type)


def _quantize_static(
    workplace: Workplace, source: Path, target: Path, *, unsigned_activations: bool
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        source,
        target,
        _calibration_reader(workplace, source),
        quant_format=QuantFormat.QDQ,
        per_channel=True,  # "if accuracy drops"; it did, by 0.3 to 2.5 dB, and costs no time
        activation_type=QuantType.QUInt8 if unsigned_activations else QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )


def _calibration_reader(workplace: Workplace, model: Path) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    name = onnx.load(str(model), load_external_data=False).graph.input[0].name
    (samples,) = workplace.case.draw().calibrate.inputs.values()
    feeds = iter([{name: samples[i : i + 1]} for i in range(_CALIBRATION_SAMPLES)])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(feeds, None)

    return Reader()


Quantize = Callable[[Workplace, Path, Path], None]


def _build_quantized(name: str, quantize: Quantize, workplace: Workplace) -> Path:
    source = _prepare_for_quantization(workplace)
    return workplace.once(
        f"{name}.onnx", lambda path: quantize(workplace, source, path), engines=_QUANTIZER
    )


def _open(name: str, workplace: Workplace) -> Opened:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(workplace.folder / f"{name}.onnx"), providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    return Opened(lambda x: session.run(None, {entry.name: x}))


def _quantized_way(name: str, how: str, quantize: Quantize) -> Way:
    return Way(name, how, partial(_build_quantized, name, quantize), partial(_open, name))


WAYS = (
    Way(
        "onnxruntime_float32",
        "tf2onnx.convert.from_keras, InferenceSession by default "
        "(onnxruntime.ai: Get started with Keras)",
        _convert,
        partial(_open, "onnxruntime_float32"),
    ),
    _quantized_way(
        "onnxruntime_dynamic_int8",
        "quant_pre_process, quantize_dynamic (onnxruntime.ai: Quantize ONNX models)",
        _quantize_dynamic,
    ),
    _quantized_way(
        "onnxruntime_static_int8",
        "quant_pre_process, quantize_static, QDQ, S8S8, weights per channel (the same page: "
        "S8S8 with QDQ should be the first choice)",
        partial(_quantize_static, unsigned_activations=False),
    ),
    _quantized_way(
        "onnxruntime_static_int8_u8s8",
        "the same with unsigned activations, which the same page names as what x86-64 has fast "
        "instructions for",
        partial(_quantize_static, unsigned_activations=True),
    ),
)
