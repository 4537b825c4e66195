"""What a quantized OpenVINO graph holds, and what each quantized operation costs the answers."""

import numpy as np
import pytest

from strop.core import registry
from strop.core.model import Form
from strop.graph.openvino_quantizing import answers, layers_of, quantized_operations_of
from strop.graph.quiet import quiet


@pytest.fixture(scope="module")
def quantized(made):
    with quiet():
        model = made.of_form(Form.OPENVINO)
        return model, registry.passes.get("quantize.openvino_static")().apply(
            model, made.context()
        )


def test_an_operation_behind_a_pooling_of_quantized_numbers_is_quantized_and_the_pooling_is_none(
    quantized,
):
    model, made = quantized
    assert quantized_operations_of(model.path) == []
    names = quantized_operations_of(made.path)
    assert {name for name, is_float in layers_of(made.path) if not is_float} <= set(names)
    assert not [name for name in names if "Pool" in name or "Transpose" in name]


def test_all_quantized_operations_together_answer_as_the_quantized_graph_does(made, quantized):
    """So what was copied for ranking them one by one (ranges, weights, corrections) is all there is."""
    model, ready = quantized
    samples = made.context().calibration
    names = quantized_operations_of(ready.path)

    (whole,) = answers(ready.path, ready.binding, samples)
    (copied,) = answers(model.path, ready.binding, samples, quantized=ready.path, only=names)
    (alone,) = answers(model.path, ready.binding, samples, quantized=ready.path, only=names[:1])
    (none,) = answers(model.path, ready.binding, samples)

    def apart(found):
        return np.abs(found - whole).mean()

    # Not to the last bit: for graphs that differ in what is copied, kernels are chosen differently, and round otherwise.
    assert apart(copied) < apart(alone) < apart(none)
    assert apart(copied) < apart(none) / 10
