"""OpenVINO: float32, bfloat16, and int8 by NNCF.

The batch size is fixed by ``reshape`` before the model is compiled, as "Optimizing for latency"
advises. The performance hint is LATENCY for batch 1 and for batch 32: "High-level performance
hints" keeps THROUGHPUT for applications that run several requests in parallel, and here one
request runs at a time; with THROUGHPUT it would get one of several streams, and a part of the
cores.
"""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.by_hand.way import Array, Opened, Way, Workplace
from benchmarks.by_hand.with_tensorflow import is_saved_model, load_functional

_FLOAT = "openvino_float.xml"
_INT8 = "openvino_int8.xml"


def _save(model: Any, path: Path) -> None:
    """Write the pair of files that is an OpenVINO model; the weights keep their precision."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)


def _convert(workplace: Workplace) -> Path:

    def make(folder: Path) -> None:
        import openvino

        folder.mkdir()
        source = (
            str(workplace.case.model())
            if is_saved_model(workplace)
            else load_functional(workplace)
        )
        _save(openvino.convert_model(source), folder / _FLOAT)

    return workplace.once("openvino_float", make, engines=("keras", "openvino")) / _FLOAT


def _build_int8(workplace: Workplace) -> Path:
    source = _convert(workplace)
    (samples,) = workplace.case.draw().calibrate.inputs.values()

    def make(folder: Path) -> None:
        import nncf
        import openvino

        folder.mkdir()
        # "Basic quantization flow": transformers are to be named, the rest runs by default.
        transformer = workplace.case.kind == "transformer"
        model_type = nncf.ModelType.TRANSFORMER if transformer else None
        dataset = nncf.Dataset([samples[i : i + 1] for i in range(len(samples))])
        model = openvino.Core().read_model(source)
        _save(nncf.quantize(model, dataset, model_type=model_type), folder / _INT8)

    return workplace.once("openvino_int8", make, engines=("openvino", "nncf")) / _INT8


def _open(file: str, precision: str | None, workplace: Workplace) -> Opened:
    import openvino
    from openvino.properties import hint

    core = openvino.Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capabilities:
        raise RuntimeError(f"this processor has no bfloat16 instructions, only {capabilities}")
    model = core.read_model(workplace.folder / Path(file).stem / file)
    shape = model.inputs[0].partial_shape
    shape[0] = workplace.batch
    model.reshape(shape)
    settings: dict[Any, Any] = {hint.performance_mode: hint.PerformanceMode.LATENCY}
    if precision is not None:
        settings[hint.inference_precision] = getattr(openvino.Type, precision)
    compiled = core.compile_model(model, "CPU", settings)
    outputs = compiled.outputs

    def predict(x: Array) -> list[Array]:
        result = compiled(x)
        return [result[output] for output in outputs]

    return Opened(predict)


WAYS = (
    Way(
        "openvino_float32",
        "convert_model, compiled with inference_precision f32 (docs.openvino.ai: Convert from "
        "TensorFlow; Precision control)",
        _convert,
        partial(_open, _FLOAT, "f32"),
    ),
    Way(
        "openvino_bfloat16",
        "the same with inference_precision bf16, the default where the processor has it "
        "(CPU device: Floating point data types specifics)",
        _convert,
        partial(_open, _FLOAT, "bf16"),
    ),
    Way(
        "openvino_int8",
        "nncf.quantize with calibration samples, compiled by default (docs.openvino.ai: Basic "
        "quantization flow)",
        _build_int8,
        partial(_open, _INT8, None),
    ),
)
