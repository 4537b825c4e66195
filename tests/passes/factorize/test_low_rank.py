"""A Keras file is factored and taught again, and what comes of it is a Keras file like any other."""

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.contracts import Unchanged
from strop.core.errors import ParameterError, TrialError
from strop.core.model import Form
from strop.core.samples import Samples
from strop.graph.keras_files import opened
from strop.graph.keras_models import signature_of
from strop.graph.quiet import quiet
from strop.passes.factorize.low_rank import FactorizeLowRank
from tests.passes.convert.conftest import Teaching, Workshop


def net():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 8), name="image"),
            layers.Conv2D(24, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(48, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="kind"),
        ]
    )


def drawn(count=320):
    x = np.random.default_rng(0).normal(size=(count, 6, 6, 8)).astype("float32")
    return x, np.argmax(x[:, 1:5, 1:5, :3].mean((1, 2)), -1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A trained model's file, in the workshop where it was made."""
    model, (x, y) = net(), drawn()
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=20, verbose=0)
    workshop = Workshop(tmp_path_factory.mktemp("factorization"))
    with quiet():
        return workshop, workshop.keras(model)


def factored(source, *, samples=True, **settings):
    workshop, model = source
    x, y = drawn()
    found = Samples({"image": x}, {"kind": y}) if samples else None
    defaults = {"energy": 0.4, "exclude": ("kind",), "epochs": 4, "batch_size": 32}
    with quiet():
        return FactorizeLowRank(**{**defaults, **settings}).apply(
            model, Teaching(workshop.new(), original=model, samples=found)
        )


def share_right(model):
    x, y = drawn()
    return float(np.mean(np.argmax(np.array(opened(model)(x)), -1) == y))


def test_a_smaller_model_learns_the_answers_again(source):
    _, original = source
    taught, at_once = factored(source), factored(source, samples=False, epochs=0)
    for found in (taught, at_once):
        assert found.form is Form.KERAS
        assert list(found.facts["ranks"]) == ["conv", "hidden"]
        assert opened(found).count_params() < 0.6 * opened(original).count_params()
        assert signature_of(opened(found)) == found.signature == original.signature
    assert share_right(taught) > max(share_right(at_once), 0.9)


def test_ranks_are_told_and_what_is_left_alone(source):
    found = factored(source, epochs=0, kind="channel", exclude=("hidden", "kind"))
    assert list(found.facts["ranks"]) == ["conv"]
    assert found.facts["ranks"]["conv"].split(", ")[0].endswith(" of 24")
    assert found.facts["ranks"]["conv"].endswith(" % of its energy")
    assert set(found.facts["left_alone"]) == {"hidden", "kind"}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("tucker", {(1, 1), (3, 3)}),
        ("channel", {(1, 1), (3, 3)}),
        ("spatial", {(3, 1), (1, 3)}),
    ],
)
def test_convolutions_become_what_was_asked_for(source, kind, sizes):
    made = opened(factored(source, epochs=0, kind=kind))
    convolutions = [layer for layer in made.layers if isinstance(layer, layers.Conv2D)]
    assert {layer.kernel_size for layer in convolutions} == sizes


def test_where_nothing_pays_it_says_so(source):
    outcome = factored(source, energy=1.0)
    assert isinstance(outcome, Unchanged)
    assert outcome.reason.startswith("there is no layer whose factors would pay; ")
    assert "hidden: keeping 100% of its energy takes rank 48 of 48, which saves too little" in (
        outcome.reason
    )


def test_training_that_diverges_is_no_model(source):
    with pytest.raises(TrialError) as failed:
        factored(source, learning_rate=1e39)
    assert "training diverged" in str(failed.value)
    assert "  learning_rate = 1e+38" in str(failed.value)


@pytest.mark.parametrize("settings", [{"energy": 0.0}, {"energy": 1.1}, {"kind": "cp"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ParameterError):
        FactorizeLowRank(**settings)
