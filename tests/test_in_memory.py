"""A model in memory, of several inputs and outputs, called with dicts: README's own way in Python."""

import numpy as np
import pytest

import strop
from strop.graph.quiet import quiet
from tests.models import two_in_two_out

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    with quiet():
        return two_in_two_out()


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(0)
    return {
        "wide": random.standard_normal((80, 8)).astype(np.float32),
        "deep": random.integers(0, 50, (80, 6)).astype(np.int32),
    }


@pytest.fixture(scope="module")
def result(model, samples, tmp_path_factory):
    request = strop.Request(effort="quick", runtimes=("litert",))
    return strop.optimize(
        model, samples, request=request, output=tmp_path_factory.mktemp("memory") / "out"
    )


def test_the_winner_answers_as_the_model_does(model, samples, result):
    with quiet():
        expected = {
            name: np.asarray(out) for name, out in model.predict(samples, verbose=0).items()
        }
    found = result.best.predictor()(samples)
    assert set(found) == set(expected)
    for name, answer in expected.items():
        assert np.abs(found[name] - answer).max() < 0.05 * np.abs(answer).max()


def test_the_result_shows_itself(result):
    assert "litert" in result.report()
    assert "<iframe" in result._repr_html_()
    assert result.frontier


def test_another_model_that_keras_calls_alike_keeps_out_of_its_folder(result, model):
    import keras

    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name=model.name)
    with pytest.raises(strop.StropError, match="holds the results of another model"):
        strop.optimize(other, output=result.folder)
