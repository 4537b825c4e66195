"""Weights of a frozen graph in float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import TENSORFLOW, Context, Effort, Exactness, Pass, Unchanged
from strop.core.model import Form, Model
from strop.core.parameters import parameter

if TYPE_CHECKING:
    from strop.graph.simplifying import Ends


@final
@dataclass(frozen=True)
class Float16GraphDef(Pass):
    """Keep weights in half precision; they are cast to float32 before they are used.

    Before:  x ── Conv2D(W float32) ── y
    After:   x ── Conv2D(Cast(W float16)) ── y

    Half the size on disk. Small constants TensorFlow casts when it loads the graph, large ones at each call. Weights
    beyond what float16 can tell (65,504) stay as they are.
    """

    takes = frozenset({Form.GRAPH_DEF})
    requires = (TENSORFLOW,)
    exactness = Exactness.LOSSY
    is_idempotent = True
    effort = Effort.THOROUGH  # smaller on disk alone
    price = "the weights are cast to float before use: smaller, not faster"
    loads_tensorflow = True

    smallest: int = parameter(
        256, low=1, doc="weights of a constant from which on it is worth a cast"
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the graph with half-precision weights."""
        from strop.graph.simplifying import simplified

        def halve(definition: Any, ends: Ends) -> bool:
            return _halve(definition, ends, self.smallest)

        nothing = f"no constant has {self.smallest} weights in float32, or all are out of float16's range"
        return simplified(self, model, context, halve, nothing=nothing)


def _halve(definition: Any, ends: Ends, smallest: int) -> bool:
    import numpy as np
    import tensorflow as tf

    from strop.graph.view import GraphView

    view = GraphView(definition)
    single = tf.float32.as_datatype_enum
    found = 0
    for node in view.nodes("Const"):
        if node.attr["dtype"].type != single or node.name in ends.nodes:
            continue
        value = tf.make_ndarray(node.attr["value"].tensor)
        if value.size < smallest:
            continue
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.isfinite(half).all():
            continue
        waits = [name for name in node.input if name.startswith("^")]
        constant = view.add_constant(f"{node.name}/float16", half)
        view.become(
            node, "Cast", [constant, *waits], SrcT=tf.float16.as_datatype_enum, DstT=single
        )
        found += 1
    return found > 0
