"""`strop verify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from strop.cli.options import metric_option, request_of, source_options

_MOST_CLASSES = 5


@click.command()
@click.argument("original")
@click.argument("candidate", required=False)
@source_options
@click.option(
    "--labels", help="a file with the name of a class a line, to show the scores of the classes by"
)
@click.option(
    "--max-drop",
    type=float,
    help="the most that quality may drop  [default: 0.01; the certificate's for a lone artifact]",
)
@click.option("--tolerance", type=float, help="the largest absolute difference of any output")
@metric_option
def command(original: str, candidate: str | None, **given: Any) -> None:
    """Hold CANDIDATE's answers to ORIGINAL's; a lone artifact is held to its certificate.

    Of one image, and of a few with --labels, both models' scores are shown side by side. With --data, a lone
    artifact's answers are judged too, beside the original's figure in the certificate.
    """
    from strop.api import verify
    from strop.cli.live import listener

    labels = _read_labels(given["labels"], candidate)
    with listener() as listen:
        verdict = verify(
            original,
            candidate,
            given["data"],
            max_drop=given["max_drop"],
            tolerance=given["tolerance"],
            metric=given["metric"],
            request=request_of(given),
            listen=listen,
        )
    for check in verdict.checks:
        mark = {True: "ok  ", False: "NOT ", None: "    "}[check.holds]
        click.echo(f"{mark} {check.what}: {check.found}")
    if verdict.fidelity:
        if labels or (given["data"] and verdict.fidelity.samples == 1):
            _print_scores(verdict.scores, labels, (original, candidate or ""))
        _print_fidelity(verdict.fidelity)
    click.echo("within the limits" if verdict.holds else "NOT within the limits")
    sys.exit(0 if verdict.holds else 1)


def _read_labels(file: str | None, candidate: str | None) -> list[str]:
    from strop.core.errors import ParameterError, message

    if file is None:
        return []
    if candidate is None:
        raise ParameterError(
            message(
                "labels are for the scores of two models side by side, and one is given.",
                next_step="strop verify model.keras model-strop/best --data photo.jpg --labels labels.txt",
            )
        )
    try:
        labels = Path(file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            message(f"the labels '{file}' can't be read: {error}", "One class a line is expected.")
        ) from None
    while labels and not labels[-1].strip():
        labels.pop()
    if not labels:
        raise ParameterError(f"the labels '{file}' name no class.")
    return labels


def _print_scores(scores: Sequence[Any], labels: Sequence[str], models: tuple[str, str]) -> None:
    """Print both models' scores of the classes that either scores highest, a table a sample and output."""
    titles = [Path(model).name for model in models]
    if titles[0] == titles[1]:
        titles = list(models)
    titles = [f"{title:>8s}" for title in titles]
    named = _named(scores, labels)
    for one in named:
        shown = _highest(one)
        names = {place: labels[place] if labels else f"class {place}" for place in shown}
        width = max(map(len, names.values()))
        if len(named) > 1:
            click.echo(f"sample {one.sample + 1}, {one.output}:")
        click.echo(f"{'':{width}s}  {titles[0]}  {titles[1]}")
        for place, name in names.items():
            before, after = (
                f"{side[place]:>{len(title)}.5f}"
                for side, title in zip((one.before, one.after), titles, strict=True)
            )
            click.echo(f"{name:{width}s}  {before}  {after}")
        same = "the same to 5 decimals" if one.is_same else "NOT the same to 5 decimals"
        click.echo(f"largest difference {one.max_abs:.3g}: {same}")


def _named(scores: Sequence[Any], labels: Sequence[str]) -> list[Any]:
    """Return the scores that the labels can stand beside: all without labels.

    Raises:
        ParameterError: If no output has as many classes: one too many or too few, and all stand beside others'.
    """
    from strop.core.errors import ParameterError, message

    fitting = [one for one in scores if not labels or len(one.before) == len(labels)]
    if labels and not fitting:
        widths = {one.output: len(one.before) for one in scores}
        told = ", ".join(f"'{output}' scores {count}" for output, count in widths.items())
        raise ParameterError(
            message(
                f"there are {len(labels)} labels, and no output scores so many classes"
                + (f": {told}." if told else "."),
                "The labels are those of another model, or a line is too many or too few.",
            )
        )
    return fitting


def _highest(scores: Any) -> list[int]:
    """Return the places of the classes that either model scores highest, in the original's order."""
    # Scores may be codes of 8 bits, which would run over when they are negated.
    sides = [side.astype(float).tolist() for side in (scores.before, scores.after)]
    places = {
        place
        for side in sides
        for place in sorted(range(len(side)), key=lambda place: -side[place])[:_MOST_CLASSES]
    }
    return sorted(places, key=lambda place: -sides[0][place])


def _print_fidelity(fidelity: Any) -> None:
    from strop.report.words import interval, percent

    plural = "" if fidelity.samples == 1 else "s"
    click.echo(f"on {fidelity.samples} sample{plural}:")
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
