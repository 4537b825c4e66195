"""The search space follows from what passes and runtimes say of themselves."""

import pytest

from strop.core import registry
from strop.core.contracts import Effort
from strop.core.model import Form
from strop.core.recipe import Recipe, Step
from strop.engine.running import mistakes
from strop.search.space import Space

GRAPH = Step("convert.graph_def")
KNOWN = {"cores": 2, "batch": 1, "first_batch": 1, "safe_weight_bits": 8}


def space(form=Form.KERAS, effort=Effort.STANDARD, **settings):
    return Space(form, effort, KNOWN, **settings)


def forms_on_the_way(start, steps):
    forms = [start]
    for step in steps:
        forms.append(registry.passes.get(step.name).gives or forms[-1])
    return forms


def everything(one):
    """All recipes of a space, with its techniques on the shortest ways."""
    routes = one.float_routes()
    ways = {forms_on_the_way(one.form, recipe.steps)[-1]: recipe.steps for recipe in routes}
    return [*routes, *one.alternatives(), *one.detours(), *one.techniques(ways)]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("effort", list(Effort))
def test_every_recipe_that_is_proposed_can_be_carried_out(form, effort):
    for recipe in everything(space(form, effort)):
        assert mistakes(recipe, form) == [], str(recipe)


@pytest.mark.parametrize("form", list(Form))
def test_no_recipe_is_proposed_twice_or_goes_in_a_circle(form):
    recipes = everything(space(form))
    assert len({str(recipe) for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        conversions = [step for step in recipe.steps if step.name.startswith("convert.")]
        passed = forms_on_the_way(form, conversions)
        assert len(set(passed)) == len(passed), str(recipe)


def test_a_keras_model_reaches_every_engine():
    engines = {recipe.runtime for recipe in space().float_routes()}
    assert engines == {"tensorflow", "litert", "onnxruntime", "openvino"}


def test_openvino_is_reached_by_onnx_too():
    ways = [[step.name for step in recipe.steps] for recipe in space().detours()]
    assert ["convert.graph_def", "convert.onnx", "convert.openvino"] in ways
    assert ["convert.graph_def", "convert.openvino"] not in ways


def test_only_the_runtimes_that_were_asked_for_are_proposed():
    for recipe in everything(space(runtimes=("litert",))):
        assert recipe.runtime == "litert"


def test_more_effort_never_tries_less():
    quick, standard, thorough = (
        {str(recipe) for recipe in everything(space(effort=effort))}
        for effort in (Effort.QUICK, Effort.STANDARD, Effort.THOROUGH)
    )
    assert quick < standard <= thorough


def test_repair_is_the_same_recipe_with_repair_on_and_only_once():
    static = Recipe(
        (Step("convert.graph_def"), Step("convert.litert"), Step("quantize.litert_static")),
        "litert",
    )
    repaired = space().repaired(static)
    assert repaired.steps[-1] == Step("quantize.litert_static", {"repair": True})
    assert space().repaired(repaired) is None
    assert space().repaired(Recipe(static.steps[:-1], "litert")) is None


def test_what_is_asked_of_an_engine_is_told_where_it_is_out_of_reach():
    reach = space(Form.LITERT).reach()
    assert reach["LiteRT"] == "as it is"
    assert reach["ONNX Runtime"] == "convert.onnx"
    assert "no conversion" in reach["TensorFlow"]


def test_no_batch_is_fixed_where_several_are_asked_for():
    several = Space(Form.KERAS, Effort.STANDARD, {**KNOWN, "batch": 0})
    for recipe in everything(several):
        assert not any(step.settings.get("batch") for step in recipe.steps), str(recipe)


def test_what_needs_a_fixed_batch_gets_the_size_that_decides_where_several_are_asked_for():
    several = Space(Form.KERAS, Effort.STANDARD, {**KNOWN, "batch": 0, "first_batch": 8})
    (way,) = {r.steps for r in several.float_routes() if r.runtime == "litert"}

    (fallback,) = several.fallbacks(way)

    assert fallback[0] == Step("convert.graph_def", {"batch": 8})


def test_tensorflows_threads_wait_until_it_is_among_the_best():
    """They take another process, ten seconds to start."""
    tried = [r.settings for r in space().float_routes() if r.runtime == "tensorflow"]
    assert tried
    assert not any("threads" in settings for settings in tried)

    every = space().settings(registry.runtimes.get("tensorflow"))
    assert {settings.get("threads", 0) for settings in every} == {0, 1}
    assert every[: len(every) // 2] == [s for s in every if "threads" not in s]


def test_what_seldom_pays_is_tried_by_a_thorough_search_alone():
    def settings(effort, name):
        static = registry.passes.get("quantize.openvino_static").variants(KNOWN, effort)
        return [setting for setting in static if name in setting]

    for name in ("fast_bias_correction", "smooth_quant"):
        assert settings(Effort.STANDARD, name) == []
        assert settings(Effort.THOROUGH, name)
    assert all(s["transformer"] for s in settings(Effort.THOROUGH, "smooth_quant"))


def test_fewer_bits_are_tried_where_sums_of_eight_saturate():
    def bits(safe):
        known = {**KNOWN, "safe_weight_bits": safe}
        found = everything(Space(Form.KERAS, Effort.STANDARD, known))
        return {
            step.settings.get("weight_bits", 8)
            for recipe in found
            for step in recipe.steps
            if step.name == "quantize.onnx_static"
        }

    assert bits(8) == {8}
    assert bits(7) == {7, 8}


def test_what_needs_tensorflow_is_tried_last():
    needs = [
        registry.runtimes.get(recipe.runtime).loads_tensorflow for recipe in space().float_routes()
    ]
    assert needs == sorted(needs)
    assert any(needs)


@pytest.mark.parametrize(
    ("cores", "batch", "sizes"), [(2, 32, [16, 2]), (4, 8, [2]), (1, 4, [2]), (2, 2, [1])]
)
def test_a_batch_is_cut_into_parts_and_models_made_for_it_are_made_for_the_part(
    cores, batch, sizes
):
    known = {**KNOWN, "cores": cores, "batch": batch, "first_batch": batch}
    whole = Recipe((GRAPH, Step("convert.litert", {"batch": batch})), "litert", {"threads": cores})

    found = Space(Form.KERAS, Effort.STANDARD, known).micro_batches(whole)

    assert [r.settings["micro_batch"] for r in found] == sizes
    assert [r.steps[-1].settings["batch"] for r in found] == sizes
    assert {r.settings.get("threads", 1) for r in found} == {cores}
    assert not any(mistakes(r, Form.KERAS) for r in found)


def test_nothing_is_cut_where_there_is_one_sample_or_the_engine_has_no_such_setting():
    assert (
        space().micro_batches(Recipe((GRAPH, Step("convert.litert", {"batch": 1})), "litert"))
        == []
    )
    several = Space(Form.KERAS, Effort.STANDARD, {**KNOWN, "batch": 8, "first_batch": 8})
    assert several.micro_batches(Recipe((), "tensorflow")) == []
