"""The live view of a study: a table on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from strop.core.figures import spelled
from strop.search.events import (
    Event,
    Listener,
    Note,
    StageStarted,
    StepProgressed,
    TrialFinished,
    TrialStarted,
)

_SHOWN = 12


@contextmanager
def listener(*, as_json: bool = False) -> Iterator[Listener]:
    """Give what listens to a study: it shows what happens until the study ends."""
    if as_json:
        yield lambda event: click.echo(json.dumps(spelled(event.to_json())))
    elif sys.stdout.isatty():
        with _Table() as table:
            yield table.show
    else:
        yield _Lines().show


class _Lines:
    """What happens, a line each; of a long step a line each tenth."""

    def __init__(self) -> None:
        self._tenths = 0

    def show(self, event: Event) -> None:
        """Print an event."""
        if isinstance(event, StageStarted | TrialStarted):
            self._tenths = 0
        if isinstance(event, StepProgressed):
            tenths = int(event.share * 10)
            if tenths <= self._tenths:
                return
            self._tenths = tenths
        shown = _LINES.get(type(event))
        if shown:
            click.echo(shown(event))


def _finished_line(event: Any) -> str:
    if event.objective is None:
        return f"  {event.number:3d}  {event.state:9s} {event.recipe}: {event.reason}"
    mark = "ok  " if event.meets_goal else "over" if _is_judged(event) else "    "
    gain = f"{event.gain:6.2f}x" if event.gain else ""
    reason = f"  ({event.reason})" if event.reason else ""
    return f"  {event.number:3d}  {mark} {event.objective:10.4g} {event.unit:5s} {gain}  {event.recipe}{reason}"


def _is_judged(event: TrialFinished) -> bool:
    """Say whether quality was looked at: it is not for what is only shown beside the others."""
    return event.drop is not None


_LINES: dict[type[Event], Callable[[Any], str]] = {
    Note: lambda event: f"  {event.text}",
    StageStarted: lambda e: f"{e.name}{f': {e.total} to try' if e.total else ''}",
    StepProgressed: lambda event: f"  {event.share:4.0%}  {event.note}",
    TrialFinished: _finished_line,
}


class _Table:
    """The best so far, what is being tried, and the time, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._started = time.monotonic()
        self._stage, self._total, self._stage_done, self._stage_began = (
            "",
            0,
            0,
            self._started,
        )
        self._trying = ""
        self._left: float | None = None
        self._trials: list[TrialFinished] = []
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=1,  # each takes a processor from what is being timed
            transient=True,
        )

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._trials:
            self._console.print(self._table())

    def show(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, Note):
            self._console.print(f"[dim]{_escaped(event.text)}[/dim]")
        elif isinstance(event, StageStarted):
            self._stage, self._total, self._stage_done = event.name, event.total, 0
            self._stage_began, self._trying = time.monotonic(), ""
        elif isinstance(event, StepProgressed):
            self._trying = f"{event.share:.0%}  {event.note}"
        elif isinstance(event, TrialStarted):
            self._trying, self._left = event.recipe, event.seconds_left
        elif isinstance(event, TrialFinished):
            self._trials.append(event)
            self._stage_done, self._trying = self._stage_done + 1, ""

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        spent = time.monotonic() - self._started
        counts = f"{self._stage_done} of {self._total}" if self._total else ""
        head = Text(f"{_clock(spent)}  {self._stage}  {counts}{self._time_left()}", style="bold")
        at_work = Text(
            f"      {self._trying}" if self._trying else "",
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
        return Group(self._table(), head, at_work)

    def _time_left(self) -> str:
        parts = []
        if self._stage_done and self._total > self._stage_done:
            each = (time.monotonic() - self._stage_began) / self._stage_done
            parts.append(
                f"about {_clock(each * (self._total - self._stage_done))} left of this stage"
            )
        if self._left is not None:
            parts.append(f"{_clock(self._left)} left of the budget")
        return f"  ({', '.join(parts)})" if parts else ""

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("gain", "time", "drop"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("recipe", overflow="ellipsis", no_wrap=True)
        measured = [t for t in self._trials if t.gain is not None]
        ranked = sorted(measured, key=lambda t: (not t.meets_goal, -(t.gain or 0)))
        for trial in ranked[:_SHOWN]:
            style = "red" if _is_judged(trial) and not trial.meets_goal else ""
            table.add_row(
                f"{trial.gain:.2f}×",
                f"{trial.objective:.4g} {trial.unit}",
                "" if trial.drop is None else f"{trial.drop:+.4f}",
                _escaped(trial.recipe),
                style=style,
            )
        others = len(self._trials) - len(ranked)
        if others:
            table.add_row(
                "",
                "",
                "",
                f"{others} failed, declined or dropped; the report says why",
                style="dim",
            )
        return table


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
