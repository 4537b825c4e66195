"""`quantize`: a Keras model that computes in integers, taught to or not, in the form that an engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.api.compressing import Compressed, compress, step_of
from strop.core import registry
from strop.core.errors import OutputError, ParameterError, SamplesError, message
from strop.core.parameters import as_option
from strop.core.recipe import Step
from strop.engine.machine import this_machine
from strop.search.events import Listener, Note, ignore
from strop.search.request import Request

AWARE = "quantize.aware"
# What parameters are called here whose names are taken.
RENAMED = {"calibration_samples": "samples"}
_FREEZE = "convert.graph_def"
_WORD = "quantized"


@dataclass(frozen=True)
class Route:
    """How a Keras model gets into a form, in integers.

    Attributes:
        convert: The pass that makes the form.
        calibrate: The pass that quantizes what is in it, without training.
        may_saturate: Whether the engine's sums of products of 8 bits may, where the processor has none of its own for them.
    """

    convert: str
    calibrate: str
    may_saturate: bool = True


ROUTES: Mapping[str, Route] = {
    ".tflite": Route("convert.litert", "quantize.litert_static", may_saturate=False),
    ".xml": Route("convert.openvino", "quantize.openvino_static"),
    ".onnx": Route("convert.onnx", "quantize.onnx_static"),
}


def quantize(
    model: Any,
    samples: Any = None,
    output: str | Path | None = None,
    *,
    aware: bool = False,
    request: Request | None = None,
    listen: Listener = ignore,
    **settings: Any,
) -> Compressed:
    """Make a Keras model compute in integers, in LiteRT, OpenVINO or ONNX Runtime.

    Ranges are found with some samples; where that costs too much quality, `aware` teaches the model to do with integers
    before it is converted.

    Args:
        model: A ``.keras`` or ``.h5`` file, or a `keras.Model`, which stays as it is.
        samples: As for `optimize`; ranges are found with them, and its train split is what the model is taught on.
        output: The file to write, whose ending says the form: ``.tflite``, ``.xml`` or ``.onnx``; ``quantized.tflite``
            in the working folder where None.
        aware: Whether the model is taught again.
        request: What else is said; see `Request`. Its goal's limits are what the result is held to.
        listen: Told what happens.
        **settings: The parameters of the pass ``quantize.aware`` where the model is taught, else those of
            ``quantize.litert_static``, ``quantize.openvino_static`` or ``quantize.onnx_static``, whose ``samples`` are
            called ``calibration_samples`` here. Where nothing is said of ``weight_bits`` it is 7 for an engine whose
            sums of 8 bits may saturate on this machine.

    Raises:
        ModelError: If it is no Keras model, or nothing in it computes in integers.
        SamplesError: If there are no samples.
        ParameterError: If a setting is unknown or not allowed there.
        OutputError: If the output can't be written, is the model itself, or tells no form.
        TrialError: If training, conversion or quantization fails.
    """
    target = Path(output or f"{_WORD}.tflite")
    given = {RENAMED.get(name, name): value for name, value in settings.items()}
    if _needs_fewer_bits(target.suffix, given, aware=aware):
        given["weight_bits"] = 7
        listen(
            Note(
                "weights have 7 bits: sums of 8 may saturate in this engine on a processor like this"
            )
        )
    steps = _steps(target.suffix, given, aware=aware)
    if samples is None:
        raise SamplesError(
            message(
                "there are no samples to find the ranges of integers with.",
                "Some hundreds do, of the kind that the model is for.",
                next_step="--data samples.npz",
            )
        )
    # What an engine has no operation for it hasn't for the taught model either; that is written out step by step too.
    ways = (Step(_FREEZE, {"unroll": True}), Step(_FREEZE))
    ahead = [[freeze, *steps[1:]] for freeze in ways] if aware else []
    return compress(
        steps, model, samples, target, word=_WORD, request=request, listen=listen, ahead=ahead
    )


def _needs_fewer_bits(suffix: str, settings: Mapping[str, Any], *, aware: bool) -> bool:
    """Say whether sums might saturate here, and neither the user nor the pass sees to that."""
    route = ROUTES.get(suffix)
    if route is None or not route.may_saturate or this_machine().has_integer_dot_products:
        return False
    done = AWARE if aware else route.calibrate
    return "weight_bits" in registry.passes.get(done).defaults() and "weight_bits" not in settings


def _steps(suffix: str, settings: Mapping[str, Any], *, aware: bool) -> list[Step]:
    route = ROUTES.get(suffix)
    if route is None:
        raise OutputError(
            message(
                f"'{suffix or 'no ending'}' tells no form that has integers.",
                f"An output ends in {', '.join(ROUTES)}.",
                next_step=f"--output {_WORD}.tflite",
            )
        )
    done = AWARE if aware else route.calibrate
    _refuse_others_settings(settings, done, aware=aware)
    if aware and settings.get("activation_bits", 8) != 8 and suffix != ".tflite":
        raise ParameterError(
            message(
                f"activation_bits = {settings['activation_bits']}: only LiteRT has integer kernels of that width.",
                next_step=f"--output {_WORD}.tflite",
            )
        )
    if aware:
        return [step_of(AWARE, settings), Step(route.convert)]
    return [Step(_FREEZE), Step(route.convert), step_of(route.calibrate, settings)]


def _refuse_others_settings(settings: Mapping[str, Any], done: str, *, aware: bool) -> None:
    """Raise where a setting is one of the other way to quantize, and say so."""
    own, taught = (registry.passes.get(name).defaults() for name in (done, AWARE))
    for name in settings:
        if name not in own and name in taught and not aware:
            raise ParameterError(
                message(
                    f"{name} is for models that are taught to compute in integers.",
                    next_step="strop quantize MODEL --data SAMPLES --aware "
                    + as_option(name, settings[name]),
                )
            )
