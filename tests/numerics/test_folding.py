"""Maps of channels go into a kernel: what the layer answers is what map and layer answered one after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.folding import (
    Affine,
    answer_to_offset,
    batch_normalization,
    scale_inputs,
    scale_outputs,
)

SEEDS = st.integers(0, 2**31)
NUMBERS = st.floats(-1e3, 1e3)


def maps(count):
    return st.builds(
        Affine.of,
        st.lists(NUMBERS, min_size=count, max_size=count),
        st.lists(NUMBERS, min_size=count, max_size=count),
    )


def grouped(kernel, x, groups):
    """A 1×1 convolution with groups, as its definition says. kernel IO (I of a group), x ...C"""
    parts = zip(np.split(x, groups, -1), np.split(kernel, groups, 1), strict=True)
    return np.concatenate([part @ weights for part, weights in parts], -1)


@given(maps(3), maps(3), st.lists(NUMBERS, min_size=3, max_size=3))
def test_one_map_and_then_another_are_one_map(first, second, x):
    np.testing.assert_allclose(
        first.then(second).apply(x), second.apply(first.apply(x)), rtol=1e-9, atol=1e-3
    )


@given(maps(3), st.floats(-10, 10))
def test_a_map_of_one_number_stands_for_all_channels(several, one):
    assert several.then(Affine.of(one)).scale.tolist() == (several.scale * one).tolist()
    assert len(Affine.of(one).then(several).offset) == 3


@given(SEEDS)
def test_batch_normalization_is_its_formula(seed):
    random = np.random.default_rng(seed)
    mean, gamma, beta, x = random.normal(size=(4, 5))
    variance = random.uniform(0.1, 3, 5)
    found = batch_normalization(mean, variance, gamma, beta, 1e-3).apply(x)
    np.testing.assert_allclose(found, gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta)


def test_a_variance_without_a_root_makes_a_map_that_is_not_finite():
    assert not batch_normalization(0.0, [-1.0, 1.0], 1.0, 0.0, 0.0).is_finite
    assert not batch_normalization(0.0, [0.0, 1.0], 1.0, 0.0, 0.0).is_finite


@given(SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_maps_on_both_sides_of_a_layer_go_into_it(seed, groups, inputs, outputs, of_one):
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(inputs, outputs * groups))
    x = random.normal(size=(7, inputs * groups))
    size = 1 if of_one else inputs * groups
    before = Affine(random.normal(size=size), random.normal(size=size))
    behind = Affine(*random.normal(size=(2, outputs * groups)))

    wanted = behind.apply(grouped(kernel, before.apply(x), groups))

    added = answer_to_offset(kernel, before.offset, 0, output_axes=(1,), groups=groups)
    scaled = scale_inputs(kernel, before.scale, 0, output_axis=1, groups=groups)
    folded = scale_outputs(scaled, behind.scale, (1,))
    bias = Affine.of(offset=added).then(behind).offset
    np.testing.assert_allclose(grouped(folded, x, groups) + bias, wanted, atol=1e-9)


@given(SEEDS)
def test_a_depthwise_kernel_numbers_its_outputs_by_two_axes(seed):
    random = np.random.default_rng(seed)
    kernel, x = random.normal(size=(1, 1, 3, 2)), random.normal(size=(4, 3))
    before, behind = Affine(*random.normal(size=(2, 3))), Affine(*random.normal(size=(2, 6)))

    def layer(weights, given):
        return np.einsum("bc,cm->bcm", given, weights[0, 0]).reshape(4, 6)

    wanted = behind.apply(layer(kernel, before.apply(x)))
    scaled = scale_outputs(
        scale_inputs(kernel, before.scale, 2, output_axis=3), behind.scale, (2, 3)
    )
    added = answer_to_offset(kernel, before.offset, 2, output_axes=(2, 3))
    bias = Affine.of(offset=added).then(behind).offset
    np.testing.assert_allclose(layer(scaled, x) + bias, wanted, atol=1e-9)


@pytest.mark.parametrize(("axes", "size"), [((0,), 2), ((1,), 3), ((0, 1), 6)])
def test_scales_lie_along_the_axes_that_are_named(axes, size):
    scaled = scale_outputs(np.ones((2, 3)), np.arange(1.0, size + 1), axes)
    assert scaled.shape == (2, 3)
    assert set(scaled.reshape(-1).tolist()) == set(range(1, size + 1))
