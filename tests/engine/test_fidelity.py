"""Fidelity: drops as their definitions say, and nothing that is not a number passes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, mean_absolute_error

from strop.core.errors import JudgingError, MetricError, ParameterError, UnknownNameError
from strop.core.evaluation import Goal
from strop.core.signature import Signature, TensorSpec
from strop.engine.fidelity import choose_metrics, judge, predict_all, reasons, user_function
from strop.numerics.statistics import bootstrap_interval


def signature(classes: int) -> Signature:
    return Signature(
        (TensorSpec("x", (None, 4), "float32"),), (TensorSpec("y", (None, classes), "float32"),)
    )


def judged(before, after, target=None, metric=None, **also):
    targets = {} if target is None else {"y": target}
    named = signature(before.shape[1])
    questions = choose_metrics(metric, [before], targets, named)
    return judge(
        [before], [after], targets, signature=named, questions=questions, split="select", **also
    )


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    before = rng.random((200, 5)).astype("float32")
    after = (before + rng.normal(0, 0.2, before.shape)).astype("float32")
    return before, after, rng.integers(0, 5, 200)


def test_the_drop_in_accuracy_is_scikit_learns(scores):
    before, after, target = scores

    found = judged(before, after, target)

    was, became = (accuracy_score(target, a.argmax(1)) for a in (before, after))
    assert found.drop_of == "accuracy"
    assert found.baseline_metric.value == pytest.approx(was, abs=1e-12)
    assert found.metric.value == pytest.approx(became, abs=1e-12)
    assert found.drop.value == pytest.approx(was - became, abs=1e-12)
    assert found.drop.low <= found.drop.value <= found.drop.high


def test_equal_answers_drop_by_nothing(scores):
    before, _, target = scores
    assert judged(before, before, target).drop.value == 0.0


def test_errors_drop_relative_to_the_originals():
    target = np.arange(100, dtype="float32").reshape(-1, 1)
    before, after = target + np.float32(2), target + np.float32(3)

    found = judged(before, after, target, "mae")

    assert mean_absolute_error(target, after) == pytest.approx(3.0)
    assert found.drop.value == pytest.approx(0.5)  # (3 - 2) / 2


def test_an_improvement_is_a_negative_drop(scores):
    before, _, target = scores
    right = np.eye(5, dtype="float32")[target]
    assert judged(before, right, target).drop.value < 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_a_total_loss(scores, wrong):
    before, after, target = scores
    after = after.copy()
    after[17, 3] = wrong

    found = judged(before, after, target)

    assert not found.finite
    assert found.drop.value == 1.0
    assert Goal(max_drop=1.0).shortfall(found) == "gives outputs that are not finite"


def test_without_targets_changed_top_answers_are_counted():
    before = np.eye(10, dtype="float32")[np.arange(100) % 10]
    after = before.copy()
    after[:7] = after[:7, ::-1]

    found = judged(before, after)

    assert found.drop_of == "top-1 agreement"
    assert found.drop.value == pytest.approx(0.07)


def test_without_targets_plain_numbers_are_judged_by_relative_error():
    before = np.random.default_rng(0).normal(size=(100, 3)).astype("float32")
    found = judged(before, before * np.float32(1.1))
    assert found.drop_of == "relative error"
    # float32 represents 1.1 times a value to half a unit in the last place, 2**-24 of it.
    assert found.drop.value == pytest.approx(0.1, rel=1e-5)


def test_the_worst_output_counts():
    target = np.zeros(50, int)
    good = np.tile(np.float32([1, 0]), (50, 1))
    named = Signature(
        signature(2).inputs, tuple(TensorSpec(n, (None, 2), "float32") for n in ("a", "b"))
    )
    targets = {"a": target, "b": target}
    questions = choose_metrics("accuracy", [good, good], targets, named)

    found = judge(
        [good, good],
        [good, good[:, ::-1]],
        targets,
        signature=named,
        questions=questions,
        split="select",
    )

    assert found.drop.value == 1.0


@pytest.fixture
def two_heads():
    """A classifier and a box with their targets, the classifier right throughout and the box off by one."""
    rng = np.random.default_rng(5)
    target = {"label": rng.integers(0, 3, 60), "box": rng.random((60, 4)).astype("float32")}
    outputs = [np.eye(3, dtype="float32")[target["label"]], target["box"] + np.float32(1)]
    named = Signature(
        (TensorSpec("x", (None, 4), "float32"),),
        (TensorSpec("label", (None, 3), "float32"), TensorSpec("box", (None, 4), "float32")),
    )
    return named, outputs, target


@pytest.mark.parametrize(
    ("metric", "titles"),
    [
        (None, ["accuracy", "MAE"]),
        ("accuracy", ["accuracy", "MAE"]),
        ("mae", ["accuracy", "MAE"]),
        ("top_k(k=2)", ["top-k accuracy", "MAE"]),
    ],
)
def test_each_output_is_asked_what_fits_it(two_heads, metric, titles):
    named, outputs, targets = two_heads
    questions = choose_metrics(metric, outputs, targets, named)
    assert list(questions) == ["label", "box"]
    assert [question.title for question in questions.values()] == titles


def test_a_metric_that_is_never_picked_is_asked_of_all_like_the_first(two_heads):
    named, (_, box), targets = two_heads
    signature = Signature(
        named.inputs, tuple(TensorSpec(n, (None, 4), "float32") for n in ("a", "b"))
    )
    wanted = {"a": targets["box"], "b": targets["box"]}

    questions = choose_metrics("rmse", [box, box], wanted, signature)

    assert [question.title for question in questions.values()] == ["RMSE", "RMSE"]
    assert reasons(questions) == "judged by RMSE, as asked for"


def test_the_limit_holds_for_each_output_by_its_own_metric(two_heads):
    named, (label, box), targets = two_heads
    questions = choose_metrics(None, [label, box], targets, named)

    found = judge(
        [label, box], [label, box + np.float32(0.5)], targets,
        signature=named, questions=questions, split="select",
    )  # fmt: skip

    assert found.drop_of == "MAE of 'box'"
    # (1.5 - 1) / 1, each of three float32 roundings near 2 off by half a unit in the last place at most
    assert found.drop.value == pytest.approx(0.5, abs=1.5 * 2**-22)
    assert (
        found.metric_of == "accuracy"
    )  # the study's metric is the first output's, whatever dropped most
    assert (found.metric.value, found.baseline_metric.value) == (1.0, 1.0)
    assert "MAE of 'box' drops by 0.5" in Goal(max_drop=0.1).shortfall(found)


def test_the_upper_bound_is_that_of_the_output_that_is_known_least(two_heads):
    named, (label, box), targets = two_heads
    questions = choose_metrics(None, [label, box], targets, named)
    alone = judge(
        [label], [label], {"label": targets["label"]},
        signature=Signature(named.inputs, named.outputs[:1]),
        questions={"label": questions["label"]}, split="select",
    )  # fmt: skip

    found = judge(
        [label, box], [label, box + np.float32(0.001)], targets,
        signature=named, questions=questions, split="select",
    )  # fmt: skip

    assert found.drop.value == pytest.approx(0.001, abs=1e-6)
    assert found.drop.high == alone.drop.high > 0.001


def test_why_each_output_is_judged_as_it_is_stands_in_one_line(two_heads):
    named, outputs, targets = two_heads
    told = reasons(choose_metrics(None, outputs, targets, named))
    assert told.startswith("'label' is judged by accuracy, since ")
    assert "; 'box' is judged by MAE, since " in told


def test_a_metric_of_ones_own_is_found_asked_and_refused(tmp_path, monkeypatch, scores):
    (tmp_path / "own_metric.py").write_text(
        "def mean(output, target): return float(output.mean())\n"
        "def broken(output, target): raise KeyError('label')\n"
        "def nothing(output, target): return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before, after, target = scores

    assert judged(before, after, target, "own_metric:mean").metric.value == pytest.approx(
        float(after.mean())
    )
    with pytest.raises(MetricError, match="'own_metric:broken' failed: KeyError: 'label'"):
        judged(before, after, target, "own_metric:broken")
    with pytest.raises(MetricError, match="gave nan, which is not a finite number"):
        judged(before, after, target, "own_metric:nothing")
    with pytest.raises(ParameterError, match="'own_metric:absent' can't be used"):
        user_function("own_metric:absent")


def test_a_metric_that_fails_on_the_candidate_alone_is_the_candidates_failure(
    tmp_path, monkeypatch, scores
):
    (tmp_path / "choosy_metric.py").write_text(
        "def spread(output, target): return 0 * float(output.mean()) / bool(output.std())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before, _, target = scores
    constant = np.ones_like(before)

    with pytest.raises(JudgingError, match="failed: ZeroDivisionError"):
        judged(before, constant, target, "choosy_metric:spread")
    with pytest.raises(MetricError, match="failed: ZeroDivisionError"):
        judged(constant, before, target, "choosy_metric:spread")


OWN = """
import numpy as np
def mse(output, target):
    return float(np.square(output - target).mean())
def relative_mse(output, target):
    return mse(output, target)
def score(output, target):
    return -mse(output, target)
mse.higher_is_better = relative_mse.higher_is_better = False
relative_mse.is_bounded = False
"""


@pytest.mark.parametrize(
    ("name", "drop", "told"),
    [
        ("mse", 9.0 - 4.0, "less is better, and a drop is absolute"),
        ("relative_mse", (9.0 - 4.0) / 4.0, "less is better, and a drop is relative"),
        ("score", 9.0 - 4.0, "more is better, and a drop is absolute"),
    ],
)
def test_a_metric_of_ones_own_says_which_way_is_better(tmp_path, monkeypatch, name, drop, told):
    (tmp_path / "own_error.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    target = np.zeros((50, 1), "float32")
    before, after = target + np.float32(2), target + np.float32(3)

    found = judged(before, after, target, f"own_error:{name}")

    assert found.drop.value == drop  # small whole numbers, which floats hold exactly
    assert found.drop.low <= drop <= found.drop.high
    questions = choose_metrics(
        f"own_error:{name}", [before], {"y": target}, signature(before.shape[1])
    )
    assert told in reasons(questions)


SLOW = """
import time
calls = []
def score(output, target):
    calls.append(1)
    end = time.perf_counter() + 0.06
    while time.perf_counter() < end:
        pass
    return 1.0
"""


def test_a_slow_metric_of_ones_own_is_asked_few_times_and_its_interval_is_told_as_not_known(
    tmp_path, monkeypatch, scores
):
    (tmp_path / "slow_metric.py").write_text(SLOW)
    monkeypatch.syspath_prepend(str(tmp_path))
    before, after, target = scores

    found = judged(before, after, target, "slow_metric:score")

    assert len(user_function("slow_metric:score").__globals__["calls"]) == 4
    assert (found.drop.value, found.drop.low, found.drop.high) == (0.0, -math.inf, math.inf)
    assert Goal(max_drop=0.0).shortfall(found) is None
    told = Goal(max_drop=0.0, confidence=0.95).shortfall(found)
    assert told.startswith("how much slow_metric:score may drop at 95% is not known")


def test_a_metric_without_targets_is_refused(scores):
    before, after, _ = scores
    with pytest.raises(ParameterError, match="needs targets, and the samples have none"):
        judged(before, after, None, "accuracy")


def test_an_unknown_metric_offers_the_nearest(scores):
    before, after, target = scores
    with pytest.raises(UnknownNameError, match="Did you mean 'accuracy'"):
        judged(before, after, target, "acuracy")


def test_targets_that_no_metric_fits_are_refused(scores):
    before, after, _ = scores
    with pytest.raises(ParameterError, match="no metric fits targets of shape"):
        judged(before, after, np.zeros((200, 3)))


def test_a_batch_of_fixed_size_is_filled_up_and_the_filling_thrown_away(litert_of_batch):
    predictor, samples = litert_of_batch(4)
    (output,) = predict_all(predictor, samples)
    assert len(output) == len(samples) == 10
    one_by_one = [predictor.run(np.repeat(x[None], 4, 0))[0][0] for x in samples.inputs["pixels"]]
    np.testing.assert_array_equal(output, np.stack(one_by_one))


def test_a_metric_whose_sums_decide_is_not_asked_for_each_resample():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 3, (200, 64, 64)).astype("uint8")
    before = np.eye(3, dtype="float32")[target]
    after = before.copy()
    after[::7, :9] = after[::7, :9, :, ::-1]
    named = Signature(signature(3).inputs, (TensorSpec("y", (None, 64, 64, 3), "float32"),))
    (question,) = choose_metrics("mean_iou", [before], {"y": target}, named).values()
    asked = []
    counting = replace(
        question, function=lambda *arrays: asked.append(1) or question.function(*arrays)
    )

    found = judge(
        [before],
        [after],
        {"y": target},
        signature=named,
        questions={"y": counting},
        split="select",
    )

    assert len(asked) == 2
    assert 0 < found.drop.low < found.drop.value < found.drop.high


@pytest.mark.parametrize("name", ["mean_iou", "rmse"])
def test_resampled_sums_give_the_interval_that_asking_anew_gives(name):
    rng = np.random.default_rng(2)
    shape = (40, 6, 3)
    before = rng.random(shape).astype("float32")
    after = (before + rng.normal(0, 0.2, shape)).astype("float32")
    target = rng.integers(0, 3, shape[:2]) if name == "mean_iou" else rng.random(shape)
    named = Signature(signature(3).inputs, (TensorSpec("y", (None, 6, 3), "float32"),))
    (question,) = choose_metrics(name, [before], {"y": target}, named).values()
    scale = 1.0 if name == "mean_iou" else question.function(before, target)
    sign = 1.0 if name == "mean_iou" else -1.0

    def drop(chosen):
        was, became = (question.function(a[chosen], target[chosen]) for a in (before, after))
        return sign * (was - became)

    anew = bootstrap_interval(drop, len(before))
    found = judge(
        [before],
        [after],
        {"y": target},
        signature=named,
        questions={"y": question},
        split="select",
    ).drop
    assert (found.value, found.low, found.high) == pytest.approx(
        tuple(end / scale for end in anew)
    )
