"""``python -m benchmarks.compression``: what is missing is measured, then the tables are printed."""

import argparse
import json
import os
import shutil
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, Protocol

import benchmarks.compression
from benchmarks.compression.beside import SPARSITIES, Beside, Pace
from benchmarks.compression.making import made_folder
from benchmarks.compression.rows import ROWS, Row
from benchmarks.compression.scale import SEEDS, SMOKE, WHOLE, Scale
from benchmarks.compression.table import pace_tables, tables
from benchmarks.places import CaseUnavailableError
from strop.core.errors import StropError
from strop.engine.machine import this_machine


class _Measurable(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def is_timed(self) -> bool: ...

    def measured(self, seed: int, scale: Scale) -> dict[str, Any]: ...


_ALL: dict[str, _Measurable] = {one.name: one for one in (*ROWS, *map(Beside, SPARSITIES), Pace())}


def main() -> None:
    """Measure what is missing; print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression", description=benchmarks.compression.__doc__
    )
    parser.add_argument("--row", action="append", choices=_ALL, help="this alone; all by default")
    parser.add_argument("--seed", action="append", type=int, choices=SEEDS, help="this alone")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument(
        "--smoke", action="store_true", help="an epoch on a few samples, to see that all works"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="forget what was measured, and all that was made of the networks in question, as after a change of strop",
    )
    asked = parser.parse_args()
    # By itself TensorFlow uses oneDNN only where a processor has AVX-512; without, training takes twice as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    scale = SMOKE if asked.smoke else WHOLE
    seeds = asked.seed or SEEDS[: 1 if asked.smoke else None]
    chosen = [] if asked.report else [(one, seed) for seed in seeds for one in asked.row or _ALL]
    if asked.again:
        for name, seed in chosen:
            _forget(_ALL[name], seed, scale)
    for name, seed in chosen:
        _measure(_ALL[name], seed, scale)
    print("\n".join([*tables(scale.figures()), *pace_tables(scale.figures(is_timed=True))]))


def _forget(one: _Measurable, seed: int, scale: Scale) -> None:
    _figures(one, seed, scale).unlink(missing_ok=True)
    if isinstance(one, Row):
        shutil.rmtree(made_folder(one.original, seed, scale), ignore_errors=True)


def _figures(one: _Measurable, seed: int, scale: Scale) -> Path:
    return scale.figures(is_timed=one.is_timed) / f"{one.name}-{seed}.json"


def _measure(one: _Measurable, seed: int, scale: Scale) -> None:
    out = _figures(one, seed, scale)
    if out.exists():
        return
    print(f"{one.name}, seed {seed}", flush=True)
    try:
        found = one.measured(seed, scale)
    except (CaseUnavailableError, StropError, RuntimeError, SubprocessError) as error:
        print(f"\n  skipped: {error}", flush=True)  # the others may well work
        return
    _write(out, {**found, "processor": this_machine().processor})
    print(f"\n  in {found['seconds']:.0f} s" if "seconds" in found else "", flush=True)


def _write(out: Path, found: dict[str, Any]) -> None:
    """Write figures, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_suffix(".draft")
    draft.write_text(json.dumps(found, indent=1))
    draft.replace(out)


if __name__ == "__main__":
    main()
