"""Watched trainings: whose weights are kept, when it ends, and what is told meanwhile."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from strop.core.samples import Samples
from strop.graph.keras_models import signature_of
from strop.train.fine_tuning import FineTuning, fine_tune
from tests.directions import classes, drawn, net, share_right


def samples():
    x = drawn()
    return Samples({"x": x}, {"y": classes(x)})


def taught(model, samples, settings=None, **given):
    settings = settings or FineTuning(epochs=6, batch_size=32, learning_rate=0.02)
    return fine_tune(model, samples, signature_of(model), settings, **given)


def test_the_weights_that_did_best_are_kept():
    student = net()
    settings = FineTuning(epochs=8, batch_size=32, learning_rate=0.5, patience=2)
    found = taught(student, samples(), settings)
    assert found.losses[found.best] == min(found.losses)
    held_out = drawn()[-40:]
    now = keras.losses.sparse_categorical_crossentropy(classes(held_out), student(held_out))
    assert float(keras.ops.mean(now)) == pytest.approx(min(found.losses), rel=1e-4)


def test_weights_that_are_no_numbers_are_not_kept_though_the_loss_is_one():
    class Unheard(keras.layers.Layer):
        """Gives what it is given, whatever its weight is: so do kernels that make numbers of NaN."""

        def build(self, shape):
            self.weight = self.add_weight(name="weight", shape=(), trainable=False)
            self.built = True

        def call(self, x):
            return x

    class Spoiling(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                unheard.weight.assign(np.nan)

    keras.utils.set_random_seed(0)
    unheard = Unheard(name="unheard")
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax", name="y")(unheard(x)))
    found = taught(model, samples(), callbacks=[Spoiling()])
    assert found.has_diverged
    assert len(found.losses) == 2
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


class Upset(keras.callbacks.Callback):
    """Spoils all epochs but the first and the last, as high rates do at the beginning."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] += 0 < epoch < self.params["epochs"] - 1


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"learning_rate": 0.02}, 9),  # which falls: the end is what counts
        ({"learning_rate": None}, 6),
        ({"learning_rate": 0.02, "patience": 2}, 3),
    ],
)
def test_a_rate_that_falls_is_waited_for(settings, epochs):
    settings = FineTuning(epochs=9, batch_size=32, **settings)
    found = taught(net(), samples(), settings, callbacks=[Upset()])
    assert len(found.losses) == epochs


def test_epochs_in_which_the_model_is_still_being_changed_are_not_kept():
    found = taught(net(), samples(), keep_from=5)
    assert found.best == 5


def test_it_ends_where_it_is_enough():
    asked = []
    found = taught(net(), samples(), is_enough=lambda: asked.append(1) or len(asked) == 2)
    assert (len(found.losses), found.best) == (2, 1)


def test_training_that_diverges_is_ended_and_leaves_the_model_as_it_was():
    model, x = net(last=None, outputs=1), drawn()
    model.compile(optimizer=keras.optimizers.SGD(1e12), loss="mean_squared_error")
    before = model.get_weights()
    found = taught(model, Samples({"x": x}, {"y": x[:, :1]}), FineTuning(epochs=3))
    assert found.has_diverged
    assert found.best is None
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_the_best_weights_of_before_an_interruption_are_kept(tmp_path):
    class Spoiling(keras.callbacks.Callback):
        """Interrupts after the third epoch; what comes after is spoilt."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3 and not (tmp_path / "interrupted").exists():
                (tmp_path / "interrupted").touch()
                raise KeyboardInterrupt
            if epoch >= 3:
                for weight in self.model.trainable_weights:
                    weight.assign(weight * 0)

    given = {"backup": tmp_path / "b", "callbacks": [Spoiling()]}
    with pytest.raises(KeyboardInterrupt):
        taught(net(), samples(), **given)
    again, told = net(seed=5), []
    found = taught(again, samples(), report=lambda share, note: told.append(share), **given)
    assert found.best == 2
    assert share_right(again, drawn(seed=1)) > 0.8
    assert told[0] > 0.5  # three epochs of six were done before


def test_best_weights_in_bfloat16_are_found_again(tmp_path):
    class Interruption(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                raise KeyboardInterrupt

    def half():
        keras.utils.set_random_seed(1)
        dense = keras.layers.Dense(3, activation="softmax", name="y", dtype="bfloat16")
        model = keras.Sequential([keras.Input((4,), name="x", dtype="bfloat16"), dense])
        model.compile(keras.optimizers.SGD(), "sparse_categorical_crossentropy")
        return model

    settings = FineTuning(epochs=6, batch_size=32, learning_rate=0.5)
    with pytest.raises(KeyboardInterrupt):
        taught(half(), samples(), settings, backup=tmp_path, callbacks=[Interruption()])
    again = half()
    assert share_right(again, drawn(seed=1)) < 0.6
    taught(again, samples(), replace(settings, epochs=4), backup=tmp_path)  # all done before
    assert share_right(again, drawn(seed=1)) > 0.8


def test_how_far_it_is_is_told(monkeypatch):
    monkeypatch.setattr("strop.train.watch.SECONDS_A_LOOK", 0.0)
    told = []
    taught(net(), samples(), report=lambda share, note: told.append((share, note)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    # The first step is compiled while it runs, and says nothing of the others.
    assert told[0][1] == "training"
    assert "s left" in told[1][1]
