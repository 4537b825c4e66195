"""`apply`: one recipe, without a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.api.opening import name_of
from strop.api.working import workplace
from strop.core import registry
from strop.core.errors import (
    GoalError,
    OutputError,
    RecipeError,
    message,
)
from strop.core.evaluation import Fidelity
from strop.core.recipe import Recipe
from strop.engine.lanes import of_running
from strop.engine.running import Declined, Runner
from strop.engine.store import Store
from strop.report.artifact import (
    Made,
    write_model,
)
from strop.report.folder import refuse_file
from strop.search.events import Listener, ignore
from strop.search.preparing import (
    prepare,
)
from strop.search.request import Request, with_command


def apply(
    recipe: Recipe | str | Path,
    model: Any,
    samples: Any = None,
    *,
    output: str | Path | None = None,
    request: Request | None = None,
    listen: Listener = ignore,
) -> Path:
    """Carry out one recipe, without a search, and return the folder of what it made.

    Args:
        recipe: The recipe, or the path of its TOML file.
        model: As for `optimize`.
        samples: As for `optimize`; for passes that need them.
        output: The folder to write; ``<model>-<recipe's last step>`` where None.
        request: Everything else; see `Request`.
        listen: Told what happens.

    Raises:
        RecipeError: Every mistake in the recipe at once.
        TrialError: If a step fails.
        GoalError: If a pass had nothing to do, or what was made misses the limits: it stays to be looked at, unless
            its outputs are not finite.
    """
    asked = with_command(request or Request(), apply, dict(locals()))
    if not isinstance(recipe, Recipe):
        recipe = _read_recipe(Path(recipe))
    _refuse_comparison_only(recipe)
    last = recipe.steps[-1].name if recipe.steps else recipe.runtime
    target = Path(output) if output else Path(f"{Path(name_of(model)).stem}-{last}")
    refuse_file(target)
    if target.exists() and any(target.iterdir()):
        raise OutputError(
            message(f"the folder '{target}' is not empty.", next_step="--output NAME")
        )
    with workplace() as (scratch, executor):
        store = Store(scratch / "study" / "store")
        source, splits, bench, name = prepare(model, samples, asked, store, executor, listen)
        runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
        runner.check(recipe)
        made = runner.prepare(recipe.steps, runtime=recipe.runtime, settings=recipe.settings)
        if isinstance(made, Declined):
            raise GoalError(f"'{made.step.name}' had nothing to do: {made.reason}.")

        def judged(split: str) -> Fidelity:
            found: Fidelity = executor.call(
                of_running(recipe.runtime, recipe.settings), "strop.engine.tasks:confirm",
                made, recipe.runtime, recipe.settings, bench,
                split=split, timeout_seconds=asked.step_seconds,
            )  # fmt: skip
            return found

        fidelity = judged("confirm")
        shortfall = asked.goal.shortfall(fidelity)
        if shortfall and fidelity.finite:  # few samples may miss by chance; see `Goal.shortfall`
            shortfall = asked.goal.shortfall(fidelity, judged("select"))
        if not fidelity.finite:
            raise GoalError(f"the model that '{recipe}' makes {shortfall}; it is not kept.")
        more = {"goal": asked.goal.to_json()}
        write_model(
            target, Made(made, recipe, source, name, fidelity, asked.command, more), executor
        )
    if shortfall:
        raise GoalError(f"{shortfall}; what was made lies in '{target}'.")
    return target


def _read_recipe(path: Path) -> Recipe:
    """Return the recipe in a TOML file.

    Raises:
        RecipeError: If there is none, or it is no recipe.
    """
    if not path.exists():
        raise RecipeError([f"there is no recipe '{path}'."])
    if path.is_dir():
        raise RecipeError([f"'{path}' is a folder, no recipe."])
    try:
        return Recipe.from_toml(path.read_text(encoding="utf-8"), where=path.name)
    except UnicodeDecodeError:
        told = message(
            f"'{path}' is no recipe: it holds no text.",
            "The recipe, a TOML file, stands first; the model behind it.",
            next_step="strop apply recipe.toml model.keras",
        )
        raise RecipeError([told]) from None


def _refuse_comparison_only(recipe: Recipe) -> None:
    """Refuse a recipe for what is measured beside the others and never chosen."""
    if registry.runtimes.get(recipe.runtime).is_for_comparison:
        others = [kind.name for kind in registry.runtimes if not kind.is_for_comparison]
        told = message(
            f"the runtime '{recipe.runtime}' is only measured beside the others; no artifact is made for it.",
            f"An artifact runs in one of: {', '.join(others)}.",
        )
        raise RecipeError([told])
