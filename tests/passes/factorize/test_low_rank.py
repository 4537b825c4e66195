"""A Keras file is factored and taught again, and what comes of it is a Keras file like any other."""

import math

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
from strop.passes.convert.graph_def import Freeze
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.convert.openvino import ConvertToOpenVINO
from strop.passes.factorize.low_rank import FactorizeLowRank
from tests.passes.convert.conftest import Teaching
from tests.taught import Source


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
    folder = tmp_path_factory.mktemp("factorization")
    return Source.of(net(), drawn(), folder, rate=0.003, epochs=20)


def factored(source, *, samples=True, **settings):
    defaults = {"energy": 0.4, "exclude": ("kind",), "epochs": 4, "batch_size": 32}
    technique = FactorizeLowRank(**{**defaults, **settings})
    return source.taught(technique, source.samples() if samples else None)


def test_a_smaller_model_learns_the_answers_again(source):
    original = source.model
    taught, at_once = factored(source), factored(source, samples=False, epochs=0)
    for found in (taught, at_once):
        assert found.form is Form.KERAS
        assert list(found.facts["ranks"]) == ["conv", "hidden"]
        assert opened(found).count_params() < 0.6 * opened(original).count_params()
        assert signature_of(opened(found)) == found.signature == original.signature
    assert source.share_right(taught) > max(source.share_right(at_once), 0.9)


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


@pytest.mark.parametrize(
    "settings", [{"energy": 0.0}, {"energy": 1.1}, {"kind": "cp"}, {"macs": 0.0}, {"macs": 1.5}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ParameterError):
        FactorizeLowRank(**settings)


class Ranking(Teaching):
    """A context with samples to rank by."""

    @property
    def calibration(self):
        return self.samples


def test_under_a_budget_those_layers_give_that_the_answers_need_least(source):
    workshop, model = source.workshop, source.model
    x, y = drawn(64)
    context = Ranking(workshop.new(), original=model, samples=Samples({"image": x}, {"kind": y}))
    with quiet():
        found = FactorizeLowRank(macs=0.6, epochs=0, exclude=("kind",)).apply(model, context)
    conv, hidden = opened(model).get_layer("conv"), opened(model).get_layer("hidden")
    now = 16 * conv.kernel.shape.num_elements() + hidden.kernel.shape.num_elements()
    left = sum(
        layer.kernel.shape.num_elements() * (math.prod(layer.output.shape[1:-1]) or 1)
        for layer in opened(found).layers
        if hasattr(layer, "kernel") and layer.name != "kind"
    )
    assert left <= 0.6 * now
    assert found.facts["ranks"]


def test_a_budget_out_of_reach_is_refused(source):
    workshop, model = source.workshop, source.model
    context = Ranking(workshop.new(), original=model, samples=Samples({"image": drawn(8)[0]}))
    with quiet(), pytest.raises(ParameterError, match="can't be reached"):
        FactorizeLowRank(macs=0.01, epochs=0).apply(model, context)


def test_the_same_seed_gives_the_same_model(source):
    one, other = (factored(source, epochs=1) for _ in range(2))
    for first, second in zip(opened(one).get_weights(), opened(other).get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ["tucker", "spatial"])
def test_what_comes_of_it_is_cloned_and_converted_like_any_model(source, kind):
    workshop = source.workshop
    made = factored(source, epochs=0, kind=kind)
    live = opened(made)
    clone = keras.models.clone_model(live)
    clone.set_weights(live.get_weights())
    x, _ = drawn(3)
    np.testing.assert_allclose(clone(x), live(x), atol=1e-6)
    with quiet():
        frozen = workshop.apply(made, Freeze())
        for convert, runtime in ((ConvertToLiteRT, "litert"), (ConvertToOpenVINO, "openvino")):
            workshop.assert_answers_alike(made, workshop.apply(frozen, convert()), runtime)
