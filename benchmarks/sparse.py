"""Pruned networks in LiteRT, with the zeros among their weights and without: what skipping them brings.

``python -m benchmarks.sparse`` prints the table. Both files of a row run in one process, on one thread, in turn, round
by round. Weights are random, since a kernel's time does not depend on their values, and pruned at once.

XNNPACK has kernels for convolutions of 1x1, and not for x86 with AVX. So where a process can be told that it has none,
the same files run in such a one too: those times are of this processor with the kernels of another.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.without_avx import environment, why_not
from strop.numerics.statistics import ratio_interval

SHARES = (0.7, 0.8, 0.9)
_ROUNDS = 40
_ROUND_SECONDS = 0.05


@dataclass(frozen=True)
class Network:
    """A network to prune.

    Attributes:
        name: What it is called in the table.
        pruned: Returns it with a share of its weights zero.
        hides_avx: Whether it is timed without AVX too.
    """

    name: str
    pruned: Callable[[float], Any]
    hides_avx: bool = False


def _mobilenet(share: float) -> Any:
    """Return MobileNetV2 for images of 225 by 225, whose paddings are the same on both sides throughout."""
    import keras

    from strop.train.pruning import prune

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(input_shape=(225, 225, 3), weights=None)
    prune(model, share, exclude=[lambda layer: not _is_pointwise(layer)])
    return model


def _is_pointwise(layer: Any) -> bool:
    """Say whether a layer is a convolution of 1x1, or holds other layers."""
    return bool(hasattr(layer, "layers")) or getattr(layer, "kernel_size", None) == (1, 1)


def _dense(width: int) -> Callable[[float], Any]:
    def pruned(share: float) -> Any:
        import keras

        from strop.numerics.sparsity import pattern_named
        from strop.train.pruning import prune

        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(width, activation="relu") for _ in range(3)]
        model = keras.Sequential([keras.Input((width,), name="x"), *layers])
        prune(model, share, pattern=pattern_named("4x1"))
        return model

    return pruned


NETWORKS = (
    Network("MobileNetV2, 225x225, convolutions of 1x1 pruned", _mobilenet, hides_avx=True),
    Network("3 dense layers of 512, pruned in blocks 4x1", _dense(512)),
    Network("3 dense layers of 2048, pruned in blocks 4x1", _dense(2048)),
)


def measured(network: Network, share: float, folder: Path) -> dict[str, Any]:
    """Return the figures of a network with a share of its weights zero, in processes of their own."""
    from strop.core import registry
    from strop.core.contracts import Unchanged
    from strop.graph.quiet import quiet
    from strop.graph.reading import read

    path = folder / "pruned.keras"
    network.pruned(share).save(path)
    model = read(path, folder)
    files = {}
    for name, settings in (
        ("convert.graph_def", {}),
        ("convert.litert", {"batch": 1}),
        ("prune.litert_sparse", {"wanted": "elsewhere"}),
    ):
        (folder / name).mkdir()
        step = registry.passes.get(name).from_settings(settings)
        with quiet():
            # These look at no samples, and at no goal.
            made = step.apply(model, SimpleNamespace(workspace=folder / name))  # type: ignore[arg-type]
        if isinstance(made, Unchanged):
            raise SystemExit(f"{network.name}: {made.reason}")
        files[name], model = made.path, made
    del files["convert.graph_def"]
    found = {"sizes": {name: file.stat().st_size for name, file in files.items()}}
    found["here"] = _raced(files, dict(os.environ))
    if network.hides_avx and not why_not():
        found["without AVX"] = _raced(files, environment(folder))
    return found


def _raced(files: dict[str, Path], variables: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sparse", "--race", *map(str, files.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def race(dense: str, sparse: str) -> dict[str, Any]:
    """Return milliseconds a call of two files, the second's time over the first's, and how far their answers differ."""
    from ai_edge_litert.interpreter import Interpreter

    opened = [Interpreter(model_path=path, num_threads=1) for path in (dense, sparse)]
    random = np.random.default_rng(0)
    for one in opened:
        one.allocate_tensors()
    (given,) = opened[0].get_input_details()
    array = random.uniform(-1, 1, given["shape"]).astype(given["dtype"])
    answers = []
    for one in opened:
        one.set_tensor(one.get_input_details()[0]["index"], array)
        one.invoke()
        answers.append(one.get_tensor(one.get_output_details()[0]["index"]))
    counts = [max(3, int(_ROUND_SECONDS / _seconds(one, 5))) for one in opened]
    rounds: list[list[float]] = [[], []]
    for number in range(_ROUNDS):
        for place in (0, 1) if number % 2 else (1, 0):
            rounds[place].append(_seconds(opened[place], counts[place]))
    scale = float(np.abs(answers[0]).max())
    return {
        "ms": [float(np.median(times)) * 1e3 for times in rounds],
        "ratio": list(ratio_interval(rounds[1], rounds[0])),
        "difference": float(np.abs(answers[1] - answers[0]).max()) / scale,
    }


def _seconds(interpreter: Any, count: int) -> float:
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        interpreter.invoke()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def table(found: list[tuple[str, float, dict[str, Any]]]) -> list[str]:
    """Return the figures as the lines of a table."""
    lines = [
        "| network | zeros | file: dense, sparse | processor | ms: dense, sparse | sparse / dense | largest difference |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for name, share, figures in found:
        sizes = ", ".join(f"{size / 1e6:.2f} MB" for size in figures["sizes"].values())
        for where, title in (("here", "as it is"), ("without AVX", "told to have no AVX")):
            if where not in figures:
                continue
            one = figures[where]
            times = ", ".join(f"{ms:.3g}" for ms in one["ms"])
            value, low, high = one["ratio"]
            lines.append(
                f"| {name} | {share:.0%} | {sizes} | {title} | {times} | "
                f"{value:.3f} ({low:.3f} to {high:.3f}) | {one['difference']:.1g} |"
            )
    lines += ["", "One thread, batch 1; the difference is a share of the largest output."]
    return lines


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=__doc__)
    parser.add_argument("--race", nargs=2, metavar="FILE", help="two files alone, as JSON")
    arguments = parser.parse_args()
    if arguments.race:
        print(json.dumps(race(*arguments.race)))
        return 0
    found = []
    for network in NETWORKS:
        for share in SHARES:
            print(f"{network.name}, {share:.0%}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="strop-") as scratch:
                found.append((network.name, share, measured(network, share, Path(scratch))))
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
