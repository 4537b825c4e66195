"""`strop doctor`."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Say which engines are installed, what the processor offers, and how many threads there are."""
    from strop.core import registry
    from strop.engine.machine import this_machine, versions

    machine, installed = this_machine(), versions()
    click.echo(
        f"{machine.processor}, {machine.cores} cores for this process, {machine.memory_bytes / 2**30:.0f} GiB"
    )
    click.echo(f"instructions that matter: {', '.join(machine.instructions) or 'none known'}")
    click.echo(f"{machine.system}, Python {machine.python}")
    click.echo()
    for runtime in registry.runtimes:
        missing = runtime.missing()
        if missing:
            click.echo(f"  absent   {runtime.title:14s} {missing.install}")
        else:
            click.echo(f"  present  {runtime.title:14s} {installed.get(runtime.distribution, '')}")
    absent = [kind for kind in registry.passes if kind.missing()]
    click.echo()
    click.echo(
        f"  {len(registry.passes.names()) - len(absent)} of {len(registry.passes.names())} passes can run"
    )
    for kind in absent:
        missing = kind.missing()
        click.echo(f"  absent   {kind.name:30s} {missing.install if missing else ''}")
