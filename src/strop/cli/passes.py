"""`strop passes`."""

from __future__ import annotations

import click

from strop.core.contracts import Pass, PlugIn


@click.command()
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the techniques and runtimes; with a NAME, its parameters and what it is."""
    from strop.core import registry

    if name:
        found = (
            registry.runtimes.get(name)
            if name in registry.runtimes.names()
            else registry.passes.get(name)
        )
        _one(found)
        return
    for title, plug_ins in (
        ("passes", registry.passes),
        ("runtimes", registry.runtimes),
    ):
        click.echo(title)
        for kind in plug_ins:
            click.echo(f"  {kind.name:28s} {(kind.__doc__ or '').splitlines()[0]}")


def _one(kind: type[PlugIn]) -> None:
    import inspect

    click.echo(f"{kind.name}\n")
    click.echo(inspect.getdoc(kind))
    if issubclass(kind, Pass):
        click.echo(
            f"\ntakes {', '.join(sorted(kind.takes))}; gives {kind.gives or 'the same'}; {kind.exactness}"
        )
    defaults = kind.defaults()
    if defaults:
        click.echo("\nparameters:")
    for key, parameter in kind.parameters().items():
        allowed = f" ({', '.join(map(str, parameter.choices))})" if parameter.choices else ""
        click.echo(f"  {key} = {defaults[key]!r}{allowed}  {parameter.doc}")
