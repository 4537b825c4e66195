"""The baseline: a source as its owner runs it, the engine told nothing."""

import pytest

from strop.core import registry
from strop.core.model import Form
from strop.core.recipe import Recipe
from strop.engine.context import baseline_recipe


def baseline(form):
    recipe = baseline_recipe(form)
    return registry.runtimes.get(recipe.runtime).from_settings(recipe.settings)


def test_openvino_is_told_nothing():
    """It picks bfloat16 by itself where the processor has it, which no study may call a gain of its own."""
    assert baseline(Form.OPENVINO).properties() == {}


def test_onnx_runtime_rewrites_all_that_it_would_by_itself():
    runtime = baseline(Form.ONNX)
    assert runtime.disabled_optimizers() == []
    assert runtime.optimization_level() == "ORT_ENABLE_ALL"


@pytest.mark.parametrize("form", list(Form))
def test_a_baseline_is_a_recipe_that_can_be_written_down(form):
    recipe = baseline_recipe(form)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_a_baseline_tells_its_settings_in_a_line():
    line = "as it is @ openvino(hint=default, precision=default)"
    assert str(baseline_recipe(Form.OPENVINO)) == line
