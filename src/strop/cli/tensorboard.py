"""`strop tensorboard`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click

from strop.cli.options import model_options, options_of


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--logdir", default="summaries", show_default=True, help="folder for the runs")
@click.option("--serve/--no-serve", default=True, help="start TensorBoard, or only write")
@click.option(
    "--port", default=6006, show_default=True, help="TensorBoard's; 0 for any that is free"
)
@model_options
def command(models: tuple[str, ...], logdir: str, serve: bool, port: int, **given: Any) -> None:
    """Write each model's graph as a run, and show them in TensorBoard's Graphs tab."""
    from strop.api import Request, tensorboard

    for name, nodes in tensorboard(
        models, logdir, request=Request(options=options_of(given))
    ).items():
        click.echo(f"{logdir}/{name}: {nodes} nodes")
    if serve:
        click.echo("TensorBoard starts; Ctrl-C ends it.")
        # Another process: TensorBoard takes over signals and standard output.
        done = subprocess.run(
            [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--port", str(port)],
            check=False,
        )
        sys.exit(done.returncode)
