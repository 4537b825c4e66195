"""Top-k where counting the best is easy to get wrong."""

import numpy as np
import pytest

from strop.core.errors import MetricError
from strop.metrics.top_k import TopK


@pytest.mark.parametrize("k", [3, 5])
def test_as_many_guesses_as_classes_prove_nothing(k):
    with pytest.raises(MetricError) as caught:
        TopK(k=k).value(np.ones((2, 3), "float32"), np.array([0, 1]))
    assert str(caught.value) == (
        f"top-{k} accuracy over 3 classes is 1 whatever the answers are.\n"
        "k must be below the number of classes.\n"
        "  --metric 'top_k(k=2)'"
    )


def test_outputs_that_are_no_rows_of_scores_are_refused():
    with pytest.raises(MetricError, match=r"the output has shape \(2, 3, 4\)"):
        TopK(k=1).value(np.ones((2, 3, 4), "float32"), np.array([0, 1]))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_the_ends_of_whole_numbers_keep_their_order(dtype):
    limits = np.iinfo(dtype)
    codes = np.array([[limits.min, 1, limits.max], [limits.max, 1, limits.min]], dtype)
    assert TopK(k=1).value(codes, np.array([2, 0])) == 1.0
    assert TopK(k=2).value(codes, np.array([0, 2])) == 0.0


def test_of_equal_scores_the_first_count():
    assert TopK(k=1).per_sample(np.zeros((3, 3), "float32"), np.arange(3)).tolist() == [1, 0, 0]


def test_classes_that_the_output_lacks_are_never_guessed():
    assert TopK(k=1).value(np.eye(2, dtype="float32"), np.array([-1, 2])) == 0.0
