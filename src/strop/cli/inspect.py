"""`strop inspect`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from strop.cli.options import model_options, options_of


@click.command()
@click.argument("model")
@click.option(
    "--runtime",
    help="ask an engine what it can't run, node by node: litert, litert_select (with TensorFlow's kernels), "
    "onnxruntime, openvino or xla",
)
@model_options
def command(model: str, **given: Any) -> None:
    """Say what MODEL is: form, signature, size, operations, and which engines can run it.

    With --runtime, the exit code is 1 where there is anything that the engine can't run.
    """
    from strop.api import Request, inspect
    from strop.core.evaluation import Measurement
    from strop.report.words import quantity

    found = inspect(model, runtime=given["runtime"], request=Request(options=options_of(given)))
    source, description = found.model, found.description
    click.echo(
        f"{model}: {source.form}, {quantity(Measurement.exact(source.size_bytes, 'bytes'))}"
    )
    for spec in source.signature.inputs:
        click.echo(f"  in   {spec}")
    for spec in source.signature.outputs:
        click.echo(f"  out  {spec}")
    if source.binding.batch:
        click.echo(f"  batches of {source.binding.batch} only")
    for note in source.facts.get("notes", ()):
        click.echo(f"  {note}")
    macs = "not known" if description.macs is None else f"{description.macs:,}"
    click.echo(f"\n{description.parameters:,} parameters, {macs} multiply-accumulates a sample")
    listing = ", ".join(f"{count} {kind}" for kind, count in description.operations.items())
    click.echo(f"operations: {listing}")
    click.echo("\nengines:")
    for title, way in found.engines.items():
        click.echo(f"  {title:14s} {way}")
    if found.unsupported is not None:
        _print_unsupported(given["runtime"], found.unsupported)
        sys.exit(1 if found.unsupported else 0)


def _print_unsupported(runtime: str, nodes: Sequence[Any]) -> None:
    if not nodes:
        click.echo(f"\n{runtime} has something for every operation")
        return
    click.echo(f"\n{runtime} has nothing for {len(nodes)} of the nodes:")
    width = max(len(node.operation) for node in nodes)
    for node in nodes:
        click.echo(f"  {node.operation:{width}s}  {node.node}")
        if node.instead:
            click.echo(f"  {'':{width}s}  instead: {node.instead}")
