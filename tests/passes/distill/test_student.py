"""A smaller model learns from a Keras file, and is a Keras file like any other."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.contracts import Unchanged
from strop.core.errors import DivergedError, ModelError, ParameterError, SamplesError
from strop.core.model import Form
from strop.graph.keras_files import opened
from strop.graph.keras_models import signature_of
from strop.passes.distill.student import DistillStudent
from tests.taught import Source


def net(width=12, outputs=3):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 4), name="image"),
            layers.Conv2D(width, 3, activation="relu", name="conv"),
            layers.Conv2D(width, 3, activation="relu", name="other"),
            layers.Flatten(),
            layers.Dense(outputs, activation="softmax", name="kind"),
        ]
    )


def drawn(count=320):
    x = np.random.default_rng(0).normal(size=(count, 6, 6, 4)).astype("float32")
    return x, np.argmax(x[..., :3].mean((1, 2)), -1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source.of(net(), drawn(), tmp_path_factory.mktemp("distillation"), rate=0.01, epochs=12)


def distilled(source, *, labelled=True, count=320, **settings):
    chosen = {"epochs": 6, "batch_size": 32, "learning_rate": 0.01, **settings}
    return source.taught(DistillStudent(**chosen), source.samples(count, labelled=labelled))


def test_a_student_with_half_of_the_products_learns_the_answers(source):
    original = source.model
    taught, at_once = distilled(source), distilled(source, epochs=0)
    for found in (taught, at_once):
        assert found.form is Form.KERAS
        assert signature_of(opened(found)) == found.signature == original.signature
        share = float(found.facts["macs"].split("%")[0])
        assert 40 < share <= 50
        assert set(found.facts["channels"]) == {"conv", "other"}
        assert found.facts["left_alone"] == {"kind": "its channels are those of an output"}
        assert json.dumps(dict(found.facts))
    assert source.share_right(taught) > max(source.share_right(at_once), 0.85)
    assert taught.facts["taught_by"].endswith("and the original's answers")


def test_without_labels_the_original_is_the_teacher(source):
    found = distilled(source, labelled=False, method="features")
    assert found.facts["taught_by"] == "the original's answers and the original's features"
    assert found.facts["compared"] == {"other": "with 'other'"}
    assert source.share_right(found) > 0.85


def test_the_users_own_student_is_taught(source, tmp_path):
    keras.utils.set_random_seed(3)
    student = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Flatten(),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="kind"),
        ]
    )
    student.save(tmp_path / "student.keras")
    before = student.get_weights()

    found = distilled(
        source, student=str(tmp_path / "student.keras"), method="relational",
        layers=("hidden=other",), epochs=12,
    )  # fmt: skip

    assert [layer.name for layer in opened(found).layers] == [layer.name for layer in student.layers]  # fmt: skip
    assert found.facts["compared"] == {"hidden": "with 'other'"}
    assert "channels" not in found.facts
    assert source.share_right(found) > 0.75
    kept = keras.models.load_model(tmp_path / "student.keras").get_weights()
    for was, now in zip(before, kept, strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_student_of_another_signature_is_refused(source, tmp_path):
    net(4, outputs=2).save(tmp_path / "other.keras")
    with pytest.raises(ModelError, match=r"'sequential\S*' can't stand for its teacher: its output 'kind'"):  # fmt: skip
        distilled(source, student=str(tmp_path / "other.keras"))


def test_a_student_that_is_not_there_is_refused(source, tmp_path):
    with pytest.raises(ModelError, match="there is no student at"):
        distilled(source, student=str(tmp_path / "none.keras"))


def test_what_was_left_out_and_separated_is_told(source):
    found = distilled(source, epochs=0, macs=1.0, depth=1.0, separable=True)
    assert found.facts["separated"] == {"other": "depthwise and pointwise"}
    assert found.facts["left_alone"]["conv"].startswith("not made separable")


def test_where_nothing_can_be_smaller_it_says_so(source):
    outcome = distilled(source, epochs=0, exclude=("Conv2D",))
    assert isinstance(outcome, Unchanged)
    assert outcome.reason.startswith("no student comes to 50% of the multiply-accumulates")
    outcome = distilled(source, epochs=0, macs=1.0)
    assert isinstance(outcome, Unchanged)
    assert outcome.reason.startswith("no layer can have fewer channels")


def test_the_same_seed_gives_the_same_student(source):
    first, second = (distilled(source, epochs=2, method="features") for _ in range(2))
    assert first.digest == second.digest


def test_training_that_diverges_is_no_model(source):
    with pytest.raises(DivergedError) as failed:
        distilled(source, learning_rate=1e39)
    assert "training diverged" in str(failed.value)
    assert "  learning_rate = 1e+38" in str(failed.value)


def test_too_few_samples_are_no_lesson(source):
    with pytest.raises(SamplesError, match="at least 8 samples"):
        distilled(source, count=7)


@pytest.mark.parametrize(
    "settings",
    [
        {"macs": 0.0},
        {"macs": 1.1},
        {"depth": -0.5},
        {"temperature": 0.0},
        {"method": "guess"},
        {"layers": ("conv",)},
        {"weight": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ParameterError):
        DistillStudent(**settings)
