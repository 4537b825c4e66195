"""A Keras file is clustered while it is taught, and what comes of it is a Keras file like any other."""

import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.contracts import Unchanged
from strop.core.errors import TrialError
from strop.core.model import Form
from strop.graph.keras_files import opened
from strop.numerics.clustering import distinct_values
from strop.passes.cluster.weights import ClusterWeights
from strop.train.pruning import prune
from tests.taught import Source


def net():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            layers.Dense(64, activation="relu", name="first"),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )


def drawn(count=640):
    x = np.random.default_rng(0).normal(size=(count, 8)).astype("float32")
    return x, np.argmax(x[:, :3], -1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source.of(net(), drawn(), tmp_path_factory.mktemp("clustering"), rate=0.02, epochs=10)


def applied(source, *, x=None, **settings):
    settings = {"epochs": 4, "batch_size": 32, **settings}
    return source.taught(ClusterWeights(**settings), source.samples(x=x))


def test_weights_share_values_and_the_answers_are_learnt_again(source):
    taught = applied(source, clusters=3)
    at_once = applied(source, clusters=3, epochs=0)
    for found in (taught, at_once):
        assert found.form is Form.KERAS
        assert found.facts["clusters"] == {"first": 3, "last": 3}
        for layer in opened(found).layers:
            assert distinct_values(np.array(layer.kernel)) == 3
    assert source.share_right(taught) > max(source.share_right(at_once), 0.9)


def test_zeros_of_layers_that_are_left_alone_stay(source):
    """As where only some layers are clustered of a model that was pruned before."""
    live = opened(source.model)
    prune(live, 0.5)
    pruned = replace(source, model=source.workshop.keras(live))

    found = opened(applied(pruned, clusters=3, exclude=("first",)))

    before, after = (np.array(model.get_layer("first").kernel) for model in (live, found))
    np.testing.assert_array_equal(after == 0, before == 0)
    assert np.any(after != before)


def test_the_file_zips_to_less(source, tmp_path):
    def zipped(model):
        path = tmp_path / "zipped"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("kernel", np.array(opened(model).layers[0].kernel).tobytes())
        return path.stat().st_size

    assert zipped(applied(source, clusters=4, epochs=0)) < zipped(source.model) / 3


def test_what_is_left_alone_is_told(source):
    found = applied(source, clusters=16, per_channel=True, exclude=("last",), epochs=0)
    assert isinstance(found, Unchanged)
    assert found.reason == (
        "no layer has weights to cluster; last: excluded, as 'last'; "
        "first: kernel: 8 weights in a channel are fewer than 16 clusters"
    )
    some = applied(source, exclude=("last",), epochs=1)
    assert some.facts["clusters"] == {"first": 16}
    assert some.facts["left_alone"] == {"last": "excluded, as 'last'"}


def test_a_training_that_diverges_at_once_fails_the_trial(source):
    with pytest.raises(TrialError, match="training diverged"):
        applied(source, x=np.full((640, 8), np.nan, "float32"))
