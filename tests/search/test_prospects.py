"""What the trials so far say of those to come."""

from pathlib import Path

import pytest

from strop.core.contracts import Effort
from strop.core.evaluation import Evaluation, Fidelity, Goal, Measurement
from strop.core.model import Form
from strop.core.recipe import Recipe, Step
from strop.engine.context import Bench
from strop.engine.ledger import Trial
from strop.engine.running import Runner
from strop.search.prospects import Prospects
from strop.search.space import Space
from strop.search.trials import Trials

BATCH = 32
FLOAT = (Step("convert.graph_def"), Step("convert.onnx", {"batch": BATCH}))
INTEGER = (*FLOAT, Step("quantize.onnx_static"))
WAY = (Step("convert.graph_def"), Step("convert.openvino"))


def on(steps=FLOAT, runtime="onnxruntime", **settings):
    return Recipe(steps, runtime, {"threads": 2, **settings})


def prospects(*measured, effort=Effort.STANDARD, minimize="latency"):
    """What pairs of a recipe and its milliseconds a call say."""
    goal = Goal(minimize=minimize, batch_sizes=(BATCH,))
    bench = Bench(Path("splits"), Path("answers"), goal)
    trials = Trials(
        Runner(None, None, None, bench, ""), None, effort, Recipe((), "tensorflow"), print
    )
    kept = Fidelity(Measurement.exact(0.0, ""), "accuracy", None, None, (), 100, "select")
    for recipe, ms in measured:
        figures = {
            f"latency_p50@{BATCH}": Measurement.exact(ms, "ms"),
            f"throughput@{BATCH}": Measurement.exact(1e3 * BATCH / ms, "1/s"),
            "size": Measurement.exact(1e6, "bytes"),
        }
        trials.known[str(recipe)] = Trial(
            str(recipe), recipe, "done", "", Evaluation(figures, kept)
        )
    known = {"cores": 2, "batch": BATCH, "first_batch": BATCH, "safe_weight_bits": 8}
    return Prospects(trials, Space(Form.KERAS, effort, known))


SLOWER_WITH_ONE = ((on(), 100.0), (on(threads=1), 190.0))


@pytest.mark.parametrize("minimize", ["latency", "throughput"])
def test_a_setting_that_lost_with_one_model_is_not_tried_with_the_next(minimize):
    found = prospects(*SLOWER_WITH_ONE, (on(INTEGER), 50.0), minimize=minimize)
    why = found.without(on(INTEGER, threads=1))
    assert "threads=1 takes 1.90 times as long in ONNX Runtime" in why
    assert "1.00 times the best" in why


def test_a_model_behind_the_best_is_given_the_settings_that_may_bring_it_there():
    gained = ((on(), 100.0), (on(graph_optimization="extended"), 80.0))
    near, far = (on(INTEGER), 60.0), (on(INTEGER), 70.0)
    best = (on(WAY, "openvino"), 50.0)
    wanted = on(INTEGER, graph_optimization="extended")
    assert prospects(*gained, near, best).without(wanted) == ""
    assert "1.40 times the best" in prospects(*gained, far, best).without(wanted)


def test_settings_lose_together_what_each_loses():
    extended = (on(graph_optimization="extended"), 110.0)
    both = on(threads=1, graph_optimization="extended")
    assert "takes 2.09 times" in prospects(*SLOWER_WITH_ONE, extended).without(both)
    assert prospects((on(), 100.0), extended).without(both) == ""  # of one thread nothing is known


def test_what_a_setting_did_with_the_model_itself_counts_alone():
    alone = (on(INTEGER), 50.0), (on(INTEGER, graph_optimization="extended"), 60.0)
    elsewhere = (on(), 100.0), (on(graph_optimization="extended"), 50.0)
    both = on(INTEGER, threads=1, graph_optimization="extended")
    threads = (on(INTEGER, threads=1), 95.0)
    assert "takes 2.28 times" in prospects(*alone, *elsewhere, threads).without(both)


def of(size, steps):
    """Steps that fix the batch, at another size."""
    return tuple(Step(s.name, {"batch": size}) if s.settings else s for s in steps)


def test_parts_of_a_batch_are_weighed_against_the_model_for_the_whole():
    tried = (on(), 60.0), (on(of(2, FLOAT), micro_batch=2), 58.8)
    other, best = (on(INTEGER), 54.0), (on(WAY, "openvino"), 50.0)
    assert "micro_batch=2 takes 0.98" in prospects(*tried, other, best).without(
        on(of(2, INTEGER), micro_batch=2)
    )
    assert prospects(*tried, other, best).without(on(of(16, INTEGER), micro_batch=16)) == ""


@pytest.mark.parametrize(("milliseconds", "said"), [(54.0, ""), (58.0, "1.16 times the best")])
def test_a_model_behind_the_best_is_not_made_anew_for_parts_of_a_batch(milliseconds, said):
    found = prospects((on(), milliseconds), (on(WAY, "openvino"), 50.0))
    assert said in found.without(on(of(16, FLOAT), micro_batch=16))
    assert bool(found.without(on(of(16, FLOAT), micro_batch=16))) == bool(said)


def test_one_way_of_compiling_tells_of_the_other():
    tensorflow = Recipe((), "tensorflow")
    tried = (tensorflow, 100.0), (Recipe((), "tensorflow", {"jit": "xla"}), 110.0)
    auto = Recipe((), "tensorflow", {"jit": "auto"})
    assert "jit=auto takes 1.10" in prospects(*tried, (on(), 90.0)).without(auto)
    frozen = Recipe(FLOAT[:1], "tensorflow")
    other = Recipe(FLOAT[:1], "tensorflow", {"jit": "auto"})
    assert "jit=auto takes 1.10" in prospects(*tried, (frozen, 95.0), (on(), 90.0)).without(other)
    assert prospects(tried[0], (on(), 90.0)).without(auto) == ""


def test_fewer_samples_a_part_are_not_tried_where_more_were_slower_than_the_whole():
    tried = (on(WAY, "openvino"), 50.0), (on(WAY, "openvino", micro_batch=16), 60.0)
    assert "micro_batch=2 takes 1.20" in prospects(*tried).without(
        on(WAY, "openvino", micro_batch=2)
    )


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(100.0, "reads 0.01 GB a second"), (51.0, ""), (0.2, "")],
)
def test_smaller_weights_are_not_tried_where_they_are_not_waited_for(milliseconds, said):
    best = (on(INTEGER), min(50.0, milliseconds))
    found = prospects((on(WAY, "openvino"), milliseconds), best)
    smaller = on((*WAY, Step("quantize.openvino_weights")), "openvino")
    assert said in found.without(smaller)
    assert bool(said) == bool(found.without(smaller))
    assert found.without(on((*WAY, Step("quantize.openvino_static")), "openvino")) == ""


@pytest.mark.parametrize(
    ("factor", "effort", "minimize"),
    [
        (0.01, Effort.STANDARD, "latency"),  # short calls: what threads cost decides
        (1.0, Effort.THOROUGH, "latency"),  # who has time tries all
        (1.0, Effort.STANDARD, "size"),
    ],
)
def test_all_settings_are_tried_where_others_tell_nothing(factor, effort, minimize):
    measured = [(recipe, ms * factor) for recipe, ms in (*SLOWER_WITH_ONE, (on(INTEGER), 50.0))]
    assert (
        prospects(*measured, effort=effort, minimize=minimize).without(on(INTEGER, threads=1))
        == ""
    )


def test_tunings_wait_where_calls_are_long():
    found = prospects((on(), 100.0), (on(INTEGER), 2.0))
    assert found.may_wait(on(threads=1))
    assert found.may_wait(on(threads=1, graph_optimization="extended"))
    assert found.may_wait(on(graph_optimization="extended"))
    assert not found.may_wait(on(WAY, "openvino", precision="bf16"))
    assert not found.may_wait(on(INTEGER, threads=1))
    assert not found.may_wait(on(WAY, "openvino", threads=1))  # nothing is known of it
