import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.core.errors import RecipeError
from strop.core.recipe import Recipe, Step, expand, parse

keys = st.text("abcdefghij_", min_size=1, max_size=6).filter(
    lambda key: key not in ("pass", "name", "any")
)
values = (
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(st.characters(blacklist_categories=("Cs",)), max_size=8)
    | st.lists(st.text("xyz", max_size=3), max_size=3).map(tuple)
)
settings = st.dictionaries(keys, values, max_size=3)
plug_ins = st.sampled_from(["convert.litert", "quantize.litert_static", "litert"])
recipes = st.builds(
    Recipe,
    st.lists(st.builds(Step, plug_ins, settings), max_size=4).map(tuple),
    plug_ins,
    settings,
)


@given(recipes)
def test_toml_and_json_bring_a_recipe_back(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_toml(recipe.to_toml()).digest() == recipe.digest()


def test_a_recipe_reads_as_one_line():
    recipe = Recipe((Step("convert.litert", {"batch": 1}),), "litert", {"threads": 2})
    assert str(recipe) == "convert.litert(batch=1) @ litert(threads=2)"
    assert str(Recipe((), "tensorflow")) == "as it is @ tensorflow"


def test_choices_span_a_space_and_may_depend_on_another():
    text = """
        strop = 1

        [[step]]
        any = [
            { pass = "quantize.weights", bits = { any = [4, 8] } },
            { pass = "quantize.dynamic" },
            {},
        ]

        [runtime]
        name = "litert"
        threads = { any = [1, 2] }
    """
    assert [str(recipe) for recipe in expand(parse(text))] == [
        "quantize.weights(bits=4) @ litert(threads=1)",
        "quantize.weights(bits=4) @ litert(threads=2)",
        "quantize.weights(bits=8) @ litert(threads=1)",
        "quantize.weights(bits=8) @ litert(threads=2)",
        "quantize.dynamic @ litert(threads=1)",
        "quantize.dynamic @ litert(threads=2)",
        "as it is @ litert(threads=1)",
        "as it is @ litert(threads=2)",
    ]


def test_all_mistakes_of_form_are_told_at_once():
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(
            "stages = 1\n[[step]]\nbatch = 1\n[runtime]\nthreads = 2", where="my.toml"
        )

    assert caught.value.mistakes == (
        "my.toml must begin with 'strop = 1', the version of its form",
        "my.toml has a table 'stages' that means nothing here; there are [[step]] and [runtime]",
        'my.toml, step 1: which pass? Write  pass = "convert.litert"',
        'my.toml, [runtime]: which one? Write  name = "litert"',
    )


def test_a_space_is_no_recipe():
    text = 'strop = 1\n[runtime]\nname = "litert"\nthreads = { any = [1, 2] }'
    with pytest.raises(RecipeError, match="is a search space; one recipe has no"):
        Recipe.from_toml(text)


@pytest.mark.parametrize(
    "text",
    [
        "strop = 1",
        'strop = 1\nstep = 3\n[runtime]\nname = "x"',
        'strop = 1\nstep = [3]\n[runtime]\nname = "x"',
        'strop = 1\nruntime = "litert"',
        'strop = 1\n[[step]]\nany = 3\n[runtime]\nname = "x"',
        'strop = 1\n[[step]]\nany = []\n[runtime]\nname = "x"',
        'strop = 1\n[[step]]\npass = "x"\nbits = { any = 3 }\n[runtime]\nname = "x"',
        'strop = 1\n[[step]]\npass = "x"\nbits = { any = [] }\n[runtime]\nname = "x"',
    ],
)
def test_whatever_is_no_recipe_gets_a_recipe_error(text):
    with pytest.raises(RecipeError):
        Recipe.from_toml(text)


def test_a_choice_of_nothing_is_told_how_choices_are_written():
    text = 'strop = 1\n[runtime]\nname = "litert"\nthreads = { any = 2 }'
    with pytest.raises(RecipeError) as caught:
        list(expand(parse(text)))

    assert (
        str(caught.value)
        == "the recipe: a choice is a list of one or more, as in  { any = [1, 2] }"
    )


def test_a_slip_of_toml_is_told_with_its_line():
    with pytest.raises(RecipeError, match=r"mine\.toml is not TOML: .*line 2"):
        Recipe.from_toml("strop = 1\n[runtime\n", where="mine.toml")
