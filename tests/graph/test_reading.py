import os
import sys

import pytest

from strop.core.errors import MissingDependencyError, ModelError, UnsafeModelError
from strop.core.model import Form
from strop.graph.quiet import quiet
from strop.graph.reading import Options, detect, read
from tests import models


def test_nothing_there_says_what_a_model_is(tmp_path):
    with pytest.raises(ModelError) as caught:
        detect(tmp_path / "gone.keras")

    assert str(caught.value) == (
        f"there is no '{tmp_path}/gone.keras'.\n"
        "A model is one of: .keras, .h5, .hdf5, a SavedModel folder, .pb, .tflite, .onnx, "
        ".xml (OpenVINO)."
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".pb", ".tflite", ".onnx", ".xml"])
def test_an_empty_file_is_called_empty(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.touch()

    with pytest.raises(ModelError, match="is empty"):
        detect(path)


@pytest.fixture
def only_ours(tmp_path):
    """A model that nobody but its owner may read, seen by somebody else."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x00\x00\x00\x00TFL3")
    path.chmod(0)
    if os.geteuid() == 0:  # whom no permission keeps out
        os.seteuid(65534)
        yield path
        os.seteuid(0)
    else:
        yield path


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are another matter there")
def test_a_file_that_may_not_be_read_is_told(only_ours):
    with pytest.raises(ModelError) as caught:
        detect(only_ours)

    assert str(caught.value) == f"'{only_ours}' can't be read: Permission denied."


def test_an_hdf5_file_named_keras_is_told_its_name(tmp_path):
    model = tmp_path / "model.h5"
    models.convnet().save(model)
    wrong = model.rename(tmp_path / "model.keras")

    with pytest.raises(ModelError) as caught:
        detect(wrong)

    assert str(caught.value) == (
        f"'{wrong}' is not what its name says: it is an HDF5 file, as Keras 2 wrote them.\n"
        "Give it the suffix that belongs to it.\n"
        f"  mv {wrong} {tmp_path}/model.h5"
    )


def test_a_zip_archive_named_h5_is_told_its_name(tmp_path):
    model = tmp_path / "model.keras"
    models.convnet().save(model)

    with pytest.raises(ModelError, match="it is a zip archive, as Keras 3 writes them"):
        detect(model.rename(tmp_path / "model.h5"))


def test_a_keras_file_cut_short_is_called_cut_short(tmp_path):
    path = tmp_path / "model.keras"
    models.convnet().save(path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelError, match="is cut short: it begins as a zip archive"):
        detect(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".tflite", ".xml"])
def test_text_under_a_models_name_is_not_a_model(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_text("import this")

    with pytest.raises(ModelError, match="is not what its name says"):
        detect(path)


@pytest.mark.parametrize("suffix", [".pb", ".pbtxt", ".onnx"])
def test_text_is_no_protobuf_either(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_text("import this")

    with pytest.raises(ModelError):
        read(path, tmp_path)


def test_what_a_lambda_was_allowed_at_stays_allowed_later(tmp_path):
    import keras

    from strop.graph.keras_files import opened

    x = keras.Input((4,))
    keras.Model(x, keras.layers.Lambda(lambda v: v * 2)(x)).save(tmp_path / "model.keras")

    with pytest.raises(UnsafeModelError):
        read(tmp_path / "model.keras", tmp_path)
    model = read(tmp_path / "model.keras", tmp_path, Options(allow=frozenset({"lambda"})))

    assert model.form is Form.KERAS
    assert opened(model).output_shape == (None, 4)


def test_a_fixed_batch_is_told(tmp_path):
    import keras

    x = keras.Input(batch_shape=(2, 4))
    keras.Model(x, keras.layers.Dense(3)(x)).save(tmp_path / "model.keras")

    model = read(tmp_path / "model.keras", tmp_path)

    assert model.signature.batch == model.binding.batch == 2


def test_string_inputs_are_named_with_how_to_split_them_off(tmp_path):
    import keras

    words = keras.Input((1,), dtype="string", name="words")
    look_up = keras.layers.StringLookup(vocabulary=["a", "b"])
    with quiet():
        keras.Model(words, look_up(words)).export(str(tmp_path / "model"), verbose=False)

    with pytest.raises(ModelError, match=r"takes strings \(words\), which most engines can't"):
        read(tmp_path / "model", tmp_path)


def test_the_graph_within_a_saved_model_is_told_its_folder(tmp_path):
    with quiet():
        models.convnet().export(str(tmp_path / "model"), verbose=False)

    with pytest.raises(ModelError) as caught:
        detect(tmp_path / "model" / "saved_model.pb")

    assert str(caught.value) == (
        f"'{tmp_path}/model/saved_model.pb' is a part of a SavedModel, which is a folder.\n"
        "Give the folder.\n"
        f"  {tmp_path}/model"
    )


def test_an_engine_that_is_not_installed_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "model.xml"
    path.write_text('<?xml version="1.0"?>\n<net name="graph" version="11">')
    monkeypatch.setitem(sys.modules, "openvino", None)  # how Python spells "not there"

    with pytest.raises(MissingDependencyError) as caught:
        read(path, tmp_path)

    assert str(caught.value) == (
        "reading an OpenVINO model needs the package 'openvino', which is not installed.\n"
        "  pip install strop[openvino]"
    )


def _any_length(folder):
    models.transformer(None).save(folder / "model.keras")
    return folder / "model.keras"


def test_a_shape_that_is_given_holds(tmp_path):
    path = _any_length(tmp_path)

    model = read(path, tmp_path, Options(shapes={"tokens": (None, 9)}))

    assert model.signature.inputs[0].shape == (None, 9)
    assert not model.signature.free_dimensions()


def test_a_shape_for_no_input_is_told_the_inputs(tmp_path):
    path = _any_length(tmp_path)

    with pytest.raises(ModelError) as caught:
        read(path, tmp_path, Options(shapes={"token": (None, 9)}))

    assert str(caught.value) == (
        f"'{path}' has no input 'token', for which a shape is given.\n"
        "Its inputs: tokens.\n"
        "  --shape tokens=?,9"
    )


@pytest.mark.parametrize("shape", [(None, 9, 2), (None, 12, 12, 1)])
def test_a_shape_that_can_not_be_the_inputs_is_refused(tmp_path, shape):
    models.convnet().save(tmp_path / "model.keras")

    with pytest.raises(
        ModelError, match=r"takes image: float32\[\?,12,12,3\]; the shape .* can't be"
    ):
        read(tmp_path / "model.keras", tmp_path, Options(shapes={"image": shape}))
