"""The A/A test: one artifact against itself, many times, at a nominal 5 %: how often is a winner declared?

    python -m benchmarks.same_against_same model-strop/best --times 200

Each time two fresh processes open the same artifact and are timed in turn, as finalists are. The count of false winners is
printed with its interval; at most 8 % is what strop promises.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from strop.core.evaluation import Goal
from strop.core.recipe import Recipe
from strop.data.splitting import synthesize
from strop.engine.context import Bench
from strop.engine.executors.local import LocalExecutor
from strop.engine.pairs import compare
from strop.numerics.statistics import proportion_interval
from strop.report.artifact import model_of, read_certificate


def main() -> int:
    """Run the test and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=0.06)
    arguments = parser.parse_args()
    certificate = read_certificate(arguments.artifact)
    model = model_of(arguments.artifact, certificate)
    recipe = Recipe.from_json(certificate["recipe"])
    declared = 0
    with tempfile.TemporaryDirectory() as scratch, LocalExecutor() as executor:
        synthesize(model.signature, seed=0, count=16).save(Path(scratch))
        for time in range(1, arguments.times + 1):
            bench = Bench(Path(scratch), Path(scratch), Goal(), seed=time)
            (pair,) = compare(
                executor,
                {"one": (model, recipe), "other": (model, recipe)},
                "one",
                bench,
                model.binding.batch or 1,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
            )
            print(
                f"{pair.ratio.value:.4f} ({pair.ratio.low:.4f} to {pair.ratio.high:.4f})",
                flush=True,
            )
            declared += pair.ratio.high < 1 or pair.ratio.low > 1
            if time % 10 == 0:
                print(f"{declared} false winners in {time}", flush=True)
    share = proportion_interval(declared, arguments.times)
    print(
        f"{declared} false winners in {arguments.times}: {share.value:.1%} "
        f"({share.low:.1%} to {share.high:.1%} at 95 %)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
