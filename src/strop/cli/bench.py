"""`strop bench`."""

from __future__ import annotations

from typing import Any

import click

from strop.cli.options import options_of, preparation_of, source_options


@click.command()
@click.argument("models", nargs=-1, required=True)
@source_options
@click.option("--batch", type=int, default=1, show_default=True, help="batch size")
@click.option("--rounds", type=int, default=20, show_default=True, help="how many rounds")
def command(models: tuple[str, ...], **given: Any) -> None:
    """Time models side by side, round by round in turn; ratios are against the first."""
    from strop.api import Request, bench
    from strop.core.errors import ParameterError

    if len(models) < 2:
        raise ParameterError("one model has nothing to be compared with; name two or more")
    request = Request(
        seed=given["seed"], options=options_of(given), preparation=preparation_of(given)
    )
    pairs = bench(
        models, given["data"], batch=given["batch"], rounds=given["rounds"], request=request
    )
    click.echo(
        f"time against {models[0]}, batch {given['batch']}, {given['rounds']} rounds in turn"
    )
    for pair in pairs:
        ratio = pair.ratio
        verdict = (
            "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "no difference proved"
        )
        click.echo(
            f"  {ratio.value:7.3f}  ({ratio.low:.3f} to {ratio.high:.3f})  {verdict:20s}  {pair.name}"
        )
