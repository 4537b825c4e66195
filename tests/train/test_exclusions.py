"""What is to be left alone is told by name, class or function, and takes what is within it along."""

import keras
import pytest
from keras import layers

from strop.core.errors import ParameterError, UnknownNameError
from strop.train.kernels import kernels_of
from tests.models import bidirectional_lstm


def found_in(model, **given):
    kernels, left = kernels_of(model, **given)
    return {f"{k.layer}.{k.variable.name}": k.summed for k in kernels}, left


def of(*given):
    """A model of these layers, one after the other."""
    return keras.Sequential(list(given))


def net():
    return of(keras.Input((8,)), layers.Dense(16, name="first"), layers.Dense(4, name="last"))


def is_wide(layer):
    return getattr(layer, "units", 0) > 4


@pytest.mark.parametrize(
    ("excluded", "why"),
    [
        ("first", "excluded, as 'first'"),
        ("Dense", "excluded, as 'Dense'"),
        (is_wide, "excluded by 'is_wide'"),
        ("builtins:callable", "excluded by 'callable'"),
    ],
)
def test_layers_are_excluded_by_name_class_or_function(excluded, why):
    found, left = found_in(net(), exclude=[excluded])
    assert left["first"] == why
    assert "first.kernel" not in found


def test_what_stands_in_an_excluded_layer_is_excluded_with_it():
    found, left = found_in(bidirectional_lstm(), exclude=["Bidirectional"])
    assert len(found) == 4
    assert set(left.values()) == {"excluded, as 'Bidirectional'"}


def test_a_layer_in_two_places_is_left_alone_where_one_of_them_is():
    inner = layers.Dense(4, name="inner")
    x = keras.Input((4,))
    one = keras.Sequential([keras.Input((4,)), inner], name="one")
    two = keras.Sequential([keras.Input((4,)), inner], name="two")
    found, left = found_in(keras.Model(x, two(one(x))), exclude=["two"])
    assert found == {}
    assert left == {"one/inner": "excluded, as 'two'"}


def test_a_name_that_no_layer_has_is_told_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"no layer called 'firsst'. Did you mean 'first'\?"
    ):
        kernels_of(net(), ["firsst"])
    assert len(kernels_of(net(), ["Conv2D"])[0]) == 2


def test_a_function_that_is_not_there_is_told_how_it_is_written():
    with pytest.raises(ParameterError, match="written as module:name"):
        kernels_of(net(), ["nowhere.at_all:here"])
