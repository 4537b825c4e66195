import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from strop.core.errors import ModelError
from strop.graph.quiet import quiet
from strop.graph.reading import read
from strop.runtimes.litert import LiteRT

SPEC = tf.TensorSpec([None, 4], tf.float32, name="x")


def convert(folder, function, **settings):
    with quiet():
        traced = tf.function(function).get_concrete_function(SPEC)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
        for name, value in settings.items():
            setattr(converter, name, value)
        content = converter.convert()
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path


def forget_signature(path):
    """Make a flatbuffer as older converters wrote it: no signature, all outputs named after one node."""
    content = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    content.signatureDefs = None
    graph = content.subgraphs[0]
    for place, index in enumerate(graph.outputs):
        graph.tensors[index].name = f"StatefulPartitionedCall:{place}".encode()
    builder = flatbuffers.Builder(1024)
    builder.Finish(content.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def test_outputs_of_one_node_are_told_apart(tmp_path):
    path = convert(tmp_path, lambda x: [x * 2.0, x + 1.0])
    forget_signature(path)

    model = read(path, tmp_path)

    assert model.signature.output_names == (
        "StatefulPartitionedCall_0",
        "StatefulPartitionedCall_1",
    )
    with LiteRT().open(model) as predictor:
        answers = predictor(np.ones((1, 4), np.float32))
    assert sorted(answers) == list(model.signature.output_names)


def test_a_custom_operation_is_named(tmp_path):
    path = convert(tmp_path, lambda x: tf.raw_ops.Betainc(a=x, b=x, x=x), allow_custom_ops=True)

    with pytest.raises(ModelError, match="uses Betainc, which LiteRT does not have"):
        read(path, tmp_path)


def test_an_operation_of_tensorflow_is_named(tmp_path):
    target = tf.lite.TargetSpec()
    target.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    path = convert(
        tmp_path, lambda x: tf.raw_ops.Roll(input=x, shift=[1], axis=[1]), target_spec=target
    )

    with pytest.raises(ModelError, match="uses FlexRoll, which LiteRT does not have"):
        read(path, tmp_path)
