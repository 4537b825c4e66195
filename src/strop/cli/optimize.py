"""`strop optimize`."""

from __future__ import annotations

import sys
from typing import Any

import click

from strop.cli.options import (
    command_line,
    goal_of,
    limit_options,
    request_of,
    seconds_of,
    source_options,
)


@click.command()
@click.argument("model")
@source_options
@limit_options
@click.option(
    "--minimize",
    type=click.Choice(["latency", "throughput", "size", "zipped-size", "memory", "cold-start"]),
    default="latency",
    show_default=True,
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="standard",
    show_default=True,
)
@click.option("--budget", help="time for the search: 90s, 5m, 1h")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    help="consider only this runtime (may be repeated)",
)
@click.option(
    "--output", help="folder for the results; <model>-strop in the current folder otherwise"
)
@click.option(
    "--step-limit",
    default="10m",
    show_default=True,
    help="time after which one step is ended",
)
@click.option("--json", "as_json", is_flag=True, help="tell what happens as JSON lines")
def command(model: str, **given: Any) -> None:
    """Find the fastest (or smallest) model that still gives the right answers."""
    from strop.api import optimize
    from strop.cli.live import listener
    from strop.core.contracts import Effort

    request = request_of(
        given,
        goal=goal_of(given),
        effort=Effort(given["effort"]),
        budget_seconds=seconds_of(given["budget"]),
        runtimes=tuple(given["runtimes"]),
        step_seconds=seconds_of(given["step_limit"]) or 600.0,
        command=command_line(),
    )
    with listener(as_json=given["as_json"]) as listen:
        result = optimize(
            model, given["data"], output=given["output"], listen=listen, request=request
        )
    finish(result, as_json=given["as_json"])


def finish(result: Any, *, as_json: bool) -> None:
    """Print where everything is, and leave with the exit code that the outcome asks for."""
    from strop.report.words import headline

    outcome = result.outcome
    if not as_json:
        click.echo()
        click.echo(headline(outcome, result.circumstances))
        click.echo()
        if outcome.best:
            click.echo(
                f"  {result.folder / 'best'}          strop.load({str(result.folder / 'best')!r})"
            )
        click.echo(f"  {result.folder / 'report.html'}   open it in a browser")
    if outcome.by_user:
        sys.exit(130)
    if outcome.best is None:
        sys.exit(3 if outcome.nothing_ran and not outcome.interrupted else 1)
