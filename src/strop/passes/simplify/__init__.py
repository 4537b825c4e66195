"""A graph written more simply, that computes the same."""

from __future__ import annotations

from dataclasses import dataclass

from strop.core.contracts import TENSORFLOW, Effort, Pass
from strop.core.model import Form


@dataclass(frozen=True)
class Rewriting(Pass):
    """A pass that writes a TensorFlow graph more simply; what all of them have in common."""

    takes = frozenset({Form.GRAPH_DEF})
    requires = (TENSORFLOW,)
    is_idempotent = True
    effort = Effort.THOROUGH  # engines but TensorFlow do as much when they load
    loads_tensorflow = True
