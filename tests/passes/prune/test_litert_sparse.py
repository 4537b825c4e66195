"""Zeros are left out where a kernel skips them, answers stay, and where none does that is said."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from benchmarks.without_avx import environment, why_not
from strop.core import registry
from strop.core.contracts import Unchanged
from strop.core.errors import ParameterError
from strop.graph import litert_zeros
from strop.graph.quiet import quiet
from strop.passes.prune.litert_sparse import WriteSparselyLiteRT
from tests.graph.test_litert_zeros import converted, convnet, dense
from tests.passes.convert.conftest import ROUNDING, PlainContext, Workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("sparse"))


@pytest.fixture
def _without_avx(monkeypatch):
    monkeypatch.setattr(litert_zeros, "has_avx", lambda: False)


@pytest.fixture
def _with_avx(monkeypatch):
    monkeypatch.setattr(litert_zeros, "has_avx", lambda: True)


def applied(workshop, model, **settings):
    return WriteSparselyLiteRT(**settings).apply(model, PlainContext(workshop.new()))


def assert_alike(workshop, before, after):
    inputs = workshop.inputs(before.signature, 1)
    (wanted,), (found,) = (workshop.run(m, "litert", inputs) for m in (before, after))
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(found, wanted, atol=ROUNDING * np.abs(wanted).max(), rtol=0)


def test_a_dense_layer_in_blocks_is_stored_without_them_and_answers_alike(workshop):
    model = converted(workshop, dense(64))
    made = applied(workshop, model, smallest=0)
    assert list(made.facts["sparse_kernels"].values()) == ["LiteRT's own"]
    assert made.path.stat().st_size < model.path.stat().st_size
    assert_alike(workshop, model, made)


def test_it_finds_nothing_the_second_time(workshop):
    made = applied(workshop, converted(workshop, dense(64)), smallest=0)
    again = applied(workshop, made, smallest=0)
    assert again == Unchanged("no layer has weights of float32 of which 30% are zero")


def test_the_same_model_gives_the_same_bytes(workshop):
    model = converted(workshop, dense(64))
    once, twice = (applied(workshop, model, smallest=0) for _ in range(2))
    assert once.digest == twice.digest


def test_a_small_dense_layer_is_left_to_xnnpack(workshop):
    outcome = applied(workshop, converted(workshop, dense(64)))
    assert isinstance(outcome, Unchanged)
    assert "has fewer than 65536 weights" in outcome.reason


def test_a_model_that_nobody_pruned_is_declined(workshop):
    outcome = applied(workshop, converted(workshop, convnet(share=0.0)), wanted="smaller")
    assert outcome == Unchanged("no layer has weights of float32 of which 30% are zero")


@pytest.mark.usefixtures("_with_avx")
def test_convolutions_are_declined_on_a_processor_with_avx(workshop):
    outcome = applied(workshop, converted(workshop, convnet()))
    assert outcome == Unchanged(
        "no kernel would skip the zeros: XNNPACK's not, since this processor has AVX, for which it keeps to dense "
        "kernels; LiteRT's own not, since no dense layer has as many zeros"
    )


@pytest.mark.usefixtures("_without_avx")
def test_convolutions_are_written_sparsely_on_a_processor_without(workshop):
    model = converted(workshop, convnet())
    made = applied(workshop, model)
    assert set(made.facts["sparse_kernels"].values()) == {"XNNPACK's, on processors without AVX"}
    assert_alike(workshop, model, made)


def test_zeros_that_no_kernel_skips_are_left_out_of_the_file_where_that_is_wanted(workshop):
    model = converted(workshop, convnet(first="same", size=32))
    made = applied(workshop, model, wanted="smaller")
    assert made.facts["sparse_kernels"] == {}
    assert "pads by 0 and 1" in made.facts["computed_with_zeros"]
    assert made.path.stat().st_size < model.path.stat().st_size
    assert_alike(workshop, model, made)


def test_a_kernel_that_is_not_known_is_refused():
    with pytest.raises(ParameterError, match="wanted"):
        WriteSparselyLiteRT.from_settings({"wanted": "faster"})


def keeping(shape):
    def head():
        pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)
        last = [] if shape is None else [keras.layers.Conv2D(*shape)]
        return keras.Sequential([pooled, *last])

    return head


_ANSWER = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load(sys.argv[2]))
interpreter.invoke()
np.save(sys.argv[3], interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize(
    "changed",
    [{}, {"first": "same"}, {"head": keeping(None)}, {"head": keeping((8, 1))}],
    ids=["as it is", "odd size", "mean as output", "convolution behind"],
)
def test_xnnpacks_sparse_kernels_answer_alike(workshop, changed):
    """In a process that is told that its processor has no AVX; sums in another order show that they ran."""
    with quiet():
        model = converted(workshop, convnet(**changed))
    made = applied(workshop, model, wanted="elsewhere")
    folder = workshop.new()
    (given,) = workshop.inputs(model.signature, 1)
    np.save(folder / "given.npy", given)
    answers = []
    for which in (model, made):
        command = [
            sys.executable,
            "-c",
            _ANSWER,
            which.path,
            folder / "given.npy",
            folder / "answer.npy",
        ]
        subprocess.run(command, check=True, capture_output=True, env=environment(folder))
        answers.append(np.load(folder / "answer.npy"))
    wanted, found = answers
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(found, wanted, atol=ROUNDING * np.abs(wanted).max(), rtol=0)
    assert (found != wanted).any()


def test_what_was_pruned_in_blocks_comes_out_of_keras_in_blocks():
    from strop.numerics.sparsity import pattern_named
    from strop.train.pruning import prune

    model = dense(64, share=0.0)
    prune(model, 0.75, pattern=pattern_named("4x1"))
    kernel = np.asarray(model.get_layer("fc").kernel)
    assert litert_zeros.in_blocks(kernel.T) == 0.75


def test_it_is_found_by_name():
    assert registry.passes.get("prune.litert_sparse") is WriteSparselyLiteRT
