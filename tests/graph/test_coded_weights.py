"""Kernels in codes are found in a frozen graph, and rewritings of it leave them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from strop.core.contracts import Unchanged
from strop.graph.coded_weights import coded_weights_of, roundings_of, wall_off, write_decoded
from strop.graph.frozen import frozen_of, read_graph
from strop.graph.grappler import grappled
from strop.graph.quiet import quiet
from strop.passes.simplify.arithmetic import Arithmetic
from strop.passes.simplify.fold_batch_norm import FoldBatchNorm
from strop.passes.simplify.fold_constants import FoldConstants
from strop.passes.simplify.fuse import Fuse
from strop.passes.simplify.merge_common import MergeCommon
from strop.train.quantization import codes_of
from tests.passes.convert.conftest import PlainContext
from tests.taught import Taught

SEQUENCE = (12, 4)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    keras.utils.set_random_seed(0)
    given = keras.Input(SEQUENCE, name="given")
    x = layers.Conv1D(6, 3, use_bias=False, name="first")(given)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv1D(6, 3, activation="relu", name="float")(x)
    model = keras.Model(given, layers.Dense(3, name="label")(layers.Flatten()(x)))
    with quiet():
        return Taught.of(model, tmp_path_factory.mktemp("taught"), exclude=("float",))


def test_kernels_are_found_as_they_were_taught(taught):
    found = coded_weights_of(frozen_of(taught.graph).definition)

    wanted = list(codes_of(taught.finished).values())
    assert len(found) == len(wanted) == 2
    for kernel, codes in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(kernel.codes, codes)
        # A row for each output channel, which lies last.
        np.testing.assert_array_equal(kernel.rows, codes.reshape(-1, codes.shape[-1]).T)


def test_decoded_they_are_the_weights_of_the_finished_layers(taught):
    definition = frozen_of(taught.graph).definition

    write_decoded(definition)

    assert coded_weights_of(definition) == []
    constants = [
        tf.make_ndarray(n.attr["value"].tensor) for n in definition.node if n.op == "Const"
    ]
    for name in ("first", "label_unrounded"):
        kernel = np.asarray(taught.finished.get_layer(name).layer.kernel)
        assert any(np.array_equal(kernel, constant) for constant in constants)


@pytest.mark.parametrize("step", [FoldConstants, Arithmetic, MergeCommon, Fuse, FoldBatchNorm])
def test_rewritings_of_the_graph_leave_codes_and_roundings(taught, step, tmp_path):
    with quiet():
        outcome = step().apply(taught.graph, PlainContext(tmp_path))

    made = taught.graph if isinstance(outcome, Unchanged) else outcome
    definition = frozen_of(made).definition
    before = frozen_of(taught.graph).definition
    assert len(coded_weights_of(definition)) == 2
    assert sorted(map(str, roundings_of(definition))) == sorted(map(str, roundings_of(before)))


def test_without_their_mark_codes_would_be_computed_beforehand(taught):
    """So the test above can fail."""
    definition = read_graph(taught.graph.path)
    for node in definition.node:
        node.attr.pop("_grappler_do_not_remove", None)
    with quiet():
        found = grappled(definition, ["given", "label"], ("constfold",))
    assert coded_weights_of(found) == []


def test_a_wall_stands_where_real_weights_lie_between_two_roundings(taught):
    definition = frozen_of(taught.graph).definition
    wall_off(definition)
    (wall,) = (node for node in definition.node if node.op == "Sin")
    assert "flatten" in wall.input[0]  # of what the layer in float gives
    (reader,) = (node for node in definition.node if wall.name in node.input)
    assert reader.op == "FakeQuantWithMinMaxVars"
