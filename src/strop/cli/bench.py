"""`strop bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from strop.cli.options import request_of, source_options

if TYPE_CHECKING:
    from strop.engine.pairs import Pair


@click.command()
@click.argument("models", nargs=-1, required=True)
@source_options
@click.option("--batch", type=int, default=1, show_default=True, help="batch size")
@click.option("--rounds", type=int, default=20, show_default=True, help="how many rounds")
def command(models: tuple[str, ...], **given: Any) -> None:
    """Time models side by side, round by round in turn; ratios are against the first."""
    from strop.api import bench

    timings = bench(
        models,
        given["data"],
        batch=given["batch"],
        rounds=given["rounds"],
        request=request_of(given),
    )
    against = f", against {models[0]}" if len(models) > 1 else ""
    click.echo(f"batch {given['batch']}, {given['rounds']} rounds in turn{against}")
    for timing in timings:
        click.echo(f"  {timing.latency.value:8.4g} ms  {_verdict(timing.pair):45s}  {timing.name}")


def _verdict(pair: Pair | None) -> str:
    if pair is None:
        return ""
    ratio = pair.ratio
    told = "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "no difference proved"
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) {told}"
