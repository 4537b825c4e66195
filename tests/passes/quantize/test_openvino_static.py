"""What NNCF's settings do to a graph: who is taken for a transformer, and what computes in float between layers."""

import numpy as np
import pytest

from strop.core import registry
from strop.core.contracts import Unchanged
from strop.core.model import Binding, Form, Model
from strop.core.samples import Samples
from strop.core.signature import Signature, TensorSpec
from strop.graph.openvino_quantizing import has_attention, layers_of, quantized_operations_of
from strop.graph.quiet import quiet, stay_offline
from tests.passes.convert.conftest import PlainContext

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _silence():
    stay_offline()
    with quiet():
        yield


def weights(*shape):
    from openvino import opset13

    return opset13.constant(RANDOM.normal(size=shape).astype(np.float32))


def saved(folder, build, shape):
    """Return the model that `build` makes of an input of `shape`, in a file."""
    import openvino
    from openvino import opset13

    x = opset13.parameter(shape, np.float32, name="x")
    x.output(0).set_names({"x"})
    y = build(opset13, x)
    y.output(0).set_names({"y"})
    graph = openvino.Model([y], [x], "graph")
    openvino.save_model(graph, str(folder / "model.xml"), compress_to_fp16=False)
    signature = Signature(
        (TensorSpec("x", tuple(shape), "float32"),),
        (TensorSpec("y", tuple(graph.outputs[0].shape), "float32"),),
    )
    return Model.at(
        Form.OPENVINO, folder / "model.xml", signature, Binding.plain(signature, batch=shape[0])
    )


def residual(ops, x):
    """A convolution, another beside its result, both added, then a classifier: a MatMul and a softmax."""

    def convolution(tensor, channels):
        ends = [1, 1]
        made = ops.convolution(tensor, weights(8, channels, 3, 3), ends, ends, ends, ends)
        return ops.add(made, weights(1, 8, 1, 1))

    stem = ops.relu(convolution(x, 3))
    added = ops.relu(ops.add(convolution(stem, 8), stem))
    flat = ops.reduce_mean(added, np.array([2, 3]), False)
    return ops.softmax(ops.matmul(flat, weights(8, 5), False, False), 1)


def attention(ops, x):
    """One head; the names tell nothing."""
    query, key, value = (ops.matmul(x, weights(8, 8), False, False) for _ in range(3))
    scores = ops.divide(ops.matmul(query, key, False, True), np.float32(8**0.5))
    return ops.matmul(ops.softmax(scores, 2), value, False, False)


def apply(model, folder, name="quantize.openvino_static", **settings):
    (folder / "work").mkdir()
    shape = (16, *model.signature.inputs[0].shape[1:])
    samples = Samples({"x": RANDOM.normal(size=shape).astype(np.float32)})

    class Calibrating(PlainContext):
        calibration = samples

    return registry.passes.get(name)(**settings).apply(model, Calibrating(folder / "work"))


def test_attention_is_told_by_what_is_computed_not_by_names(tmp_path):
    assert has_attention(saved(tmp_path, attention, [1, 6, 8]).path)
    assert not has_attention(saved(tmp_path, residual, [1, 3, 8, 8]).path)


def test_a_network_with_a_matrix_product_is_no_transformer_for_that(tmp_path):
    made = apply(saved(tmp_path, residual, [1, 3, 8, 8]), tmp_path, transformer=True)

    assert made == Unchanged("the model has no attention: no softmax between two matrix products")


@pytest.mark.parametrize(("elementwise", "wanted"), [("integer", True), ("float", False)])
def test_additions_between_layers_compute_where_it_is_asked_for(tmp_path, elementwise, wanted):
    model = saved(tmp_path, residual, [1, 3, 8, 8])

    made = apply(model, tmp_path, elementwise=elementwise)

    assert not any(is_float for _, is_float in layers_of(made.path))
    kinds = {name.split("_")[0] for name in quantized_operations_of(made.path)}
    assert ("Add" in kinds) is wanted
    assert ("ReduceMean" in kinds) is wanted


def recurrent(ops, x):
    """A GRU as Keras has it, which NNCF leaves alone, then a classifier."""
    gates = [weights(1, 12, 4), weights(1, 12, 4), weights(1, 16)]
    state = ops.constant(np.zeros((1, 1, 4), np.float32))
    steps = ops.constant(np.array([6], np.int32))
    made = ops.gru_sequence(x, state, steps, *gates, 4, "forward", linear_before_reset=True)
    made.set_friendly_name("gru")
    last = ops.squeeze(made.output(1), ops.constant(np.array([1])))
    return ops.matmul(last, weights(4, 5), False, False)


def looping(ops, x):
    """A product, done three times over in a loop, then a classifier."""
    import openvino

    state = ops.parameter([1, 4], np.float32)
    inner = ops.matmul(state, weights(4, 4), False, False)
    goes_on = ops.constant(np.array([True]))
    loop = ops.loop(ops.constant(np.array(3)), ops.constant(np.array([True])))
    loop.set_function(openvino.Model([goes_on, inner], [state], "body"))
    loop.set_special_body_ports([-1, 0])
    loop.set_merged_input(state, x.output(0), inner.output(0))
    ended = loop.get_iter_value(inner.output(0), -1)
    loop.set_friendly_name("loop")
    return ops.matmul(ended, weights(4, 5), False, False)


@pytest.mark.parametrize(
    ("build", "shape", "wanted"),
    [
        (recurrent, [1, 6, 4], {"gru": "the quantizer has no rule for it"}),
        (looping, [1, 4], {"loop": "a loop, which the quantizer does not look into"}),
    ],
)
def test_recurrence_that_stayed_in_float_is_listed(tmp_path, build, shape, wanted):
    made = apply(saved(tmp_path, build, shape), tmp_path)

    assert made.facts["left_in_float"] == wanted


def deep(ops, x):
    """Three products, wide enough for NNCF's groups of weights."""
    hidden = ops.relu(ops.matmul(x, weights(128, 128), False, False))
    hidden = ops.relu(ops.matmul(hidden, weights(128, 128), False, False))
    last = ops.matmul(hidden, weights(128, 5), False, False)
    last.set_friendly_name("last")
    return last


def test_what_nncf_keeps_in_more_bits_than_asked_for_is_listed(tmp_path):
    made = apply(saved(tmp_path, deep, [1, 128]), tmp_path, "quantize.openvino_weights", bits=4)

    assert made.facts["left_in_float"] == {}
    assert made.facts["left_alone"] == {
        "last": "in 8 bits, as NNCF has tables and the last layer, which lose most by fewer"
    }
