import pytest
import tensorflow as tf

from strop.core.errors import UnsafeModelError
from strop.graph.graph_safety import upstream, with_called
from strop.graph.quiet import quiet
from strop.graph.reading import Options, read

SPEC = tf.TensorSpec([None, 4], tf.float32, name="x")


def reads_a_file(x):
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def reads_in_a_branch(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: reads_a_file(x), lambda: x)


def reads_a_checkpoint(x):
    found = tf.raw_ops.RestoreV2(
        prefix="/etc/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    return x + tf.reduce_sum(found[0])


def writes_a_checkpoint(x):
    saved = tf.raw_ops.SaveV2(
        prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], tensors=[x]
    )
    with tf.control_dependencies([saved]):
        return tf.identity(x * 2)


def prints_to_a_file(x):
    with tf.control_dependencies([tf.print("x", output_stream="file:///tmp/x")]):
        return tf.identity(x * 2)


def maps_a_file_as_weights(x):
    region = "/etc/hostname"
    return x + tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[4], memory_region_name=region)


UNSAFE = {
    reads_a_file: "ReadFile",
    reads_in_a_branch: "ReadFile",
    reads_a_checkpoint: "RestoreV2",
    writes_a_checkpoint: "SaveV2",
    prints_to_a_file: "PrintV2",
    maps_a_file_as_weights: "ImmutableConst",
}


def as_graph(function, folder):
    path = folder / "model.pb"
    traced = tf.function(function, autograph=False).get_concrete_function(SPEC)
    path.write_bytes(traced.graph.as_graph_def().SerializeToString())
    return path


def as_saved_model(function, folder):
    module = tf.Module()
    module.scale = tf.Variable(2.0)
    module.serve = tf.function(lambda x: function(x) * module.scale, autograph=False)
    with quiet():
        serve = module.serve.get_concrete_function(SPEC)
        tf.saved_model.save(module, str(folder / "model"), signatures=serve)
    return folder / "model"


@pytest.mark.parametrize("write", [as_graph, as_saved_model])
@pytest.mark.parametrize(("function", "operation"), UNSAFE.items())
def test_what_would_touch_files_is_refused(tmp_path, write, function, operation):
    path = write(function, tmp_path)

    with pytest.raises(UnsafeModelError, match=f"has the operation {operation}") as caught:
        read(path, tmp_path)

    assert caught.value.allow == "file-ops"
    assert str(caught.value).endswith("allow it:\n  --allow file-ops")


@pytest.mark.parametrize("write", [as_graph, as_saved_model])
def test_what_is_allowed_is_read(tmp_path, write):
    path = write(reads_a_file, tmp_path)

    model = read(path, tmp_path, Options(allow=frozenset({"file-ops"})))

    assert model.signature.input_names == ("x",)


def test_a_checkpoint_of_its_own_is_no_danger(tmp_path):
    path = as_saved_model(
        lambda x: x + 1.0, tmp_path
    )  # holds SaveV2 and RestoreV2 for its variable

    assert read(path, tmp_path).signature.input_names == ("x",)


def test_restoring_that_writes_instead_is_refused(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    file = as_saved_model(lambda x: x + 1.0, tmp_path) / "saved_model.pb"
    forged = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    saver = forged.meta_graphs[0].saver_def
    saver.restore_op_name = saver.save_tensor_name.split(":")[0]
    file.write_bytes(forged.SerializeToString())

    with pytest.raises(UnsafeModelError, match="SaveV2"):
        read(file.parent, tmp_path)


def test_printing_to_the_terminal_is_no_danger(tmp_path):
    def prints(x):
        with tf.control_dependencies([tf.print("x")]):
            return tf.identity(x * 2)

    assert read(as_graph(prints, tmp_path), tmp_path).signature.input_names == ("x",)


def test_what_the_outputs_do_not_wait_for_is_not_upstream():
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [4], "x")
        tf.identity(reads_a_file(x), "beside")
        tf.identity(x, "y")
    definition = graph.as_graph_def()

    found = with_called(definition.library, upstream(definition, ["y:0"]))

    assert {node.name for node in found} == {"x", "y"}
