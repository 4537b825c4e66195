"""Convolutions written as depthwise and pointwise ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.separable import separated


def drawn(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 1000))
def test_a_kernel_that_is_separable_is_given_back(size, inputs, outputs, seed):
    depthwise, pointwise = drawn((size, 2, inputs, 1), seed), drawn((1, 1, inputs, outputs), seed)

    found = separated(depthwise * pointwise)

    np.testing.assert_allclose(found[0] * found[1], depthwise * pointwise, atol=1e-12)


@given(st.integers(0, 1000))
def test_no_other_separable_kernel_is_nearer(seed):
    kernel = drawn((3, 3, 2, 5), seed)
    depthwise, pointwise = separated(kernel)
    least = np.sum((kernel - depthwise * pointwise) ** 2)

    for step in (1e-3, 0.1):
        others = depthwise + step * drawn(depthwise.shape, seed + 1), pointwise
        assert np.sum((kernel - others[0] * others[1]) ** 2) >= least


@pytest.mark.parametrize("places", [(5,), (3, 3)])
def test_shapes_are_those_that_keras_wants(places):
    depthwise, pointwise = separated(drawn((*places, 2, 7), 0))
    assert depthwise.shape == (*places, 2, 1)
    assert pointwise.shape == (*(1 for _ in places), 2, 7)
