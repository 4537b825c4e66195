"""What all techniques that train have in common: who teaches, when it is enough, and what is told where it goes wrong."""

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.errors import DivergedError
from strop.core.evaluation import Goal
from strop.core.samples import Samples
from strop.graph.keras_files import opened
from strop.graph.quiet import quiet
from strop.passes.prune.magnitude import PruneMagnitude
from tests.passes.convert.conftest import Teaching, Workshop


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def net(seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            layers.Dense(32, activation="relu", name="first"),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )


def drawn(count=640):
    x = np.random.default_rng(0).normal(size=(count, 8)).astype("float32")
    return x, np.argmax(x[:, :3], -1)


def share_right(model):
    x, y = drawn()
    return float(np.mean(np.argmax(np.array(opened(model)(x)), -1) == y))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def source(workshop):
    model, (x, y) = net(), drawn()
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=10, verbose=0)
    return workshop.keras(model)


class Counting(Teaching):
    """Counts how often quality was asked for."""

    asked = 0

    def judge(self, answer):
        self.asked += 1
        return super().judge(answer)


def context(workshop, source, *, kind=Counting, labels=True, **given):
    x, y = drawn()
    targets = {source.signature.output_names[0]: y} if labels else {}
    return kind(workshop.new(), original=source, samples=Samples({"x": x}, targets), **given)


def test_the_original_teaches_a_model_that_other_passes_spoilt(workshop, source):
    """Without labels, what is learnt is the original's answers, not those of the model before this pass."""
    with quiet():
        spoilt = opened(source)
        for kernel in spoilt.trainable_weights[::2]:
            kernel.assign(kernel + 0.7 * np.random.default_rng(3).normal(size=kernel.shape))
        before = workshop.keras(spoilt)
    assert share_right(before) < 0.8
    taught = PruneMagnitude(sparsity=0.2, epochs=8, batch_size=32, learning_rate=0.01)
    found = taught.apply(before, context(workshop, source, labels=False))
    assert found.facts["taught_by"] == "the original's answers"
    assert share_right(found) > 0.9


def test_it_ends_once_the_limit_is_kept_for_certain(workshop, source):
    loose = context(workshop, source, goal=Goal(max_drop=1.0))
    strict = context(workshop, source, goal=Goal(max_drop=0.0))
    taught = PruneMagnitude(sparsity=0.2, ranking="layer", epochs=8, batch_size=32)
    for given in (loose, strict):
        sparsity = taught.apply(source, given).facts["sparsity"]
        assert sparsity == pytest.approx({"first": 0.2, "last": 0.2}, abs=0.01)
    assert loose.asked == 1  # after the first epoch in which nothing was dropped any more
    assert strict.asked > 1


def test_training_that_diverges_says_what_may_do(workshop, source):
    taught = PruneMagnitude(epochs=2, learning_rate=1e30)
    with pytest.raises(DivergedError, match="training diverged") as raised:
        taught.apply(source, context(workshop, source))
    assert "learning_rate = 1e+29" in str(raised.value)
    assert raised.value.exit_code == 1
