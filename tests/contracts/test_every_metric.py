"""What every metric promises."""

import numpy as np
import pytest

from strop.core import registry

RNG = np.random.default_rng(5)
CLASSES = RNG.integers(0, 2, 60)
PROBABLE = RNG.dirichlet([1, 1], 60).astype("float32")
PLACES = RNG.integers(0, 2, (20, 3))
# Outputs and targets that each metric is for; a metric without a line here fails below.
CASES = {
    "accuracy": (PROBABLE, CLASSES),
    "auc": (PROBABLE, CLASSES),
    "mae": (RNG.normal(size=(60, 2)).astype("float32"), RNG.normal(size=(60, 2))),
    "mean_iou": (RNG.random((20, 3, 2)).astype("float32"), PLACES),
    "rmse": (RNG.normal(size=(60, 2)).astype("float32"), RNG.normal(size=(60, 2))),
    "top_k": (RNG.random((60, 9)).astype("float32"), RNG.integers(0, 9, 60)),
}


def perfect(metric, output, target):
    """Return outputs that no others can beat."""
    if not metric.is_bounded:
        return target.astype("float32")
    return np.eye(output.shape[-1], dtype="float32")[target]


@pytest.mark.parametrize("name", registry.metrics.names())
def test_it_gives_a_finite_number_and_leaves_its_arguments_alone(name):
    output, target = (array.copy() for array in CASES[name])

    value = registry.metrics.get(name)().value(output, target)

    assert isinstance(value, float)
    assert np.isfinite(value)
    np.testing.assert_array_equal(output, CASES[name][0])
    np.testing.assert_array_equal(target, CASES[name][1])


@pytest.mark.parametrize("name", registry.metrics.names())
def test_perfect_answers_reach_the_best_value_and_no_others_are_better(name):
    metric = registry.metrics.get(name)()
    output, target = CASES[name]

    best = metric.value(perfect(metric, output, target), target)

    # Targets in float64 are rounded to the outputs' float32: by half a unit in the last place, 2**-24 of them.
    assert best == pytest.approx(1.0 if metric.is_bounded else 0.0, abs=4 * 2**-24)
    assert metric.higher_is_better == (best >= metric.value(output, target))


@pytest.mark.parametrize("name", registry.metrics.names())
def test_the_order_of_samples_does_not_matter(name):
    metric = registry.metrics.get(name)()
    output, target = CASES[name]
    order = np.random.default_rng(0).permutation(len(output))
    assert metric.value(output[order], target[order]) == pytest.approx(
        metric.value(output, target)
    )


@pytest.mark.parametrize("name", registry.metrics.names())
def test_the_mean_of_its_scores_is_its_value(name):
    metric = registry.metrics.get(name)()
    scores = metric.per_sample(*CASES[name])
    if scores is None:
        pytest.skip("does not decompose over samples")
    assert scores.shape == (len(CASES[name][0]),)
    assert scores.mean() == pytest.approx(metric.value(*CASES[name]))


@pytest.mark.parametrize("name", registry.metrics.names())
def test_the_sums_of_its_statistics_decide_its_value_for_any_samples(name):
    metric = registry.metrics.get(name)()
    output, target = CASES[name]
    statistics = metric.statistics(output, target)
    if statistics is None:
        pytest.skip("no sums decide it")
    assert statistics.shape[0] == len(output)
    assert statistics.ndim == 2
    for seed in range(5):
        chosen = np.random.default_rng(seed).integers(0, len(output), len(output))
        assert metric.value_of(statistics[chosen].sum(0)) == pytest.approx(
            metric.value(output[chosen], target[chosen])
        )


@pytest.mark.parametrize("name", registry.metrics.names())
def test_it_says_whether_it_fits_without_failing(name):
    kind = registry.metrics.get(name)
    for output, _ in CASES.values():
        for _, target in CASES.values():
            assert kind.fits(output, target) in (True, False)


def test_at_most_one_metric_is_picked_for_each_kind_of_targets():
    for output, target in CASES.values():
        fitting = [kind.name for kind in registry.metrics if kind.fits(output, target)]
        assert len(fitting) <= 1, fitting
