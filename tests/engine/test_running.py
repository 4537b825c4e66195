"""Checking recipes: every mistake at once, in words."""

import pytest

from strop.core.errors import UnknownNameError
from strop.core.evaluation import Goal
from strop.core.model import Form, Model
from strop.core.recipe import Recipe, Step
from strop.core.signature import Signature
from strop.engine.context import Bench
from strop.engine.running import Runner, mistakes

GOOD = Recipe(
    (Step("convert.graph_def"), Step("convert.litert", {"batch": 1})), "litert", {"threads": 2}
)


def test_a_right_recipe_has_no_mistakes():
    assert mistakes(GOOD, Form.KERAS) == []


def test_every_mistake_is_found_at_once_and_reads_well():
    recipe = Recipe(
        (Step("convert.graph_def"), Step("quantize.litert_static", {"bits": 8})),
        "onnxruntime",
        {"threads": -1},
    )

    found = mistakes(recipe, Form.KERAS)

    assert found[0].startswith(
        "step 2: 'quantize.litert_static' has no parameter 'bits'; it has: "
    )
    assert found[1:] == [
        "step 2, 'quantize.litert_static', takes a litert model, but what comes before gives graph_def.\n"
        '  Put a step between them:  pass = "convert.litert"',
        "'onnxruntime': threads must be at least 0, not -1",
        "the runtime 'onnxruntime' runs onnx, but the steps give graph_def.",
    ]


def test_an_unknown_pass_offers_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        mistakes(Recipe((Step("convert.litrt"),), "litert"), Form.KERAS)
    first, second = str(caught.value).splitlines()
    assert first == "there is no pass called 'convert.litrt'. Did you mean 'convert.litert'?"
    assert second.startswith("  Known: ")
    assert "convert.graph_def, convert.litert, " in second


def test_an_unknown_runtime_offers_the_nearest():
    with pytest.raises(UnknownNameError, match=r"no runtime called 'openvin'.*'openvino'"):
        mistakes(Recipe((), "openvin"), Form.KERAS)


def test_what_is_made_of_a_file_is_kept_under_what_is_in_it(tmp_path):
    (tmp_path / "source.keras").write_bytes(b"source")
    source = Model.at(Form.KERAS, tmp_path / "source.keras", Signature((), ()))
    runner = Runner(source, None, None, Bench(tmp_path, tmp_path, Goal()), "data")

    def key(name, content):
        (tmp_path / name).write_bytes(content)
        return runner.key([Step("distill.student", {"student": str(tmp_path / name)})])

    first = key("student.keras", b"first")
    assert key("student.keras", b"second") != first
    assert key("elsewhere.keras", b"first") == first
