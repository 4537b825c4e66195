"""Commands that carry out one technique: their options are the parameters of its pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from strop.cli.options import command_line, goal_of, limit_options, request_of, source_options
from strop.core import registry
from strop.core.parameters import Parameter, Value, option_name


def command_of(pass_name: str, word: str) -> click.Command:
    """Return the command that carries out a pass on a Keras model.

    Args:
        pass_name: The pass's, in the registry.
        word: The function's of `strop.api`, and the command's.
    """
    kind = registry.passes.get(pass_name)
    defaults = kind.defaults()

    @click.argument("model")
    @source_options
    @limit_options
    @click.option("--output", help="the .keras file to write")
    def run(model: str, **given: Any) -> None:
        import strop.api
        from strop.cli.live import listener

        settings = {name: given.pop(name) for name in defaults if given[name] is not None}
        request = request_of(given, goal=goal_of(given), command=command_line())
        with listener() as listen:
            found = getattr(strop.api, word)(
                model, given["data"], given["output"], request=request, listen=listen,
                **{name: value_of(value, defaults[name]) for name, value in settings.items()},
            )  # fmt: skip
        show(found)
        sys.exit(1 if found.shortfall or "diverged" in found.facts else 0)

    # Click wraps each paragraph that is not marked so; the pictures are to stay as they are drawn.
    run.__doc__ = (kind.__doc__ or "").replace("    Before:", "    \b\n    Before:")
    for name, parameter in reversed(kind.parameters().items()):
        run = option_of(name, parameter, defaults[name])(run)
    return click.command(word)(run)


def option_of(
    name: str, parameter: Parameter, default: Value
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option for a parameter; left out, the pass's own default stands."""
    spelled, told = option_name(name), f"{parameter.doc}  [default: {_told(default)}]"
    if isinstance(default, bool):
        return click.option(f"{spelled}/--no-{spelled[2:]}", name, default=None, help=told)
    if parameter.choices:
        choices = [str(choice) for choice in parameter.choices]
        return click.option(spelled, name, type=click.Choice(choices), help=told)
    kind = str if isinstance(default, tuple) else type(default)
    return click.option(spelled, name, type=kind, help=told)


def _told(default: Value) -> str:
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    return str(default)


def value_of(given: Any, default: Value) -> Any:
    """Return what was given as a value of the default's type."""
    if isinstance(default, tuple):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    return given if isinstance(default, bool) else type(default)(given)


def show(found: Any) -> None:
    """Print what a technique made, and what that cost."""
    from strop.report.words import interval, percent, quantity

    for name, value in found.facts.items():
        if isinstance(value, dict) and value:
            click.echo(f"{name.replace('_', ' ')}:")
            width = max(map(len, value))
            for layer, told in value.items():
                said = f"{told:.1%}" if isinstance(told, float) else told
                click.echo(f"  {layer:{width}s}  {said}")
        elif isinstance(value, str):
            click.echo(f"{name.replace('_', ' ')}: {value}")
    for which, title in (("size", "size on disk"), ("zipped_size", "size zipped")):
        before, after = found.before[which], found.after[which]
        click.echo(
            f"{title}: {quantity(before)} -> {quantity(after)} ({before.value / after.value:.2f}x smaller)"
        )
    fidelity, drop = found.fidelity, found.fidelity.drop
    if fidelity.metric and fidelity.baseline_metric:
        click.echo(
            f"{fidelity.metric_of}: {fidelity.baseline_metric.value:.4f} -> {fidelity.metric.value:.4f}"
        )
    click.echo(
        f"{found.path}: {fidelity.drop_of} drops by {drop.value:.4g} "
        f"({interval(drop)} at {percent(drop.confidence)}), on {fidelity.samples} samples not trained on"
    )
    if found.shortfall:
        click.echo(f"NOT within the limits: {found.shortfall}")
