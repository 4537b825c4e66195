from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.core.errors import ParameterError
from strop.core.parameters import Configured, as_option, parameter


@dataclass(frozen=True)
class Polish(Configured):
    name: ClassVar[str] = "polish"

    grain: str = parameter("fine", choices=("fine", "coarse"), search=("fine", "coarse"))
    strokes: int = parameter(10, low=1, high=100, search=(5, 20))
    pressure: float = parameter(0.5, low=0.0, high=1.0)
    wet: bool = parameter(False)
    spare: tuple[str, ...] = parameter(())


settings = st.fixed_dictionaries(
    {},
    optional={
        "grain": st.sampled_from(["fine", "coarse"]),
        "strokes": st.integers(1, 100),
        "pressure": st.floats(0, 1),
        "wet": st.booleans(),
        "spare": st.lists(st.text(max_size=3), max_size=3).map(tuple),
    },
)


@given(settings)
def test_what_changed_makes_the_same_again(given_settings):
    made = Polish.from_settings(given_settings)

    assert Polish.from_settings(made.changed()) == made
    assert Polish.from_settings(made.settings()) == made
    assert {**Polish.defaults(), **given_settings} == made.settings()


def test_a_list_as_toml_has_it_becomes_a_tuple():
    assert Polish.from_settings({"spare": ["a", "b"]}).spare == ("a", "b")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ParameterError) as caught:
        Polish.from_settings(
            {"grian": "fine", "grain": "rough", "strokes": 0, "pressure": 2.0, "wet": 1}
        )

    assert str(caught.value).splitlines() == [
        "'polish' has no parameter 'grian'; it has: grain, strokes, pressure, wet, spare",
        "'polish': grain must be one of 'fine', 'coarse', not 'rough'",
        "'polish': strokes must be at least 1, not 0",
        "'polish': pressure must be at most 1, not 2.0",
        "'polish': wet must be a bool, not 1",
    ]


def test_the_constructor_checks_too():
    with pytest.raises(ParameterError, match="strokes must be at most 100, not 101"):
        Polish(strokes=101)


def test_true_is_no_number():
    with pytest.raises(ParameterError, match="strokes must be a int, not True"):
        Polish(strokes=True)


def test_a_whole_number_may_stand_for_a_real_one():
    assert Polish(pressure=1).pressure == 1


def test_not_a_number_is_refused():
    with pytest.raises(ParameterError, match="pressure"):
        Polish(pressure=float("nan"))


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (("flip", "shift"), "--keep-float flip,shift"),
        (["conv 1"], "--keep-float 'conv 1'"),
        ((), "--keep-float ''"),
        (True, "--keep-float"),
        (False, "--no-keep-float"),
        (0.5, "--keep-float 0.5"),
    ],
)
def test_a_value_is_spelled_as_the_command_line_takes_it(value, spelled):
    assert as_option("keep_float", value) == spelled
