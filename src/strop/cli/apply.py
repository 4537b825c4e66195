"""`strop apply`."""

from __future__ import annotations

from typing import Any

import click

from strop.cli.options import (
    command_line,
    goal_of,
    limit_options,
    request_of,
    source_options,
)


@click.command()
@click.argument("recipe")
@click.argument("model")
@source_options
@limit_options
@click.option("--output", help="folder for what is made")
def command(recipe: str, model: str, **given: Any) -> None:
    """Carry out the recipe in a TOML file on a model, without a search."""
    from strop.api import apply
    from strop.cli.live import listener
    from strop.core.evaluation import Fidelity
    from strop.report.artifact import read_certificate

    with listener() as listen:
        folder = apply(
            recipe,
            model,
            given["data"],
            output=given["output"],
            request=request_of(given, goal=goal_of(given), command=command_line()),
            listen=listen,
        )
    fidelity = Fidelity.from_json(read_certificate(folder)["fidelity"])
    click.echo(f"{folder}: {fidelity.drop_of} drops by {fidelity.drop.value:.4g}")
