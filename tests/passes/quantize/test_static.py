"""What static quantization promises alike in LiteRT, ONNX Runtime and OpenVINO: nothing stays float in silence."""

from dataclasses import replace

import numpy as np
import pytest

from strop.core import registry
from strop.core.errors import ParameterError
from strop.core.evaluation import Goal
from strop.core.model import Form
from strop.graph.quiet import quiet

STATIC = [
    ("quantize.litert_static", Form.LITERT),
    ("quantize.onnx_static", Form.ONNX),
    ("quantize.openvino_static", Form.OPENVINO),
]


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def apply(made, name, form, *, goal=None, **settings):
    context = made.context()
    context.goal = goal or context.goal
    return registry.passes.get(name)(**settings).apply(made.of_form(form), context)


def layers(made, name, form):
    """Return the names of the layers with weights, as `keep_float` takes them."""
    from strop.graph import litert_quantizing, onnx_quantizing, openvino_quantizing

    of = {
        Form.LITERT: litert_quantizing.layers_of,
        Form.ONNX: onnx_quantizing.layers_of,
        Form.OPENVINO: openvino_quantizing.layers_of,
    }
    return [layer for layer, _ in of[form](made.of_form(form).path)]


@pytest.mark.parametrize(("name", "form"), STATIC)
def test_a_layer_kept_float_is_listed_with_the_reason_and_no_other(made, name, form):
    first = layers(made, name, form)[0]

    kept = apply(made, name, form, keep_float=(first,))

    before = apply(made, name, form).facts["left_in_float"]
    assert kept.facts["left_in_float"] == {**before, first: "asked for"}


@pytest.mark.parametrize(("name", "form"), STATIC)
def test_a_name_that_is_no_layers_is_refused(made, name, form):
    with pytest.raises(ParameterError, match="no layer is called 'nowhere'"):
        apply(made, name, form, keep_float=("nowhere",))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("quantize.litert_static", ("convert.litert",)),
        ("quantize.onnx_static", ("convert.onnx",)),
        ("quantize.openvino_static", ("convert.onnx", "convert.openvino")),
    ],
)
def test_a_batch_larger_than_the_calibration_samples_shows_ranges_too(made, name, steps):
    model, context = made.of_form(Form.GRAPH_DEF), made.context()
    for step, settings in zip(steps, ({"batch": 8}, {}), strict=False):
        model = registry.passes.get(step)(**settings).apply(model, made.context())

    quantized = registry.passes.get(name)(samples=5).apply(model, context)

    assert quantized.binding.batch == 8
    # Ranges of five samples are too narrow for some others; ranges of none leave no signal at all.
    assert made.context().evaluate(quantized).sqnr_db > 10


@pytest.mark.parametrize(("name", "form"), STATIC)
def test_repair_meets_a_limit_that_plain_quantization_misses(made, name, form):
    plain = made.context().evaluate(apply(made, name, form))
    goal = Goal(max_drop=1.0, min_sqnr_db=plain.sqnr_db + 3)
    assert goal.shortfall(plain) is not None

    repaired = apply(made, name, form, goal=goal, repair=True)

    assert goal.shortfall(made.context().evaluate(repaired)) is None
    hurt = [n for n, why in repaired.facts["left_in_float"].items() if why.startswith("it hurt")]
    assert hurt


@pytest.mark.parametrize(("name", "form"), STATIC)
def test_where_the_limit_holds_repair_changes_nothing(made, name, form):
    goal = Goal(max_drop=1.0)

    repaired = apply(made, name, form, goal=goal, repair=True)

    assert repaired.digest == apply(made, name, form).digest


def test_integer_inputs_and_outputs_answer_as_float_ones_do(made):
    whole = apply(made, "quantize.litert_static", Form.LITERT, io="integer")

    (bound,) = whole.binding.inputs
    assert bound.dtype == whole.binding.outputs[0].dtype == "int8"
    assert bound.scale > 0
    floats = apply(made, "quantize.litert_static", Form.LITERT)
    ours, theirs = (made.context().evaluate(model).drop.value for model in (whole, floats))
    # Both round the same inputs and outputs to the same grids, one inside the file, the other before it.
    assert abs(ours - theirs) <= 0.005


def test_ranges_found_once_serve_every_choice_of_float_layers(made):
    from strop.graph.litert_quantizing import operations_of

    model, context = made.of_form(Form.LITERT), made.context()
    kind = registry.passes.get("quantize.litert_static")()
    kept = tuple(operations_of(model.path)[:2])
    ranges = {}

    kind._quantized(model, context, (), ranges)
    with_found = kind._quantized(model, context, kept, ranges)

    assert ranges
    assert with_found.digest == replace(kind, keep_float=kept).apply(model, made.context()).digest


def test_ranges_kept_in_a_file_serve_every_choice_of_float_layers(made):
    from strop.graph.onnx_quantizing import operations_of, prepared

    model, context = made.of_form(Form.ONNX), made.context()
    kind = registry.passes.get("quantize.onnx_static")()
    ready = prepared(model, context.workspace)
    kept = tuple(operations_of(ready)[:2])

    kind._quantized(model, ready, context, ())
    with_found = kind._quantized(model, ready, context, kept)

    assert with_found.digest == replace(kind, keep_float=kept).apply(model, made.context()).digest


def test_weights_of_seven_bits_are_codes_of_no_more(made):
    """So that two products of a weight and an activation of 8 bits stay below what 16 bits hold."""
    import onnx

    written = apply(made, "quantize.onnx_static", Form.ONNX, weight_bits=7)

    held = [onnx.numpy_helper.to_array(t) for t in onnx.load(str(written.path)).graph.initializer]
    kernels = [array for array in held if array.dtype == np.int8 and array.ndim > 1]
    assert kernels
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) <= 64
