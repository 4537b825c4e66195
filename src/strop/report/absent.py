"""What was not tried at all, and why: engines and techniques that are not installed or were not asked for."""

from __future__ import annotations

from collections import defaultdict

from strop.core import registry
from strop.core.errors import MissingDependencyError
from strop.engine.outcome import Outcome


def not_tried(outcome: Outcome) -> list[str]:
    """Return a sentence for each engine without a trial, and for each package that techniques lacked."""
    tried = {trial.recipe.runtime for trial in outcome.trials}
    said = []
    for runtime in registry.runtimes:
        if runtime.is_for_comparison or runtime.name in tried:
            continue
        missing = runtime.missing()
        why = _lacks(missing) if missing else "it was not asked for, or nothing leads to it"
        said.append(f"{runtime.title or runtime.name} was not tried: {why}.")
    lacking: dict[str, list[str]] = defaultdict(list)
    for kind in registry.passes:
        missing = kind.missing()
        if missing:
            lacking[_lacks(missing)].append(kind.name)
    for why, names in lacking.items():
        verb = "was" if len(names) == 1 else "were"
        said.append(f"{', '.join(names)} {verb} not tried: {why}.")
    return said


def _lacks(missing: MissingDependencyError) -> str:
    return f"the package '{missing.package}' is not installed ({missing.install})"
