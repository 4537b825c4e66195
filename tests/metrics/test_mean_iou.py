"""What scikit-learn does not answer: places of no class, and vocabularies."""

import numpy as np
import pytest

from strop.core.errors import MetricError
from strop.metrics.mean_iou import MeanIoU

VOID = 255


def scores_of(classes, count):
    return np.eye(count, dtype="float32")[classes]


def test_places_labelled_void_do_not_count():
    wanted = np.array([[[0, 1], [VOID, VOID]]])
    guessed = np.array([[[0, 1], [2, 0]]])
    assert MeanIoU().value(scores_of(guessed, 3), wanted) == 1.0


def test_places_labelled_below_zero_are_void_too():
    wanted = np.array([[[0, 1, -1]]])
    assert MeanIoU().value(scores_of(np.array([[[0, 1, 1]]]), 2), wanted) == 1.0


def test_labels_of_few_bits_are_not_wrapped_round():
    wanted = np.full((1, 1, 4), 200, "uint8")
    assert MeanIoU().value(scores_of(np.full((1, 1, 4), 200), 201), wanted) == 1.0


def test_nothing_but_void_has_no_value():
    with pytest.raises(MetricError, match="no place is labelled with one of the 3 classes"):
        MeanIoU().value(np.ones((1, 2, 2, 3), "float32"), np.full((1, 2, 2), VOID))


@pytest.mark.slow
def test_a_vocabulary_takes_no_room_for_pairs_of_words():
    words = 30_000
    wanted = np.random.default_rng(0).integers(0, words, (2, 8))
    metric = MeanIoU()
    scores = scores_of(wanted, words)
    assert metric.value(scores, wanted) == 1.0
    assert metric.statistics(scores, wanted).shape == (2, 2 * len(np.unique(wanted)))


def test_whole_numbers_are_scores_where_there_are_several():
    codes = np.array([[[[-128, 127], [3, 2]]]], "int8")
    wanted = np.array([[[1, 0]]])
    assert MeanIoU.fits(codes, wanted)
    assert not MeanIoU.fits(codes[..., :1], wanted)
    assert MeanIoU().value(codes, wanted) == 1.0
