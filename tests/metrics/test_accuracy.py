"""Accuracy of what quantized files give: whole numbers."""

import numpy as np
import pytest

from strop.metrics.accuracy import Accuracy

CODES = np.array([[-128, 127, 0], [5, -3, 4]], "int8")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_whole_numbers_are_scores_too(dtype):
    codes = (CODES.astype("int16") // 2 + 64).astype(dtype)
    right, wrong = np.array([1, 0]), np.array([0, 1])
    assert Accuracy.fits(codes, right)
    assert Accuracy().value(codes, right) == 1.0
    assert Accuracy().value(codes, wrong) == 0.0


def test_a_lone_whole_number_may_mean_anything():
    assert not Accuracy.fits(CODES[:, :1], np.array([1, 0]))


@pytest.mark.parametrize(
    "targets", [np.array(["a", "b"]), np.array([b"a", b"b"]), np.array([1j, 0])]
)
def test_targets_that_are_no_numbers_do_not_fit(targets):
    assert not Accuracy.fits(CODES.astype("float32"), targets)
