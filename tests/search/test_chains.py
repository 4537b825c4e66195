"""Chains of what trains: all can be carried out, none comes twice, and what they come to says which come next."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.core import registry
from strop.core.contracts import Effort, Needs
from strop.core.evaluation import Goal
from strop.core.model import Form
from strop.core.recipe import Recipe
from strop.engine.running import mistakes
from strop.search.chains import Chains, Worth, chained
from strop.search.space import Space

KNOWN = {"cores": 2, "batch": 1, "first_batch": 1, "safe_weight_bits": 7}
SMALL, FAST = Goal(minimize="zipped-size"), Goal(minimize="latency")


def names(kinds):
    return [kind.name for kind in kinds]


def proposed(chains, count, worth):
    found = []
    for _ in range(count):
        chain = chains.propose()
        if chain is None:
            break
        found.append(chain)
        chains.tell(chain, worth(chain))
    return found


def test_what_trains_comes_in_an_order_that_keeps_what_came_before():
    order = names(chained(Form.KERAS, Effort.THOROUGH, SMALL))
    wanted = ["factorize.low_rank", "prune.magnitude", "cluster.weights", "quantize.aware"]
    assert [name for name in order if name in wanted] == wanted


def test_only_what_may_serve_the_goal_takes_part():
    small, fast = (names(chained(Form.KERAS, Effort.THOROUGH, goal)) for goal in (SMALL, FAST))
    assert {"prune.magnitude", "cluster.weights"} <= set(small) - set(fast)
    assert "quantize.aware" in fast
    assert chained(Form.KERAS, Effort.STANDARD, SMALL) == []
    assert chained(Form.ONNX, Effort.THOROUGH, SMALL) == []


def test_every_technique_that_trains_has_its_place():
    places = {kind.name: kind.place for kind in registry.passes if kind.needs is Needs.TRAINING}
    assert len(places) >= 4
    assert all(places.values()), places


@pytest.mark.parametrize("goal", [SMALL, FAST])
def test_each_is_tried_by_itself_first_and_then_all_together(goal):
    kinds = chained(Form.KERAS, Effort.THOROUGH, goal)
    found = proposed(Chains(kinds, KNOWN), len(kinds) + 1, lambda chain: Worth(1.0, 0.0))
    assert [names(chain) for chain in found] == [*([kind.name] for kind in kinds), names(kinds)]
    assert not any(step.settings for chain in found for step in chain)  # at their defaults


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(0.1, 10), min_size=12, max_size=12))
def test_no_chain_comes_twice_and_the_same_results_lead_the_same_way(seed, values):
    kinds = chained(Form.KERAS, Effort.THOROUGH, SMALL)

    def way():
        drawn = iter(values)
        return proposed(Chains(kinds, KNOWN, seed), 12, lambda chain: Worth(next(drawn), 0.0))

    first = way()
    assert len(set(map(str, first))) == len(first)
    assert way() == first


def test_every_chain_can_be_carried_out_to_the_end():
    space = Space(Form.KERAS, Effort.THOROUGH, KNOWN)
    ends = [Recipe((), "tensorflow"), *space.float_routes()[:2]]
    chains = Chains(chained(Form.KERAS, Effort.THOROUGH, SMALL), KNOWN, 3)
    for chain in proposed(chains, 15, lambda chain: Worth(1.0, 0.0)):
        recipes = space.carried_on(chain, ends)
        assert recipes
        assert len(set(map(str, recipes))) == len(recipes)
        for recipe in recipes:
            assert recipe.steps[: len(chain)] == chain
            assert mistakes(recipe, Form.KERAS) == [], str(recipe)


def test_more_is_asked_of_what_promises_more():
    """Where pruning alone pays, and keeps the limit, more of the later chains prune than where nothing does."""

    def later_that_prune(pays):
        def worth(chain):
            return Worth(1.0, 0.0) if not pays or prunes(chain) else Worth(5.0, 0.1)

        return sum(
            sum(map(prunes, proposed(Chains(kinds, KNOWN, seed), 30, worth)[10:]))
            for seed in range(3)
        )

    def prunes(chain):
        return "prune.magnitude" in names(chain)

    kinds = chained(Form.KERAS, Effort.THOROUGH, SMALL)
    assert later_that_prune(pays=True) > later_that_prune(pays=False) + 3


def test_widths_of_weights_are_those_that_are_safe_here():
    kinds = [kind for kind in chained(Form.KERAS, Effort.THOROUGH, FAST) if "aware" in kind.name]

    def widths(safe):
        chains = Chains(kinds, {**KNOWN, "safe_weight_bits": safe})
        found = proposed(chains, 12, lambda chain: Worth(1.0, 0.0))
        return {step.settings.get("weight_bits", 8) for chain in found for step in chain}

    assert widths(7) == {4, 7, 8}
    assert widths(8) == {4, 8}


def test_a_chain_that_fails_ends_nothing():
    chains = Chains(chained(Form.KERAS, Effort.THOROUGH, SMALL), KNOWN)
    found = proposed(chains, 8, lambda chain: None if len(chain) > 1 else Worth(1.0, math.inf))
    assert len(found) == 8


def test_what_is_exhausted_says_so():
    kinds = [kind for kind in chained(Form.KERAS, Effort.THOROUGH, SMALL) if kind.place == 40]
    assert 2 <= len(proposed(Chains(kinds, KNOWN), 50, lambda chain: Worth(1.0, 0.0))) < 50


def test_what_has_nothing_to_do_takes_no_part_any_more():
    chains = Chains(chained(Form.KERAS, Effort.THOROUGH, SMALL), KNOWN)
    idle = next(kind for kind in chains.kinds if kind.name == "factorize.low_rank")

    def worth(chain):
        if chain[0].name == idle.name:
            chains.leave_out(chain[0])
            return None
        return Worth(1.0, 0.0)

    found = proposed(chains, 20, worth)
    first = next(place for place, chain in enumerate(found) if names(chain) == [idle.name])
    plain = found[first][0]
    assert all(plain not in chain for chain in found[first + 1 :])
    assert any(idle.name in names(chain) for chain in found[first + 1 :])  # in other settings
