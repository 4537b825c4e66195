"""What is within layers is found, each once, with what is around it."""

import keras
from keras import layers

from strop.graph.keras_layers import chains_within, layers_of, name_of, prefixes
from tests.models import nested


def test_a_layer_within_a_layer_is_found_once_with_its_place():
    inner = layers.Dense(2, name="inner")
    outer = layers.TimeDistributed(inner, name="outer")
    model = keras.Sequential([keras.Input((3, 4)), outer], name="model")
    assert [layer.name for layer in layers_of(model)].count("inner") == 1
    assert layers_of(model)[0] is model
    assert "outer/inner" in map(name_of, chains_within(model))
    assert prefixes((outer, inner)) == [(outer,), (outer, inner)]


def test_a_model_that_stands_in_two_places_is_there_in_both():
    model, inner = nested(), layers.Dense(2, name="inner")
    both = keras.Sequential([keras.Input((3, 2)), layers.TimeDistributed(inner), inner])
    places = [name_of(chain) for chain in chains_within(both)]
    assert sum(place.endswith("inner") for place in places) == 2
    found = layers_of(model)
    assert len(found) == len({id(layer) for layer in found})
