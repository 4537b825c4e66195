"""`strop graph`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from strop.cli.options import command_line, request_of, source_options

_SHOWN = 5


@click.command()
@click.option("--input", "model", required=True, help="frozen graph, SavedModel or Keras model")
@click.option("--output", required=True, help="the file to write")
@click.option("--input_names", "--input-names", "inputs_too", help="as --inputs: with commas")
@click.option("--output_names", "--output-names", "outputs_too", help="as --outputs: with commas")
@click.option(
    "--passes",
    help="what to do, in order, with commas; quantize.graph_def_float16, which is lossy, halves the weights  [default: all that keep the answers]",
)
@click.option(
    "--frozen_graph", "--frozen-graph", type=bool, is_flag=False, flag_value=True, default=True,
    help="whether the input is a binary graph; a text graph is known by its name, .pbtxt",
)  # fmt: skip
@click.option(
    "--placeholder_type_enum", "--placeholder-type-enum",
    help="taken as optimize_for_inference takes it; the graph tells its types by itself",
)  # fmt: skip
@click.option(
    "--toco_compatible", "--toco-compatible", type=bool, is_flag=False, flag_value=True, default=False,
    help="write only operations that other engines' converters know: nothing is fused",
)  # fmt: skip
@source_options
def command(**given: Any) -> None:
    """Clean a TensorFlow graph for inference, prove that it answers the same, and write it frozen.

    Takes the flags of TensorFlow's optimize_for_inference.
    """
    from strop.api import simplify
    from strop.api.simplifying import PASSES
    from strop.cli.live import listener

    given["inputs"] = given["inputs"] or given["inputs_too"]
    given["outputs"] = given["outputs"] or given["outputs_too"]
    passes = tuple(given["passes"].split(",")) if given["passes"] else PASSES
    if given["toco_compatible"]:
        passes = tuple(name for name in passes if name != "fuse")
    request = request_of(given, command=command_line())
    with listener() as listen:
        found = simplify(
            given["model"], given["output"],
            passes=passes, samples=given["data"], request=request, listen=listen,
        )  # fmt: skip
    _print(found)
    sys.exit(0 if found.fidelity.finite else 1)


def _print(found: Any) -> None:
    click.echo(f"inputs: {', '.join(found.inputs)}; outputs: {', '.join(found.outputs)}")
    click.echo(f"{'pass':16s} {'nodes':>13s} {'ms':>8s} {'faster':>7s}  operations")
    first = sum(found.passes[0].before.values()) if found.passes else 0
    ms = f"{found.original.latency.value:8.4g}" if found.original else ""
    click.echo(f"{'as it was':16s} {first:13d} {ms:>8s}")
    for one in found.passes:
        if one.reason:
            click.echo(f"{one.name:16s} {'':13s} {'':8s} {'':7s}  {one.reason}")
            continue
        nodes = f"{sum(one.before.values())} -> {sum(one.operations.values())}"
        ms, gain = _timed(one.timing)
        click.echo(f"{one.name:16s} {nodes:>13s} {ms:>8s} {gain:>7s}  {_changed(one.change)}")
    for note in found.notes:
        click.echo(f"note: {note}")
    fidelity = found.fidelity
    verdict = "the same to 5 decimals" if found.is_same else "NOT the same to 5 decimals"
    if fidelity.floor and not found.is_same:
        verdict = "not the same, as the original's own are not from call to call"
    click.echo(f"{found.path}: outputs are {verdict} (largest difference {fidelity.max_abs:.3g})")


def _timed(timing: Any) -> tuple[str, str]:
    """Return milliseconds, and how many times faster than the original."""
    if timing is None:
        return "", ""
    gain = f"{1 / timing.pair.ratio.value:.2f}x" if timing.pair else ""
    return f"{timing.latency.value:.4g}", gain


def _changed(change: Mapping[str, int]) -> str:
    """Return the operations that went and came, those that changed most first."""
    most = sorted(change.items(), key=lambda item: -abs(item[1]))
    shown = ", ".join(f"{count:+d} {name}" for name, count in most[:_SHOWN])
    return shown + (", …" if most[_SHOWN:] else "")
