"""`strop demo`."""

from __future__ import annotations

import shlex

import click


@click.command()
@click.option(
    "--output",
    default="strop-demo",
    show_default=True,
    help="folder for model, data and results",
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="quick",
    show_default=True,
)
def command(output: str, effort: str) -> None:
    """Train a small convnet on scikit-learn's digits (real handwriting, nothing downloaded) and optimize it."""
    from pathlib import Path

    from strop.api import Request, optimize
    from strop.cli.live import listener
    from strop.cli.optimize import finish
    from strop.core.contracts import Effort
    from strop.core.errors import OutputError, message
    from strop.engine.demo import digits_case
    from strop.engine.executors.local import LocalExecutor
    from strop.report.folder import made_folder

    folder = made_folder(Path(output))
    model, data, results = folder / "digits.keras", folder / "digits.npz", folder / "digits-strop"
    for one, other in ((model, data), (data, model)):
        if one.exists() and not other.exists():
            told = f"'{one}' lies there without '{other.name}', so it is not the demonstration's, and stays."
            raise OutputError(message(told, next_step="--output NAME"))
    if not model.exists():
        click.echo("training a small convnet on 1,797 handwritten digits ...")
        with LocalExecutor() as executor:
            accuracy = executor.call(
                "train", f"{digits_case.__module__}:digits_case", str(model), str(data)
            )
        click.echo(f"trained: {accuracy:.1%} right on digits it has not seen")
    request = Request(
        effort=Effort(effort),
        command=shlex.join(
            [
                "strop",
                "optimize",
                str(model),
                "--data",
                str(data),
                "--effort",
                effort,
                "--output",
                str(results),
            ]
        ),
    )
    with listener() as listen:
        result = optimize(
            str(model),
            str(data),
            output=str(results),
            listen=listen,
            request=request,
        )
    finish(result, as_json=False)
