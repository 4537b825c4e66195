"""`strop quantize`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click

from strop.api.quantizing import AWARE, RENAMED, ROUTES, quantize
from strop.cli.options import command_line, goal_of, limit_options, request_of, source_options
from strop.cli.technique import option_of, show, value_of
from strop.core import registry
from strop.core.parameters import Parameter, Value

_CALIBRATED = {suffix: route.calibrate for suffix, route in ROUTES.items()}


@click.argument("model")
@source_options
@limit_options
@click.option("--aware", is_flag=True, help="teach the model to compute in integers first")
@click.option(
    "--output", help="the .tflite, .xml or .onnx file to write  [default: quantized.tflite]"
)
def run(model: str, **given: Any) -> None:
    """Make a Keras model compute in integers, in LiteRT, OpenVINO or ONNX Runtime.

    Ranges are found with some of the samples. With --aware the model is taught again with the roundings in it, by the
    samples and by what it answered before.
    """
    from strop.cli.live import listener

    settings = {
        name: value_of(given.pop(name), default)
        for name, (_, default) in _parameters().items()
        if given[name] is not None
    }
    request = request_of(given, goal=goal_of(given), command=command_line())
    with listener() as listen:
        found = quantize(
            model, given["data"], given["output"], aware=given["aware"], request=request, listen=listen, **settings
        )  # fmt: skip
    show(found)
    sys.exit(1 if found.shortfall or "diverged" in found.facts else 0)


def _parameters() -> dict[str, tuple[Parameter, Value]]:
    """Return the parameters of all ways to quantize, each saying which it is of, with the defaults."""
    found: dict[str, tuple[Parameter, Value]] = {}
    for name in dict.fromkeys(
        name for pass_name in (AWARE, *_CALIBRATED.values()) for name in _of(pass_name)
    ):
        owners = [suffix for suffix, pass_name in _CALIBRATED.items() if name in _of(pass_name)]
        if name in _of(AWARE):
            owners.insert(0, "--aware")
        parameter, default = _of(AWARE if name in _of(AWARE) else _CALIBRATED[owners[0]])[name]
        found[name] = replace(parameter, doc=f"({', '.join(owners)}) {parameter.doc}"), default
    return found


def _of(pass_name: str) -> dict[str, tuple[Parameter, Value]]:
    kind = registry.passes.get(pass_name)
    defaults, names = kind.defaults(), {own: here for here, own in RENAMED.items()}
    return {
        names.get(name, name): (parameter, defaults[name])
        for name, parameter in kind.parameters().items()
    }


for _name, (_parameter, _default) in reversed(_parameters().items()):
    run = option_of(_name, _parameter, _default)(run)
command = click.command("quantize")(run)
