"""What holds weights within the step of training: in any order, around a constraint of the user's own, and gone after."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from strop.numerics.clustering import distinct_values
from strop.numerics.schedules import ConstantSparsity
from strop.train.clustering import Clustering, cluster, keep_clusters
from strop.train.pruning import Pruning, keep_zeros, prune


def net(constraint):
    keras.utils.set_random_seed(0)
    dense = layers.Dense(16, kernel_constraint=constraint, name="dense")
    model = keras.Sequential([keras.Input((8,)), dense])
    model.compile("adam", "mse", jit_compile=False)
    return model


def fit(model, callbacks):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 8)), random.normal(size=(64, 16))
    model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)


KINDS = {
    "pruning": lambda model: Pruning(model, ConstantSparsity(0.5)),
    "zeros": keep_zeros,
    "clustering": lambda model: Clustering(model, 4),
    "clusters": keep_clusters,
}


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["zeros", "clustering", "clusters"]))
)
def test_variables_have_their_own_constraint_back_whatever_the_order(order):
    own = keras.constraints.NonNeg()
    model = net(own)
    kernel = model.get_layer("dense").kernel
    prune(model, 0.5)
    zeros = np.array(kernel) == 0
    callbacks = [KINDS[name](model) for name in order]
    for _ in range(2):
        fit(model, callbacks)
        assert kernel.constraint is own
        assert np.all(np.array(kernel)[zeros] == 0)
        assert distinct_values(np.array(kernel)) <= 4
        assert np.all(np.array(kernel) >= 0)


@pytest.mark.parametrize("name", KINDS)
def test_one_that_is_not_released_after_an_interruption_goes_on(name):
    class Interruption(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = net(None)
    kernel = model.get_layer("dense").kernel
    cluster(model, 4)
    callback = KINDS[name](model)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Interruption()])
    held = kernel.constraint
    assert held is not None
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Interruption()])
    assert kernel.constraint is held  # and not once more around itself
    fit(model, [callback])
    assert kernel.constraint is None
