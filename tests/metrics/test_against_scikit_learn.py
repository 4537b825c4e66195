"""Our metrics give what scikit-learn's give, wherever both answer."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as reference

from strop.core.errors import MetricError
from strop.metrics.accuracy import Accuracy
from strop.metrics.auc import AUC
from strop.metrics.mae import MeanAbsoluteError
from strop.metrics.mean_iou import MeanIoU
from strop.metrics.rmse import RootMeanSquaredError
from strop.metrics.top_k import TopK

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(2, 80)


def scores_and_classes(seed, count, classes, *, steps=None):
    """Scores and targets; with few `steps` there are many ties."""
    random = np.random.default_rng(seed)
    scores = random.random((count, classes))
    if steps:
        scores = np.round(scores * steps) / steps
    return scores.astype("float32"), random.integers(0, classes, count)


@given(seed=SEEDS, count=COUNTS, classes=st.integers(2, 9))
def test_accuracy(seed, count, classes):
    scores, wanted = scores_and_classes(seed, count, classes)
    expected = reference.accuracy_score(wanted, scores.argmax(1))
    assert Accuracy().value(scores, wanted) == pytest.approx(expected)
    assert Accuracy().value(scores, np.eye(classes)[wanted]) == pytest.approx(expected)
    assert Accuracy().value(scores, wanted[:, None]) == pytest.approx(expected)


@given(seed=SEEDS, count=COUNTS)
def test_accuracy_of_one_probability(seed, count):
    scores, wanted = scores_and_classes(seed, count, 2)
    expected = reference.accuracy_score(wanted, scores[:, 0] > 0.5)
    assert Accuracy().value(scores[:, :1], wanted) == pytest.approx(expected)


@given(seed=SEEDS, count=COUNTS, classes=st.integers(4, 9), k=st.integers(1, 3))
def test_top_k(seed, count, classes, k):
    scores, wanted = scores_and_classes(seed, count, classes)
    expected = reference.top_k_accuracy_score(wanted, scores, k=k, labels=np.arange(classes))
    assert TopK(k=k).value(scores, wanted) == pytest.approx(expected)


@given(seed=SEEDS, count=COUNTS, steps=st.sampled_from([None, 3]))
def test_auc_also_with_ties(seed, count, steps):
    scores, wanted = scores_and_classes(seed, count, 2, steps=steps)
    assume(0 < wanted.sum() < count)
    expected = reference.roc_auc_score(wanted, scores[:, 1])
    assert AUC().value(scores, wanted) == pytest.approx(expected)
    assert AUC().value(scores[:, 1:], wanted[:, None]) == pytest.approx(expected)


def test_auc_of_one_class_is_an_error():
    with pytest.raises(MetricError, match="both classes"):
        AUC().value(np.ones((4, 1), "float32"), np.ones(4, int))


@given(seed=SEEDS, count=COUNTS, width=st.integers(1, 5))
def test_errors_of_regression(seed, count, width):
    random = np.random.default_rng(seed)
    guessed, wanted = random.normal(size=(2, count, width)).astype("float32")
    assert MeanAbsoluteError().value(guessed, wanted) == pytest.approx(
        reference.mean_absolute_error(wanted, guessed), rel=1e-5
    )
    assert RootMeanSquaredError().value(guessed, wanted) == pytest.approx(
        reference.root_mean_squared_error(wanted.ravel(), guessed.ravel()), rel=1e-5
    )


@given(seed=SEEDS, classes=st.integers(2, 5), side=st.integers(1, 6))
def test_mean_iou_of_classes_that_appear(seed, classes, side):
    random = np.random.default_rng(seed)
    scores = random.random((3, side, side, classes)).astype("float32")
    wanted = random.integers(0, classes, (3, side, side))
    guessed = scores.argmax(-1)
    expected = reference.jaccard_score(
        wanted.ravel(), guessed.ravel(), labels=np.union1d(wanted, guessed), average="macro"
    )
    assert MeanIoU().value(scores, wanted) == pytest.approx(expected)
    assert MeanIoU().value(scores, wanted[..., None]) == pytest.approx(expected)


@given(seed=SEEDS, side=st.integers(1, 6))
def test_mean_iou_of_one_probability_a_place(seed, side):
    random = np.random.default_rng(seed)
    scores = random.random((3, side, side, 1)).astype("float32")
    wanted = random.integers(0, 2, (3, side, side, 1))
    expected = reference.jaccard_score(
        wanted.ravel(),
        scores.ravel() > 0.5,
        labels=np.union1d(wanted, scores > 0.5).astype(int),
        average="macro",
    )
    assert MeanIoU().value(scores, wanted) == pytest.approx(expected)
