"""What every runtime promises behind its predictor: the original's answers, names, shapes and refusals."""

import subprocess
import sys

import numpy as np
import pytest

from strop.core import registry
from strop.core.errors import ExecutionError, SamplesError
from strop.core.model import Model
from strop.core.recipe import Step
from strop.engine.tasks import LARGEST_ROUNDING
from strop.graph.quiet import quiet
from strop.numerics.similarity import relative_error
from tests.stock import ROUTES

ANY_SIZE = [
    pytest.param(runtime.name, ROUTES[form], id=f"{runtime.name} of {form}")
    for runtime in registry.runtimes
    for form in sorted(runtime.takes)
    if form in ROUTES
]
BATCH = 4
ONE_SIZE = [
    pytest.param(
        runtime,
        ("convert.graph_def", Step(f"convert.{form}", {"batch": BATCH})),
        id=f"{runtime} of {form} for batches of {BATCH}",
    )
    for runtime, form in (("litert", "litert"), ("onnxruntime", "onnx"), ("openvino", "onnx"))
]
CASES = [*ANY_SIZE, *ONE_SIZE]


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


@pytest.fixture
def predictor(made, name, route):
    with registry.runtimes.get(name)().open(made.model(route)) as opened:
        yield opened


@pytest.fixture
def batch(made, predictor):
    """A batch that the predictor takes, and the original's answers to it."""
    size = max(predictor.batch_sizes) if predictor.batch_sizes else BATCH
    samples = made.bench.samples().calibrate.head(size)
    return samples.inputs["pixels"].copy(), made.bench.answers("calibrate", size)[0]


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_answers_are_the_originals_however_the_inputs_are_given(predictor, batch, name, route):
    pixels, wanted = batch
    for given in (pixels, [pixels], (pixels,), {"pixels": pixels}):
        found = predictor(given)
        assert found.shape == wanted.shape
        assert found.dtype == np.float32
        assert relative_error(wanted, found) <= LARGEST_ROUNDING


@pytest.mark.parametrize(("name", "route"), CASES)
def test_inputs_of_any_memory_layout_and_harmless_dtype_are_taken(predictor, batch, name, route):
    pixels, wanted = batch
    scattered = np.asfortranarray(np.repeat(pixels, 2, axis=0))[::2]
    assert relative_error(wanted, predictor(scattered)) <= LARGEST_ROUNDING
    assert relative_error(wanted, predictor(pixels.astype(np.float64))) <= LARGEST_ROUNDING


@pytest.mark.parametrize(("name", "route"), CASES)
def test_outputs_are_the_callers_own(predictor, batch, name, route):
    pixels, _ = batch
    first = predictor(pixels)
    kept = first.copy()
    predictor(np.zeros_like(pixels))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("name", "route"), CASES)
def test_uncopied_outputs_are_right_until_the_next_call(predictor, batch, name, route):
    pixels, _ = batch
    copied = predictor(pixels)
    np.testing.assert_array_equal(predictor(pixels, copy=False), copied)


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_inputs_are_left_as_they_were(predictor, batch, name, route):
    pixels, _ = batch
    before = pixels.copy()
    predictor(pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(("name", "route"), ANY_SIZE)
def test_batches_of_changing_size_answer_each_sample_alike(predictor, batch, name, route):
    pixels, wanted = batch
    for size in (1, BATCH, 2, 1):
        assert relative_error(wanted[:size], predictor(pixels[:size])) <= LARGEST_ROUNDING


@pytest.mark.parametrize(("name", "route"), ANY_SIZE)
def test_large_inputs_are_read_anew_at_each_call_whatever_their_layout(
    predictor, made, name, route
):
    pixels, wanted = (
        made.bench.samples().calibrate.inputs["pixels"],
        made.bench.answers("calibrate")[0],
    )
    large = np.resize(pixels, (600, *pixels.shape[1:]))  # 150 kB
    answers = np.resize(wanted, (600, *wanted.shape[1:]))
    frozen = large[::-1].copy()
    frozen.flags.writeable = False
    for given, right in (
        (large, answers),
        (frozen, answers[::-1]),
        (large[::-1], answers[::-1]),
        (np.asfortranarray(large), answers),
        (large, answers),
    ):
        before = given.copy()
        assert relative_error(right, predictor(given)) <= LARGEST_ROUNDING
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    ("name", "route"),
    [c for c in CASES if "micro_batch" in registry.runtimes.get(c.values[0]).parameters()],
)
def test_a_batch_in_parts_answers_as_the_whole_does(made, name, route):
    samples = made.bench.samples().calibrate.head(9)
    pixels, wanted = samples.inputs["pixels"], made.bench.answers("calibrate", 9)[0]
    runtime = registry.runtimes.get(name)(threads=2, micro_batch=2)
    with runtime.open(made.model(route)) as opened, opened.clone() as clone:
        for count in (9, 1, 4):
            for predictor in (opened, clone):
                found = predictor(pixels[:count])
                assert found.shape == wanted[:count].shape
                assert relative_error(wanted[:count], found) <= LARGEST_ROUNDING


@pytest.mark.parametrize(("name", "route"), CASES)
def test_a_clone_answers_alike_and_outlives_its_parent(made, batch, name, route):
    pixels, wanted = batch
    parent = registry.runtimes.get(name)().open(made.model(route))
    clone = parent.clone()
    parent.close()
    with clone:
        assert relative_error(wanted, clone(pixels)) <= LARGEST_ROUNDING


@pytest.mark.parametrize(("name", "route"), CASES)
def test_closing_twice_is_harmless(made, name, route):
    opened = registry.runtimes.get(name)().open(made.model(route))
    opened.close()
    opened.close()


@pytest.mark.parametrize(("name", "route"), CASES)
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda x: x[:, :7], r"the input 'pixels' has shape \(\d, 7, 8, 1\)"),
        (lambda x: x[..., 0], r"the input 'pixels' has shape"),
        (lambda x: np.float32(1), r"the input 'pixels' has shape \(\)"),
        (lambda x: x.astype(complex), "the input 'pixels' has dtype complex128"),
        (lambda x: x.astype(str), "the input 'pixels' has dtype"),
        (lambda x: {"picture": x}, "the inputs are named 'picture'; the model takes 'pixels'"),
        (lambda x: [x, x], "2 input arrays were given; the model takes 1: 'pixels'"),
    ],
    ids=["narrow", "flat", "number", "complex", "text", "name", "two"],
)
def test_what_does_not_fit_is_refused_in_words(predictor, batch, name, route, spoil, told):
    with pytest.raises(SamplesError, match=told):
        predictor(spoil(batch[0]))
    assert predictor(batch[0]).shape == batch[1].shape  # and it answers on


@pytest.mark.parametrize(("name", "route"), ONE_SIZE)
def test_one_call_of_a_size_it_was_not_made_for_is_refused(predictor, batch, name, route):
    assert predictor.batch_sizes == (BATCH,)
    with pytest.raises(SamplesError, match=r"a batch of 5 was given"):
        predictor.run(np.repeat(batch[0][:1], BATCH + 1, axis=0))


@pytest.mark.parametrize(("name", "route"), [c for c in CASES if c.values[1]])
def test_a_file_that_is_no_model_is_an_execution_error_of_one_line(made, name, route, tmp_path):
    model = made.model(route)
    broken = tmp_path / model.path.name
    broken.write_bytes(b"no model at all" * 50)
    spoiled = Model.at(model.form, broken, model.signature, model.binding)
    with pytest.raises(ExecutionError) as caught:
        registry.runtimes.get(name)().open(spoiled)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["litert", "onnxruntime", "openvino"])
def test_the_light_engines_do_without_tensorflow(made, name, tmp_path):
    import json

    form = {"litert": "litert", "onnxruntime": "onnx", "openvino": "openvino"}[name]
    file = tmp_path / "model.json"
    file.write_text(json.dumps(made.of_form(form).to_json()))
    code = (
        "import json, sys; import numpy as np\n"
        "from strop.core import registry; from strop.core.model import Model\n"
        f"model = Model.from_json(json.load(open({str(file)!r})))\n"
        f"with registry.runtimes.get({name!r})().open(model) as predictor:\n"
        "    predictor(np.zeros((model.binding.batch or 1, 8, 8, 1), 'float32'))\n"
        "print([m for m in ('tensorflow', 'keras', 'torch') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
