"""To a frozen GraphDef: one inlined graph whose variables are constants, from which all other forms are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import TENSORFLOW, Context, Exactness, Pass, Unchanged
from strop.core.model import Binding, Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class Freeze(Pass):
    """Write the model as one frozen graph.

    Before:  Keras layers, or a SavedModel's functions, reading variables
    After:   one GraphDef; variables are constants, functions inlined, training-only nodes gone
    """

    takes = frozenset({Form.KERAS, Form.SAVED_MODEL, Form.GRAPH_DEF})
    gives = Form.GRAPH_DEF
    requires = (TENSORFLOW,)
    exactness = Exactness.ROUNDING
    loads_tensorflow = True
    fallbacks = ({"batch": "first_batch"},)

    batch: int = parameter(
        0,
        low=0,
        doc="batch size to fix while tracing, which loops over time need for LiteRT; 0 leaves it free",
    )
    unroll: bool = parameter(
        False,
        search=(True,),
        doc="write recurrent Keras layers out step by step: larger, faster, and no loop is left",
    )
    most_steps: int = parameter(
        64,
        low=1,
        doc="longest sequence to write out: the graph grows with each step, and at 80 a loop was faster in LiteRT",
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the frozen graph."""
        from strop.graph.freezing import as_frozen
        from strop.graph.frozen import is_in_order
        from strop.graph.quiet import quiet
        from strop.graph.refusal import refusal

        if model.form is Form.GRAPH_DEF and is_in_order(model):
            return Unchanged("the model is a frozen graph already")
        if self.unroll and not _can_unroll(model):
            return Unchanged("there is no recurrent Keras layer with a known number of steps")
        steps = _longest(model)
        if self.unroll and steps > self.most_steps:
            return Unchanged(
                f"the input has {steps} steps, more than most_steps ({self.most_steps})"
            )
        batch = self.batch or model.binding.batch
        with quiet():
            try:
                frozen = as_frozen(model, batch=batch, unrolled=self.unroll)
            # TensorFlow and Keras raise errors of every kind while tracing.
            except Exception as error:
                raise refusal("freezing", error) from error
        path = context.workspace / "model.pb"
        path.write_bytes(frozen.definition.SerializeToString(deterministic=True))
        binding = Binding.plain(model.signature, frozen.inputs, frozen.outputs, batch=batch)
        return model.derive(self, Form.GRAPH_DEF, path, binding)


def _longest(model: Model) -> int:
    """Return the longest of the axes that may be time: the one behind the batch."""
    return max(
        (spec.shape[1] or 0 for spec in model.signature.inputs if len(spec.shape) > 1), default=0
    )


def _can_unroll(model: Model) -> bool:
    if model.form is not Form.KERAS or model.signature.free_dimensions():
        return False
    # Every study of a Keras model asks this, so that it must cost no loading.
    from strop.graph.recurrent import has_recurrent_layers

    return has_recurrent_layers(model.path)
