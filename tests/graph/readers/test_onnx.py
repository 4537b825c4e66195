import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from strop.core.errors import ModelError, UnsafeModelError
from strop.graph.reading import Options, read
from strop.runtimes.onnxruntime import ONNXRuntime

FLOAT = onnx.TensorProto.FLOAT
X = helper.make_tensor_value_info("x", FLOAT, ["N", 4])
Y = helper.make_tensor_value_info("y", FLOAT, ["N", 4])
WEIGHTS = np.arange(4, dtype=np.float32)
ALLOWED = Options(allow=frozenset({"external-data"}))


def save(folder, *nodes, inputs=(X,), outputs=(Y,), weights=(), domains=()):
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, initializer=list(weights))
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    path = folder / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return path


def elsewhere(place, offset=0):
    """Weights that lie in the file at `place`."""
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": str(offset), "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


ADD = helper.make_node("Add", ["x", "w"], ["y"])


@pytest.fixture
def folder(tmp_path):
    """A model's folder, beside another one that holds weights behind eight bytes of something else."""
    for name in ("model", "other", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "w.bin").write_bytes(b"8 bytes!" + WEIGHTS.tobytes())
    return tmp_path / "model"


def as_weights(place):
    return {"weights": [elsewhere(place, 8)]}, [ADD]


def as_attribute(place):
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere(place, 8))
    return {}, [constant, ADD]


@pytest.mark.parametrize("keep", [as_weights, as_attribute])
def test_weights_outside_of_the_folder_are_refused_wherever_they_are_named(folder, keep):
    settings, nodes = keep("../other/w.bin")
    path = save(folder, *nodes, **settings)

    with pytest.raises(UnsafeModelError) as caught:
        read(path, folder.parent / "work")

    assert str(caught.value) == (
        f"'{path}' keeps weights in '../other/w.bin', outside of its own folder.\n"
        "If you trust where the model comes from, allow it:\n"
        "  --allow external-data"
    )


def test_a_link_out_of_the_folder_is_outside(folder):
    (folder / "w.bin").symlink_to(folder.parent / "other" / "w.bin")
    path = save(folder, ADD, weights=[elsewhere("w.bin", 8)])

    with pytest.raises(UnsafeModelError, match="outside of its own folder"):
        read(path, folder.parent / "work")


@pytest.mark.parametrize("keep", [as_weights, as_attribute])
def test_weights_that_are_allowed_are_brought_into_a_copy(folder, keep):
    settings, nodes = keep("../other/w.bin")
    path = save(folder, *nodes, **settings)

    model = read(path, folder.parent / "work", ALLOWED)

    assert model.path == folder.parent / "work" / "model.onnx"
    assert "brought into a copy" in model.facts["notes"][0]
    with ONNXRuntime().open(model) as predictor:
        np.testing.assert_array_equal(predictor.run([np.zeros((2, 4), np.float32)])[0][1], WEIGHTS)


def test_weights_beside_the_model_count_to_its_digest(folder):
    path = save(folder, ADD, weights=[elsewhere("w.bin")])
    digests = []

    for scale in (1, 2):
        (folder / "w.bin").write_bytes((scale * WEIGHTS).tobytes())
        work = folder.parent / "work" / str(scale)
        work.mkdir()
        digests.append(read(path, work).digest)

    assert digests[0] != digests[1]


def test_weights_that_are_not_there_are_missed_by_name(folder):
    path = save(folder, ADD, weights=[elsewhere("gone.bin")])

    with pytest.raises(ModelError, match=r"keeps weights in 'gone\.bin', which is not there"):
        read(path, folder.parent / "work")


def test_an_operation_of_others_is_named(tmp_path):
    path = save(
        tmp_path, helper.make_node("Foo", ["x"], ["y"], domain="my.ops"), domains=["my.ops"]
    )

    with pytest.raises(ModelError) as caught:
        read(path, tmp_path)

    assert str(caught.value) == (
        f"'{path}' uses the operation my.ops:Foo, which ONNX Runtime does not have.\n"
        "It comes from a library of custom operations, which strop does not load."
    )


def test_an_output_that_is_a_list_is_refused(tmp_path):
    several = helper.make_tensor_sequence_value_info("y", FLOAT, ["N", 4])
    path = save(tmp_path, helper.make_node("SequenceConstruct", ["x"], ["y"]), outputs=[several])

    with pytest.raises(ModelError, match=r"has 'y' as seq\(tensor\(float\)\), which is no array"):
        read(path, tmp_path)


def test_an_input_without_a_shape_is_asked_for_and_is_no_scalar(tmp_path):
    shapeless = helper.make_tensor_value_info("x", FLOAT, None)
    path = save(tmp_path, helper.make_node("Relu", ["x"], ["y"]), inputs=[shapeless])

    with pytest.raises(ModelError, match="does not tell the shape of its input 'x'"):
        read(path, tmp_path)
    model = read(path, tmp_path, Options(shapes={"x": (None, 4)}))

    assert str(model.signature.inputs[0]) == "x: float32[?,4]"


def test_a_model_without_inputs_is_refused(tmp_path):
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(WEIGHTS))
    path = save(tmp_path, constant, inputs=[])

    with pytest.raises(ModelError, match="takes no inputs"):
        read(path, tmp_path)


def test_a_batch_that_the_file_fixes_stays_fixed_where_a_shape_is_given(tmp_path):
    fixed = helper.make_tensor_value_info("x", FLOAT, [1, None])
    path = save(tmp_path, helper.make_node("Relu", ["x"], ["y"]), inputs=[fixed])

    model = read(path, tmp_path, Options(shapes={"x": (None, 4)}))

    assert model.signature.inputs[0].shape == (1, 4)
    assert model.binding.batch == 1
