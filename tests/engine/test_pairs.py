"""Finalists in pairs: each in a process of its own, against the reference."""

from strop.core.recipe import Recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.pairs import Pair, compare


def test_a_model_against_itself_is_no_gain(made):
    model = made.model(("convert.graph_def", "convert.litert"))
    recipe = Recipe((), "litert")
    subjects = {"one": (model, recipe), "other": (model, recipe)}

    with LocalExecutor() as executor:
        (pair,) = compare(executor, subjects, "one", made.bench, 1, rounds=7, seconds=0.05)

    assert pair.name == "other"
    assert pair.rounds == 7
    assert pair.ratio.low <= pair.ratio.value <= pair.ratio.high
    # No claim that one is twice the other; closer claims would be about the machine's other guests.
    assert pair.ratio.low < 2
    assert pair.ratio.high > 0.5
    assert Pair.from_json(pair.to_json()) == pair
