"""A Keras file is pruned while it is taught, and what comes of it is a Keras file like any other."""

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.contracts import Unchanged
from strop.core.errors import ParameterError, TrialError
from strop.core.model import Form
from strop.core.samples import Samples
from strop.graph.keras_files import opened
from strop.graph.quiet import quiet
from strop.passes.prune.magnitude import PruneMagnitude
from strop.train.kernels import sparsity_of
from strop.train.pruning import Pruning
from tests.passes.convert.conftest import Teaching, Workshop
from tests.taught import Source


def net(*, frozen=False):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            layers.Dense(32, activation="relu", name="first", trainable=not frozen),
            layers.Dense(3, activation="softmax", name="last", trainable=not frozen),
        ]
    )


def drawn(count=640):
    x = np.random.default_rng(0).normal(size=(count, 8)).astype("float32")
    return x, np.argmax(x[:, :3], -1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source.of(net(), drawn(), tmp_path_factory.mktemp("pruning"), rate=0.02, epochs=10)


def pruned(source, count=640, **settings):
    settings = {"epochs": 4, "batch_size": 32, **settings}
    return source.taught(PruneMagnitude(**settings), source.samples(count))


def test_the_share_is_dropped_and_the_answers_are_learnt_again(source):
    taught = pruned(source, sparsity=0.75)
    at_once = pruned(source, sparsity=0.75, epochs=0)
    for found in (taught, at_once):
        assert found.form is Form.KERAS
        shares = found.facts["sparsity"]
        assert (256 * shares["first"] + 96 * shares["last"]) / 352 == pytest.approx(0.75)
        assert sparsity_of(opened(found)) == shares
    assert source.share_right(taught) > max(source.share_right(at_once), 0.9)


def test_with_one_short_epoch_all_is_dropped_too(source):
    found = pruned(source, count=20, epochs=1, batch_size=64, ranking="layer")
    assert found.facts["sparsity"] == {"first": 0.5, "last": 0.5}


def test_all_is_dropped_within_the_training_of_a_model_for_one_batch_size(tmp_path, monkeypatch):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(64, 8), name="x"),
            layers.Dense(16, activation="relu", name="first"),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    shares, complete = [], Pruning.complete
    monkeypatch.setattr(
        Pruning, "complete", lambda self: shares.append(self.is_complete) or complete(self)
    )
    with quiet():
        workshop = Workshop(tmp_path)
        pruned(Source(workshop, workshop.keras(model), drawn()), batch_size=8)
    assert shares == [True]


def test_all_layers_are_ranked_together_unless_each_is_to_lose_as_much(source):
    together = pruned(source, epochs=0).facts["sparsity"]
    assert together["first"] > 0.5 > together["last"] > 0
    assert pruned(source, epochs=0, ranking="layer").facts["sparsity"] == {
        "first": 0.5,
        "last": 0.5,
    }


def test_what_is_left_alone_is_told(source):
    found = pruned(source, pattern="2:4", exclude=("last",), epochs=1)
    assert found.facts["sparsity"] == {"first": 0.5}
    assert found.facts["left_alone"] == {"last": "excluded, as 'last'"}
    groups = np.array(opened(found).get_layer("first").kernel).T.reshape(-1, 4)
    assert np.all(np.sum(groups != 0, -1) == 2)


def test_a_group_pattern_says_the_share_by_itself(source):
    found = pruned(source, pattern="1:4", epochs=0)
    assert found.facts["sparsity"] == {"first": 0.75, "last": 0.75}


def test_without_weights_to_drop_nothing_is_changed(tmp_path):
    workshop = Workshop(tmp_path)
    with quiet():
        model = workshop.keras(net(frozen=True))
        found = PruneMagnitude().apply(
            model, Teaching(workshop.new(), original=model, samples=Samples({"x": drawn()[0]}))
        )
    assert found == Unchanged(
        "no layer has weights to drop; first: it is frozen (trainable=False); "
        "last: it is frozen (trainable=False)"
    )


def test_a_training_that_diverges_before_all_is_dropped_fails_the_trial(source):
    workshop, model = source.workshop, source.model
    x, y = drawn()
    x[:] = np.nan
    samples = Samples({"x": x}, {model.signature.output_names[0]: y})
    with quiet(), pytest.raises(TrialError, match="training diverged"):
        PruneMagnitude(epochs=2).apply(
            model, Teaching(workshop.new(), original=model, samples=samples)
        )


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"sparsity": 1.0}, "sparsity must be at most 0.999999, not 1.0"),
        ({"pattern": "2:2"}, "pattern: expected fewer weights to stay than a group has"),
        ({"pattern": "blocky"}, "pattern: expected 'unstructured', a block such as '4x1'"),
        (
            {"pattern": "2:4", "ranking": "global"},
            "a global ranking has no say in the pattern 2:4",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_recipe(settings, wrong):
    (mistake,) = PruneMagnitude.mistakes(settings)
    assert wrong in mistake
    with pytest.raises(ParameterError):
        PruneMagnitude(**settings)


class Shares(keras.callbacks.Callback):
    """Keeps the share of zeros after each step."""

    def __init__(self):
        super().__init__()
        self.after = []

    def on_train_batch_end(self, batch, logs=None):
        zeros = [np.mean(np.asarray(w) == 0) for w in self.model.student.weights if w.ndim > 1]
        self.after.append(float(np.max(zeros)))


@pytest.mark.parametrize(
    ("settings", "begins", "is_done"),
    [
        ({"schedule": "constant", "begin": 0.25}, 0.25, 0.25),
        ({"schedule": "linear", "begin": 0.25, "end": 0.75}, 0.25, 0.75),
        ({"schedule": "cubic", "end": 0.5, "frequency": 2}, 0.0, 0.5),
    ],
)
def test_weights_go_when_the_schedule_says(source, monkeypatch, settings, begins, is_done):
    shares = Shares()
    fit = keras.Model.fit
    monkeypatch.setattr(
        keras.Model, "fit",
        lambda self, *args, callbacks, **given: fit(self, *args, callbacks=[*callbacks, shares], **given),
    )  # fmt: skip
    pruned(source, ranking="layer", **settings)
    steps = len(shares.after)
    begun = next(step for step, share in enumerate(shares.after) if share)
    done = next(step for step, share in enumerate(shares.after) if share >= 0.5)
    # By a step: the pass counts whole batches. The first shares of a schedule may come to no whole weight.
    assert begins * steps - 1 <= begun <= begins * steps + 0.2 * steps
    assert abs(done - is_done * steps) <= 0.15 * steps


def test_an_end_before_the_begin_is_refused():
    (mistake,) = PruneMagnitude.mistakes({"begin": 0.6})
    assert mistake == "'prune.magnitude': begin (0.6) must not lie behind end (0.5)"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sparsity": 0.8, "pattern": "2:4"}, "the pattern 2:4 comes to a sparsity of 0.5, and not of 0.8"),
        (
            {"weight": 3.0},
            "weight is that of what layers within give, of which the method 'logits' teaches nothing: set method to "
            "another, or leave out weight",
        ),
    ],
)  # fmt: skip
def test_a_setting_that_would_do_nothing_is_refused(settings, said):
    assert PruneMagnitude.mistakes(settings) == [f"'prune.magnitude': {said}"]


def test_what_layers_give_is_taught_and_inputs_are_mixed_where_asked(source):
    found = pruned(source, method="features", weight=10.0, augment=("mix",))
    assert found.facts["taught_by"].endswith("the original's answers and the original's features")
    assert found.facts["compared"] == {"first": "with 'first'"}
    assert source.share_right(found) > 0.9
