"""Layers too small to pay for ranges at each call stay in float, and are listed."""

import keras
import numpy as np
import pytest

from strop.core import registry
from strop.core.model import Form
from strop.graph.litert_quantizing import layers_of
from strop.graph.quiet import quiet
from tests.passes.convert.conftest import Workshop


def named(name, **settings):
    return registry.passes.get(name)(**settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A convolution of 72 weights before one of 2,304."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu", name="small"),
            keras.layers.Conv2D(32, 3, name="large"),
        ]
    )
    workshop = Workshop(tmp_path_factory.mktemp("dynamic"))
    with quiet():
        steps = named("convert.graph_def"), named("convert.litert", batch=1)
        return workshop, workshop.apply(workshop.keras(model), *steps)


@pytest.mark.parametrize(("smallest", "in_float"), [(1024, 1), (0, 0), (2304, 1)])
def test_a_layer_with_fewer_weights_stays_in_float_and_is_listed(made, smallest, in_float):
    workshop, model = made
    with quiet():
        found = workshop.apply(model, named("quantize.litert_dynamic", smallest=smallest))
    assert sum(is_float for _, is_float in layers_of(found.path)) == in_float
    left = found.facts["left_in_float"]
    assert len(left) == in_float
    for name, reason in left.items():
        assert "small" in name
        assert f"fewer than {smallest} weights" in reason
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype("float32")
    (before,), (after,) = (workshop.run(m, "litert", [x]) for m in (model, found))
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()
    assert found.form is Form.LITERT
