"""`strop verify`."""

from __future__ import annotations

import sys
from typing import Any

import click

from strop.cli.options import metric_option, options_of, preparation_of, source_options


@click.command()
@click.argument("original")
@click.argument("candidate", required=False)
@source_options
@click.option(
    "--max-drop",
    type=float,
    help="the most that quality may drop  [default: 0.01; the certificate's for a lone artifact]",
)
@click.option("--tolerance", type=float, help="the largest absolute difference of any output")
@metric_option
def command(original: str, candidate: str | None, **given: Any) -> None:
    """Hold CANDIDATE's answers to ORIGINAL's; a lone artifact is held to its certificate.

    With --data, a lone artifact's answers are judged too, beside the original's figure in the certificate.
    """
    from strop.api import Request, verify

    request = Request(
        seed=given["seed"], options=options_of(given), preparation=preparation_of(given)
    )
    verdict = verify(
        original,
        candidate,
        given["data"],
        max_drop=given["max_drop"],
        tolerance=given["tolerance"],
        metric=given["metric"],
        request=request,
    )
    for check in verdict.checks:
        mark = {True: "ok  ", False: "NOT ", None: "    "}[check.holds]
        click.echo(f"{mark} {check.what}: {check.found}")
    if verdict.fidelity:
        _print_fidelity(verdict.fidelity)
    click.echo("within the limits" if verdict.holds else "NOT within the limits")
    sys.exit(0 if verdict.holds else 1)


def _print_fidelity(fidelity: Any) -> None:
    from strop.report.words import interval, percent

    click.echo(f"on {fidelity.samples} samples:")
    for output in fidelity.outputs:
        agree = (
            "" if output.top1_agreement is None else f", same top-1 {output.top1_agreement:.2%}"
        )
        click.echo(
            f"  {output.name}: largest difference {output.max_abs:.3g}, mean {output.mean_abs:.3g}, "
            f"SQNR {output.sqnr_db:.1f} dB{agree}"
        )
    if fidelity.metric and fidelity.baseline_metric:
        click.echo(
            f"  {fidelity.metric_of}: {fidelity.baseline_metric.value:.4f} -> {fidelity.metric.value:.4f}"
        )
    drop = fidelity.drop
    click.echo(
        f"  drop ({fidelity.drop_of}): {drop.value:.4g} ({interval(drop)} at {percent(drop.confidence)})"
    )
