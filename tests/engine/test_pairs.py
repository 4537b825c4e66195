"""Finalists in pairs: each in a process of its own, against the reference."""

from dataclasses import replace

import numpy as np
import pytest

from strop.core.errors import SubjectError
from strop.core.recipe import Recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.pairs import Pair, compare, in_turn, paired


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


def test_a_subject_that_fails_is_named(made):
    model = made.model(("convert.graph_def", "convert.litert"))
    broken = replace(model, path=model.path.with_name("nowhere.tflite"))
    recipe = Recipe((), "litert")
    with LocalExecutor() as executor, pytest.raises(SubjectError) as caught:
        compare(
            executor, {"one": (model, recipe), "broken": (broken, recipe)}, "one", made.bench, 1,
            rounds=2, seconds=0.01,
        )  # fmt: skip
    assert caught.value.subject == "broken"


def test_a_subject_that_outgrows_the_memory_limit_is_named(made):
    model = made.model(("convert.graph_def", "convert.litert"))
    recipe = Recipe((), "litert")
    subjects = {"one": (model, recipe), "other": (model, recipe)}
    with (
        LocalExecutor(memory_bytes=2**20) as executor,
        pytest.raises(SubjectError, match="outgrew its limit"),
    ):
        compare(executor, subjects, "one", made.bench, 1, rounds=2, seconds=1.0)


def test_the_order_of_measuring_changes_from_round_to_round():
    seen = []
    figures = in_turn(
        ["a", "b", "c"], lambda name: float(seen.append(name) or 1), rounds=20, seed=0
    )
    assert {name: len(found) for name, found in figures.items()} == {"a": 20, "b": 20, "c": 20}
    assert len({tuple(seen[i : i + 3]) for i in range(0, 60, 3)}) > 3


def test_subjects_are_held_against_the_reference_and_against_the_first():
    random = np.random.default_rng(0)
    figures = {
        name: (middle * random.lognormal(0, 0.01, 30)).tolist()
        for name, middle in {"old": 4.0, "fast": 1.0, "as fast": 1.001, "slower": 1.5}.items()
    }

    found = {pair.name: pair for pair in paired(figures, "old")}

    assert set(found) == {"fast", "as fast", "slower"}
    assert found["fast"].ratio.high < 0.3
    assert [name for name, pair in found.items() if pair.to_first is None] in (
        ["fast"],
        ["as fast"],
    )
    assert found["slower"].is_told_apart
    assert not found["as fast"].is_told_apart
    for pair in found.values():
        assert Pair.from_json(pair.to_json()) == pair
