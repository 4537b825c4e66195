"""What is stored sparsely comes back as it was."""

import numpy as np
import pytest

from strop.graph.litert_network import read_flatbuffer, write_flatbuffer
from strop.graph.litert_sparse import write_sparsely
from strop.graph.litert_zeros import layers_with_zeros
from tests.graph.test_litert_zeros import converted, dense
from tests.passes.convert.conftest import Workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("sparse"))


@pytest.fixture(scope="module")
def source(workshop):
    """A layer whose weights are to be replaced."""
    return converted(workshop, dense(4, share=0.5, block=1))


@pytest.mark.parametrize("share", [0.0, 0.9, 1.0])
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (3, 200), (200, 3), (90, 300), (2, 70_000)], ids=str
)
def test_what_is_stored_sparsely_comes_back_as_it_was(workshop, source, rows, columns, share):
    """The engine's own DENSIFY gives the very weights, where their places take one byte, two and four."""
    flatbuffer = read_flatbuffer(source.path)
    graph = flatbuffer.subgraphs[0]
    (layer,) = layers_with_zeros(flatbuffer, 0.0)
    random = np.random.default_rng(0)
    values = random.normal(size=(rows, columns)).astype("float32")
    values[random.random(values.shape) < share] = 0
    give(flatbuffer, int(layer.operator.inputs[1]), values)
    write_sparsely(flatbuffer, whole=[layer], blocks=[], part=None)
    graph.operators = [one for one in graph.operators if one is not layer.operator]
    graph.outputs = [layer.operator.inputs[1]]
    flatbuffer.signatureDefs = []
    path = workshop.new() / "weights.tflite"
    write_flatbuffer(flatbuffer, path)
    np.testing.assert_array_equal(only_output(path), values)


def give(flatbuffer, number, values):
    tensor = flatbuffer.subgraphs[0].tensors[number]
    tensor.shape = np.asarray(values.shape, np.int32)
    flatbuffer.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)


def only_output(path):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # XNNPACK wants something to compute with the weights.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
