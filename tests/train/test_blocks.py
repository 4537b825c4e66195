"""Blocks that can be left out: which there are, in which order they go, and what keeps one where it is."""

import math

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from strop.graph.keras_calls import calls_of
from strop.train.blocks import blocks_to_leave_out
from tests.train.test_students import network, steps


def convolution(width, name):
    return layers.Conv2D(width, 3, padding="same", name=name)


def row(width=4, blocks=3):
    """A stem, and as many convolutions that give what has the shape of what they are given."""
    x = image = keras.Input((8, 8, 3), name="image")
    for number in range(blocks + 1):
        x = convolution(width, f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    return ended(image, x)


def ended(image, x):
    """A model that ends in a mean and a classifier."""
    return keras.Model(image, layers.Dense(2, name="y")(layers.GlobalAveragePooling2D()(x)))


def left_out(model, depth=0.0, *, whole=()):
    """The names of the calls of each block that is left out."""
    calls = calls_of(model)
    kept = {id(call.operation): "excluded" for call in calls.calls if call.name in whole}
    return [
        {call.name for call in block.calls} for block in blocks_to_leave_out(calls, depth, kept)
    ]


def test_a_row_goes_with_its_normalization_and_function_the_last_first():
    assert left_out(row(), 0.4) == [{"conv3", "norm3", "relu3"}, {"conv2", "norm2", "relu2"}]


def test_what_reads_an_input_stays_and_so_does_what_gives_another_shape():
    # The stem gives more channels than the image has; of two layers of three channels the first reads the image.
    assert len(left_out(row(blocks=3))) == 3
    assert left_out(row(3, blocks=1)) == [{"conv1", "norm1", "relu1"}]
    assert left_out(row(3, blocks=0)) == []


def test_all_stay_at_full_depth():
    assert left_out(row(), 1.0) == []


def branched(*, outer=False, read_twice=False, project=False):
    """A branch that is added to what it is given, perhaps within another."""
    image = keras.Input((8, 8, 3), name="image")
    x = start = convolution(4, "stem")(image)
    x = convolution(6, "up")(x)  # no block by itself
    y = convolution(4, "down")(x)
    side = convolution(4, "side")(start) if project else start
    x = layers.Add(name="sum")([side, y])
    if outer:
        x = layers.Add(name="outer")([start, convolution(4, "last")(convolution(6, "wide")(x))])
    model = ended(image, x)
    if not read_twice:
        return model
    return keras.Model(image, [model.output, layers.GlobalMaxPooling2D()(y)])


def test_a_branch_goes_with_its_sum():
    assert left_out(branched()) == [{"up", "down", "sum"}]


def test_of_branches_within_branches_the_innermost_goes():
    assert left_out(branched(outer=True)) == [{"up", "down", "sum"}]


def test_a_branch_whose_results_others_read_stays():
    assert left_out(branched(read_twice=True)) == []


def test_a_branch_beside_which_something_is_computed_is_no_block():
    # What is computed beside it gives what has the shape of what it is given, and is a row.
    assert left_out(branched(project=True)) == [{"side"}]


def test_excluded_layers_keep_their_blocks():
    assert left_out(row(), whole=("norm3",)) == [
        {"conv2", "norm2", "relu2"},
        {"conv1", "norm1", "relu1"},
    ]


def test_blocks_go_first_of_the_shape_that_has_most():
    x = image = keras.Input((8, 8, 3), name="image")
    for number, width in enumerate([4, 4, 4, 4, 6, 6]):
        x = convolution(width, f"{width}_{number}")(x)
    found = left_out(ended(image, x), 0.5)
    assert found == [{"4_3"}, {"4_2"}]


@pytest.mark.parametrize(
    ("depth", "gone"), [(1 / 3, 2), (0.5, 2), (0.51, 1), (2 / 3, 1), (0.9, 0)]
)
def test_the_share_that_stays_is_rounded(depth, gone):
    assert len(left_out(row(), depth)) == gone


@settings(max_examples=15)
@given(steps, st.floats(0.0, 1.0))
def test_blocks_of_any_network_are_apart_and_can_be_left_out(drawn, depth):
    model = network(channels=3, steps=drawn, flat=False, hidden=3)
    calls = calls_of(model)
    every = blocks_to_leave_out(calls, 0.0, {})

    found = blocks_to_leave_out(calls, depth, {})

    assert len(found) == math.floor((1 - depth) * len(every) + 0.5)
    assert [block.calls for block in found] == [block.calls for block in every[: len(found)]]
    assert all(block.start.shape == block.end.shape for block in found)
    gone = [call for block in found for call in block.calls]
    assert len(gone) == len(set(gone))
    shorter = calls.without({block.end: block.start for block in found})
    assert [call.name for call in shorter.calls] == [
        call.name for call in calls.calls if call not in gone
    ]
