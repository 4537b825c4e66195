import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.core.model import Binding, Form, Model, TensorBinding, digest_of
from strop.core.signature import Signature, TensorSpec

IMAGE = TensorSpec("image", (None, 4, 5, 3), "float32")
LABEL = TensorSpec("label", (None, 2), "float32")
SIGNATURE = Signature((IMAGE,), (LABEL,))

tensor_bindings = st.builds(
    TensorBinding,
    name=st.text(max_size=8),
    index=st.integers(0, 5),
    dtype=st.sampled_from(["float32", "int8", "uint8"]),
    permutation=st.none() | st.permutations(range(4)).map(tuple),
    scale=st.none() | st.floats(1e-3, 1e3),
    zero_point=st.integers(-128, 127),
)
bindings = st.builds(
    lambda i, o, batch: Binding(tuple(i), tuple(o), batch),
    st.lists(tensor_bindings, max_size=3),
    st.lists(tensor_bindings, max_size=3),
    st.none() | st.integers(1, 64),
)


def model_in(folder: Path, content: bytes = b"weights") -> Model:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return Model.at(Form.ONNX, path, SIGNATURE, note="made for a test")


@given(bindings)
def test_json_brings_a_binding_back(binding):
    assert Binding.from_json(json.loads(json.dumps(binding.to_json()))) == binding


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_permuted_axes_come_back(permutation, seed):
    array = np.random.default_rng(seed).normal(size=(2, 3, 4, 5)).astype(np.float32)
    binding = TensorBinding("x", 0, "float32", tuple(permutation))

    encoded = binding.encode(array)

    assert encoded.shape == tuple(array.shape[axis] for axis in permutation)
    np.testing.assert_array_equal(binding.decode(encoded, "float32"), array)


@given(st.integers(-100, 100), st.floats(1e-3, 10.0), st.floats(-1.0, 1.0))
def test_a_quantized_tensor_comes_back_within_half_a_step(zero_point, scale, share):
    binding = TensorBinding("x", 0, "int8", None, scale, zero_point)
    # Inside the reach of the codes: 27 steps to the nearer end.
    array = np.array([share * 27 * scale], np.float32)

    back = binding.decode(binding.encode(array), "float32")

    # Half a step; the scale, the quotient and the product are each rounded to float32, of at most 2**8 steps.
    assert abs(float(back[0]) - float(array[0])) <= (0.5 + 2.0 ** (8 - 22)) * scale


def test_values_beyond_the_codes_get_the_ends():
    binding = TensorBinding("x", 0, "uint8", None, 0.5, 10)

    codes = binding.encode(np.array([-1e9, 0.0, 1e9], np.float32))

    assert codes.dtype == np.uint8
    assert codes.tolist() == [0, 10, 255]


def test_a_plain_binding_gives_the_very_same_array():
    array = np.ones((1, 4, 5, 3), np.float32)
    (binding,) = Binding.plain(SIGNATURE).inputs

    assert binding.is_plain("float32")
    assert binding.encode(array) is array


@pytest.mark.parametrize(
    "binding",
    [
        TensorBinding("x", 0, "float16"),
        TensorBinding("x", 0, "float32", (0, 3, 1, 2)),
        TensorBinding("x", 0, "float32", None, 0.1),
    ],
)
def test_what_differs_is_not_plain(binding):
    assert not binding.is_plain("float32")


def test_json_brings_a_model_back(tmp_path):
    model = model_in(tmp_path)

    assert Model.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_a_relative_path_is_taken_from_the_folder(tmp_path):
    data = {**model_in(tmp_path).to_json(), "path": "model.onnx"}

    assert Model.from_json(data, folder=tmp_path) == model_in(tmp_path)


def test_a_derived_model_keeps_the_signature_and_tells_its_lineage(tmp_path):
    model = model_in(tmp_path)
    other = tmp_path / "other.onnx"
    other.write_bytes(b"smaller")

    derived = model.derive("quantize.onnx_dynamic", Form.ONNX, other, saved=3)

    assert derived.signature == model.signature
    assert derived.lineage == ("quantize.onnx_dynamic",)
    assert derived.facts == {"note": "made for a test", "saved": 3}
    assert model.lineage == ()
    assert derived.digest != model.digest


def test_the_weights_beside_an_openvino_file_count(tmp_path):
    structure, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    structure.write_bytes(b"<net/>")
    weights.write_bytes(b"12345678")

    model = Model.at(Form.OPENVINO, structure, SIGNATURE)

    assert model.files == (structure, weights)
    assert model.size_bytes == 6 + 8
    weights.write_bytes(b"12345679")
    assert Model.at(Form.OPENVINO, structure, SIGNATURE).digest != model.digest


def test_a_folders_digest_knows_names_and_contents(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    before = Model.at(Form.SAVED_MODEL, folder, SIGNATURE)

    (folder / "a").rename(folder / "b")

    after = Model.at(Form.SAVED_MODEL, folder, SIGNATURE)
    assert after.digest != before.digest
    assert after.size_bytes == before.size_bytes == 1


ARCHIVE = {
    "metadata.json": '{"date_saved": "2026-01-01@10:00:00"}',
    "config.json": '{"a": {"shared_object_id": 140}, "b": [{"shared_object_id": 7}, {"shared_object_id": 140}]}',
    "model.weights.h5": "weights" * 100,
}


def archive_in(folder: Path, **changed: str) -> str:
    """Return the digest of an archive like Keras', some members of which are others."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**ARCHIVE, **changed}.items():
            archive.writestr(name, content)
    return digest_of(Form.KERAS, path)


@pytest.mark.parametrize(
    "changed",
    [
        {"metadata.json": '{"date_saved": "2026-01-01@10:00:01"}'},
        {"config.json": ARCHIVE["config.json"].replace("140", "141")},
    ],
    ids=["the date", "where shared objects lay in memory"],
)
def test_what_differs_from_save_to_save_is_not_the_model(tmp_path, changed):
    assert archive_in(tmp_path, **changed) == archive_in(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"model.weights.h5": "weighed" * 100},
        {"config.json": ARCHIVE["config.json"].replace("a", "c")},
        {"config.json": ARCHIVE["config.json"].replace("7", "140")},
        {"assets/words.txt": "a b c"},
    ],
    ids=["weights", "architecture", "what is shared", "a member more"],
)
def test_everything_else_of_an_archive_is(tmp_path, changed):
    assert archive_in(tmp_path, **changed) != archive_in(tmp_path)


@pytest.mark.parametrize("place", [60, 0.5], ids=["a member", "the middle"])
def test_a_damaged_archive_has_another_digest(tmp_path, place):
    whole = archive_in(tmp_path)
    path = tmp_path / "model.keras"
    content = bytearray(path.read_bytes())
    content[place if isinstance(place, int) else int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert digest_of(Form.KERAS, path) != whole


def test_a_keras_file_that_is_no_archive_is_named_by_its_bytes(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF one")
    before = digest_of(Form.KERAS, path)
    path.write_bytes(b"\x89HDF two")
    assert digest_of(Form.KERAS, path) != before
