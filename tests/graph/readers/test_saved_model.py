import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from strop.core.errors import ModelError, UnsafeModelError
from strop.core.model import Form
from strop.graph.quiet import quiet
from strop.graph.reading import Options, read
from strop.runtimes.tensorflow import TensorFlow
from tests import models

DATA = Path(os.environ.get("STROP_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"there is no {DATA}")


class Two(tf.Module):
    def __init__(self):
        self.scale = tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def scaled(self, x):
        return {"scaled": x * self.scale}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def shifted(self, x):
        return {"shifted": x + self.scale}


def save(path, **signatures):
    module = Two()
    found = {name: getattr(module, function) for name, function in signatures.items()}
    tf.saved_model.save(module, str(path), signatures=found)
    return path


def exported(model, folder):
    """Return an in-memory model as it is read after an export."""
    with quiet():
        model.export(str(folder / "model"), verbose=False)
    return read(folder / "model", folder)


def answer(model, x):
    with TensorFlow().open(model) as predictor:
        return predictor(x)


def test_a_keras_export_is_read_by_its_keys(tmp_path):
    model = models.two_in_two_out()
    with quiet():
        model.export(str(tmp_path / "model"), verbose=False)

    found = read(tmp_path / "model", tmp_path)

    assert found.form is Form.SAVED_MODEL
    assert str(found.signature) == (
        "(deep: int32[?,6], wide: float32[?,8]) -> (kind: float32[?,3], score: float32[?,1])"
    )


def test_several_signatures_are_named(tmp_path):
    path = save(tmp_path / "model", one="scaled", two="shifted")

    with pytest.raises(ModelError) as caught:
        read(path, tmp_path)

    assert str(caught.value) == (
        f"'{path}' has no signature called serving_default.\n"
        "Its signatures: one, two.\n"
        "  --signature one"
    )


def test_the_signature_that_is_asked_for_is_served(tmp_path):
    path = save(tmp_path / "model", one="scaled", two="shifted")

    model = read(path, tmp_path, Options(signature="two"))

    assert answer(model, np.ones((1, 2), np.float32)).tolist() == [[4.0, 4.0]]


def test_the_only_signature_is_taken_whatever_it_is_called(tmp_path):
    model = read(save(tmp_path / "model", score="scaled"), tmp_path)

    assert answer(model, np.ones((1, 2), np.float32)).tolist() == [[3.0, 3.0]]


def test_a_folder_without_signatures_is_refused(tmp_path):
    tf.saved_model.save(Two(), str(tmp_path / "model"))

    with pytest.raises(ModelError, match="has no signature: it does not say what it takes"):
        read(tmp_path / "model", tmp_path)


def test_python_in_the_graph_is_refused(tmp_path):
    class Sly(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x):
            return {"y": tf.py_function(lambda value: value, [x], tf.float32)}

    module = Sly()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)

    with pytest.raises(UnsafeModelError) as caught:
        read(tmp_path / "model", tmp_path)

    assert caught.value.allow == "python-ops"


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_damaged_weights_are_a_model_error(tmp_path, share):
    path = save(tmp_path / "model", score="scaled")
    data = next((path / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[: int(share * data.stat().st_size)])

    with pytest.raises(ModelError):
        read(path, tmp_path)


def test_a_damaged_graph_is_a_model_error(tmp_path):
    path = save(tmp_path / "model", score="scaled")
    graph = path / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-50])

    with pytest.raises(ModelError):
        read(path, tmp_path)


@needs_data
def test_what_tensorflow_2_refuses_to_load_is_frozen_by_the_loader_of_1(tmp_path):
    source = DATA / "models" / "mlperf_tiny" / "keyword_spotting" / "kws_ref_model"
    shutil.copytree(source, tmp_path / "model")
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(tmp_path / "model"))

    model = read(tmp_path / "model", tmp_path)

    likely = answer(model, np.zeros((1, 49, 10, 1), np.float32))
    assert model.form is Form.GRAPH_DEF
    assert likely.shape == (1, 12)
    assert float(likely.sum()) == pytest.approx(1.0, abs=1e-6)  # a softmax over 12 classes


@pytest.mark.parametrize("make", [models.subclassed, models.bidirectional_lstm])
def test_a_model_exported_twice_is_the_same_model(tmp_path, make):
    """Each export has a mark of its own and names numbered anew; a study would never go on where it stopped."""
    model = make()

    first, second = (exported(model, tmp_path / name) for name in ("one", "two"))

    assert first.digest != second.digest
    assert first.identity() == second.identity()


def test_other_weights_are_another_model(tmp_path):
    model = models.subclassed()
    before = exported(model, tmp_path / "one")
    model.weights[-1].assign(model.weights[-1] + 1e-3)

    assert exported(model, tmp_path / "two").identity() != before.identity()
