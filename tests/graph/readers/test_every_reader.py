"""Every reader answers a damaged file with an error of ours, whatever its parser raises."""

import contextlib
import random
import shutil

import pytest

from strop.core.errors import ModelError
from strop.graph.frozen import freeze
from strop.graph.keras_models import by_name, signature_of
from strop.graph.litert import to_litert
from strop.graph.quiet import quiet
from strop.graph.reading import detect, read
from strop.graph.to_onnx import to_onnx
from tests import models

SUFFIXES = {".keras", ".h5", ".pb", ".tflite", ".onnx", ".xml"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One small model in every form that is a file, by suffix."""
    folder = tmp_path_factory.mktemp("whole")
    path = {suffix: folder / f"model{suffix}" for suffix in SUFFIXES}
    model = models.two_in_two_out()
    signature = signature_of(model)
    with quiet():
        import openvino

        model.save(path[".keras"])
        model.save(path[".h5"])
        graph = freeze(lambda *tensors: by_name(model, tensors, signature), signature)
        path[".pb"].write_bytes(graph.definition.SerializeToString())
        to_litert(graph, signature, path[".tflite"], batch=None)
        names = signature.input_names, signature.output_names
        to_onnx(graph, path[".onnx"], names, opset=18, batch=None)
        openvino.save_model(openvino.convert_model(str(path[".onnx"])), str(path[".xml"]))
    return path


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_form_tells_the_same_signature(whole, tmp_path, suffix):
    model = read(whole[suffix], tmp_path)

    assert detect(whole[suffix]) is model.form
    assert set(map(str, model.signature.inputs)) == {"deep: int32[?,6]", "wide: float32[?,8]"}
    assert set(map(str, model.signature.outputs)) == {"kind: float32[?,3]", "score: float32[?,1]"}


def _damaged(whole, folder, suffix, change):
    broken = folder / f"model{suffix}"
    broken.write_bytes(change(bytearray(whole[suffix].read_bytes())))
    if suffix == ".xml":
        shutil.copy(whole[suffix].with_suffix(".bin"), broken.with_suffix(".bin"))
    return broken


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_file_cut_short_is_a_model_error(whole, tmp_path, suffix, share):
    broken = _damaged(whole, tmp_path, suffix, lambda b: b[: int(share * len(b))])

    with pytest.raises(ModelError):
        read(broken, tmp_path)


# HDF5's own library runs in circles on some damaged files: only a worker's time limit ends that.
@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".h5"}))
def test_flipped_bits_are_read_or_are_a_model_error(whole, tmp_path, suffix):
    rng = random.Random(0)

    def flip(content):
        for _ in range(20):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return content

    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        broken = _damaged(whole, folder, suffix, flip)
        with contextlib.suppress(ModelError):
            read(broken, folder)
