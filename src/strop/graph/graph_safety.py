"""Graph operations that touch files or run Python: refused unless the user admits them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from strop.core.errors import UnsafeModelError, message

_DANGERS = {
    "ReadFile": "file-ops",
    "WriteFile": "file-ops",
    "MatchingFiles": "file-ops",
    "PyFunc": "python-ops",
    "EagerPyFunc": "python-ops",
    "PyFuncStateless": "python-ops",
}


def refuse_unsafe(nodes: Iterable[Any], path: Path, allow: Collection[str]) -> None:
    """Raise for the first node that touches files or runs Python, unless `allow` admits its kind.

    Raises:
        UnsafeModelError: Naming node, operation and the word that admits it.
    """
    for node in nodes:
        kind = _DANGERS.get(node.op)
        if kind is None or kind in allow:
            continue
        raise UnsafeModelError(
            message(
                f"'{path}' has the operation {node.op} ('{node.name}'), which "
                f"{'reads or writes files' if kind == 'file-ops' else 'runs Python code'}.",
                "If you trust where the model comes from, allow it:",
                next_step=f"--allow {kind}",
            ),
            allow=kind,
        )
