"""Weights that pruning makes zero are the right ones, and stay zero as long as they are to."""

import statistics
import time

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.errors import InputError, ModelError, ParameterError
from strop.numerics.schedules import ConstantSparsity, PolynomialDecay
from strop.numerics.sparsity import Block, NOfM
from strop.train.kernels import sparsity_of
from strop.train.pruning import Pruning, keep_zeros, prune
from tests.models import mlp, settle


def net(*, constraint=None, optimizer="adam", **compiled):
    """A model of two dense layers, 128 and 64 weights, compiled."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu", kernel_constraint=constraint, name="first"),
            layers.Dense(4, name="last"),
        ]
    )
    model.compile(optimizer, "mse", jit_compile=False, **compiled)
    return model


def drawn(count=64, *, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 8)).astype("float32")
    return x, (x @ random.normal(size=(8, 4))).astype("float32")


def fit(model, *callbacks, epochs=2, **given):
    return model.fit(
        *drawn(), batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **given
    )


def kernel(model, layer="first"):
    return np.array(model.get_layer(layer).kernel)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A model half of whose weights were dropped from the first step on, with what it was and what became of it."""
    folder = tmp_path_factory.mktemp("pruned")
    model = net()
    before = kernel(model)
    during = keras.callbacks.ModelCheckpoint(folder / "during.keras")
    losses = fit(model, Pruning(model, ConstantSparsity(0.5)), during, epochs=6).history["loss"]
    model.save(folder / "after.keras")
    return model, before, losses, folder


class Seen(keras.callbacks.Callback):
    """What share of a layer is zero after each step."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.shares = layer, []

    def on_train_batch_end(self, batch, logs=None):
        self.shares.append(float(np.mean(np.array(self.layer.kernel) == 0)))


def of(*given):
    """A model of these layers, one after the other."""
    return keras.Sequential(list(given))


def test_a_model_without_weights_is_told_how_it_gets_them():
    model = keras.Sequential([layers.Dense(3)], name="empty")
    with pytest.raises(ModelError) as caught:
        prune(model)
    assert str(caught.value) == (
        "the model 'empty' is not built: it has no weights to prune yet.\n"
        "Call it once on a batch of real inputs.\n"
        "  model(x[:1])"
    )


def test_at_once_each_layer_loses_its_share():
    model = mlp()
    biases = [np.array(layer.bias) for layer in model.layers]
    done = prune(model, 0.75)
    assert list(done.sparsity.values()) == [0.75] * 3
    assert done.sparsity == sparsity_of(model)
    for before, layer in zip(biases, model.layers, strict=True):
        np.testing.assert_array_equal(before, np.array(layer.bias))


def test_at_once_the_largest_weights_stay_as_they_are():
    model = net()
    before = kernel(model)
    prune(model, 0.5)
    after = kernel(model)
    stays = after != 0
    assert stays.mean() == 0.5
    np.testing.assert_array_equal(before[stays], after[stays])
    assert np.abs(before[stays]).min() >= np.abs(before[~stays]).max()


def test_layers_ranked_together_lose_different_shares():
    model = net()
    model.get_layer("first").kernel.assign(model.get_layer("first").kernel * 10)
    done = prune(model, 0.25, ranking="global")
    # A quarter of 192 weights is 48, of which the layer of small weights has nearly all.
    assert done.sparsity["first"] * 128 + done.sparsity["last"] * 64 == pytest.approx(48)
    assert done.sparsity["last"] > 0.5 > done.sparsity["first"]


@pytest.mark.parametrize("ranking", ["layer", "global", "layer_adaptive", "random"])
def test_no_layer_loses_its_last_weight(ranking):
    model = net()
    model.get_layer("last").kernel.assign(model.get_layer("last").kernel / 1000)
    prune(model, 0.999, ranking=ranking)
    assert [np.sum(kernel(model, layer) != 0) for layer in ("first", "last")] == [1, 1]


def test_a_random_ranking_goes_by_its_seed():
    found = []
    for seed in (0, 0, 1):
        model = net()
        assert set(prune(model, 0.5, ranking="random", seed=seed).sparsity.values()) == {0.5}
        found.append(kernel(model))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.any(found[0] != found[2])


def test_groups_lie_along_input_channels_and_layers_that_have_none_are_listed():
    model = settle(
        of(
            keras.Input((9, 9, 3)),
            layers.Conv2D(8, 3, name="stem"),
            layers.Conv2D(6, 3, name="body"),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        )
    )
    done = prune(model, pattern=NOfM(2, 4))
    assert done.sparsity == {"body": 0.5}
    assert done.left_alone == {
        "stem": "kernel: 4 does not divide the 3 weights along axis 2, which 2:4 is for",
        "head": "kernel: 4 does not divide the 150 weights along axis 0, which 2:4 is for",
    }
    groups = np.moveaxis(np.array(model.get_layer("body").kernel) != 0, 2, -1).reshape(-1, 4)
    assert np.all(groups.sum(-1) == 2)


def test_a_lookup_has_no_groups():
    done = prune(of(keras.Input((7,)), layers.Embedding(8, 4, name="words")), pattern=NOfM(2, 4))
    assert done.sparsity == {}
    assert "sums over none" in done.left_alone["words"]


def test_blocks_go_whole():
    model = net()
    prune(model, 0.5, pattern=Block((4, 4)))
    blocks = (kernel(model) != 0).reshape(2, 4, 4, 4).any(axis=(1, 3))
    assert blocks.sum() == 4
    assert sparsity_of(model) == {"first": 0.5, "last": 0.5}


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"sparsity": 1.0}, "expected a sparsity from 0 to below 1, got 1.0"),
        (
            {"ranking": "best"},
            "ranking must be one of 'layer', 'global', 'layer_adaptive', 'random', not 'best'",
        ),
        (
            {"pattern": NOfM(2, 4), "ranking": "global"},
            "a global ranking has no say in 2:4: as many weights go in every group",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_changed(given, wrong):
    model = net()
    before = kernel(model)
    with pytest.raises(ParameterError) as caught:
        prune(model, **given)
    assert str(caught.value) == wrong
    np.testing.assert_array_equal(before, kernel(model))


def test_a_schedule_that_stops_short_of_its_pattern_is_refused():
    with pytest.raises(ParameterError) as caught:
        Pruning(net(), ConstantSparsity(0.5), pattern=NOfM(1, 4))
    assert str(caught.value) == "the schedule ends at a sparsity of 0.5, and 1:4 comes to 0.75"


def test_weights_that_are_no_numbers_are_not_pruned():
    model = net()
    broken = kernel(model)
    broken[0, 0] = np.nan
    model.get_layer("first").kernel.assign(broken)
    with pytest.raises(ModelError, match="some of the model's weights are NaN"):
        prune(model)


def test_training_follows_the_schedule_step_by_step():
    model = net()
    seen = Seen(model.get_layer("first"))
    # 8 steps an epoch; straight from 0 to 0.5 in 10 steps, looked at every 4.
    pruning = Pruning(model, PolynomialDecay(0.0, 0.5, 2, 12, power=1, frequency=4))
    fit(model, seen, pruning)
    assert seen.shares == [0.0] * 6 + [round(0.2 * 128) / 128] * 4 + [round(0.4 * 128) / 128] * 2 + [0.5] * 4  # fmt: skip
    assert pruning.is_complete
    assert pruning.report().sparsity == {"first": 0.5, "last": 0.5} == sparsity_of(model)


def test_what_stays_goes_on_learning(learnt):
    model, before, losses, _ = learnt
    assert losses == sorted(losses, reverse=True)
    assert np.mean(kernel(model) != before) > 0.9


def test_steps_are_counted_where_several_are_run_at_once():
    model = net(steps_per_execution=3)
    pruning = Pruning(model, PolynomialDecay(0.0, 0.5, 0, 13, frequency=5))
    fit(model, pruning)
    assert pruning.is_complete
    assert sparsity_of(model) == {"first": 0.5, "last": 0.5}


def test_a_step_compiled_before_is_compiled_again_and_again_after():
    model = net()
    seen = Seen(model.get_layer("first"))
    fit(model, seen)
    fit(model, seen, Pruning(model, ConstantSparsity(0.5)))
    assert seen.shares == [0.0] * 16 + [0.5] * 16
    fit(model)
    assert sparsity_of(model)["first"] < 0.1


def test_steps_go_on_counting_over_several_trainings():
    model = net()
    pruning = Pruning(model, PolynomialDecay(0.0, 0.5, 0, 12, power=1, frequency=4))
    fit(model, pruning, epochs=1)
    assert sparsity_of(model)["first"] == pytest.approx(4 / 12 * 0.5, abs=1 / 128)
    assert not pruning.is_complete
    fit(model, pruning, epochs=1)
    assert sparsity_of(model)["first"] == 0.5


def test_a_training_that_is_taken_up_again_goes_on_where_it_stood():
    schedule = PolynomialDecay(0.0, 0.5, 0, 12, power=1, frequency=6)
    first, second = net(), net()
    fit(first, Pruning(first, schedule), epochs=1)
    second.set_weights(first.get_weights())
    seen = Seen(second.get_layer("first"))
    fit(second, seen, Pruning(second, schedule), initial_epoch=1)
    # From step 8 of 12, and not from the first again.
    assert seen.shares[0] == pytest.approx(8 / 12 * 0.5, abs=1 / 128)
    assert seen.shares[-1] == 0.5


def test_of_the_kernels_found_only_those_that_are_meant_are_pruned():
    model = net()
    fit(model, Pruning(model, ConstantSparsity(0.5), only=lambda kernel: kernel.layer == "last"))
    assert sparsity_of(model) == {"first": 0.0, "last": 0.5}


def test_a_loop_of_ones_own_goes_from_step_to_step():
    model = net()
    pruning = Pruning(model, PolynomialDecay(0.0, 0.5, 0, 4, power=1, frequency=2))
    pruning.on_train_begin()
    shares = []
    for step in (0, 1, 2, 5):  # of which the last passes the schedule's end
        pruning.advance_to(step)
        shares.append(sparsity_of(model)["first"])
    pruning.on_train_end()
    assert shares == [0.0, 0.0, 0.25, 0.5]


def test_zeros_survive_averages_of_weights_and_momentum():
    average = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, use_ema=True, ema_momentum=0.9)  # fmt: skip
    model = net(optimizer=average)
    fit(model, Pruning(model, PolynomialDecay(0.0, 0.5, 0, 12, frequency=4)))
    assert sparsity_of(model)["first"] == 0.5


def test_completing_drops_what_restored_weights_have_too_much():
    model = net()
    dense = model.get_weights()
    pruning = Pruning(model, ConstantSparsity(0.5))
    fit(model, pruning, epochs=1)
    model.set_weights(dense)
    pruning.complete()
    assert set(sparsity_of(model).values()) == {0.5}
    kept = kernel(model) != 0
    np.testing.assert_array_equal(kernel(model)[kept], dense[0][kept])


def test_dropped_weights_are_plain_zeros_without_a_sign(learnt):
    weights = kernel(learnt[0])
    assert np.mean(weights == 0) == 0.5
    assert not np.signbit(weights[weights == 0]).any()


def test_the_users_constraint_holds_within_and_is_given_back():
    model = net(constraint=keras.constraints.MaxNorm(0.5, axis=0))
    own = model.get_layer("first").kernel.constraint
    fit(model, Pruning(model, ConstantSparsity(0.5)))
    weights = kernel(model)
    assert np.mean(weights == 0) == 0.5
    # One rounding for each of eight squares, their sum's root and the quotient.
    assert np.linalg.norm(weights, axis=0).max() <= 0.5 * (1 + 16 * 2**-24)
    assert model.get_layer("first").kernel.constraint is own
    assert model.get_layer("last").kernel.constraint is None


def test_a_constraint_that_moves_zeros_may_not_move_these():
    class AddOne(keras.constraints.Constraint):
        def __call__(self, w):
            return w + 1.0

    model = net(constraint=AddOne())
    seen = Seen(model.get_layer("first"))
    fit(model, seen, Pruning(model, ConstantSparsity(0.5)), epochs=1)
    assert seen.shares == [0.5] * 8


def test_zeros_that_are_there_are_kept_while_others_are_added():
    model = net()
    prune(model, 0.5)
    zero, seen = kernel(model) == 0, Seen(model.get_layer("last"))
    more = Pruning(model, ConstantSparsity(0.75), exclude=["last"])
    fit(model, seen, keep_zeros(model), more)
    assert seen.shares == [0.5] * 16
    assert np.all(kernel(model)[zero] == 0)
    assert sparsity_of(model) == {"first": 0.75, "last": 0.5}
    for layer in model.layers:
        assert layer.kernel.constraint is None
    fit(model)
    # But for units that answer to no sample any more.
    assert max(sparsity_of(model).values()) < 0.1


def test_an_interrupted_training_may_be_taken_up_or_let_go():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = net()
    pruning = Pruning(model, ConstantSparsity(0.5))
    with pytest.raises(KeyboardInterrupt):
        fit(model, pruning, Interrupt())
    seen = Seen(model.get_layer("first"))
    fit(model, seen, pruning)
    assert seen.shares == [0.5] * 16
    pruning.on_train_begin()
    assert model.get_layer("first").kernel.constraint is not None
    pruning.release()
    assert model.get_layer("first").kernel.constraint is None


def test_a_loop_of_ones_own_tells_the_steps():
    import tensorflow as tf

    model = net()
    pruning = Pruning(model, ConstantSparsity(0.5, begin=2))
    optimizer = keras.optimizers.Adam()
    x, y = drawn()
    shares = []
    pruning.on_train_begin()
    for step in range(4):
        pruning.update(step)
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(x) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        shares.append(sparsity_of(model)["first"])
    pruning.on_train_end()
    assert shares == [0.0, 0.0, 0.5, 0.5]


def test_a_model_within_the_trained_one_is_pruned_alone():
    whole = keras.Sequential([keras.Input((8,)), net(), layers.Dense(4, name="after")])
    whole.compile("adam", "mse", jit_compile=False)
    inner = whole.layers[0]
    fit(whole, Pruning(inner, ConstantSparsity(0.5)))
    assert sparsity_of(inner) == {"first": 0.5, "last": 0.5}
    assert sparsity_of(whole)["after"] == 0.0


def test_while_training_and_after_the_model_is_what_it_was(learnt):
    model, _, _, folder = learnt
    x, _ = drawn()
    during, after = (keras.models.load_model(folder / f"{n}.keras") for n in ("during", "after"))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert [len(m.weights) for m in (during, after, clone)] == [4, 4, 4]
    assert sparsity_of(during) == sparsity_of(after) == {"first": 0.5, "last": 0.5}
    for same in (after, clone):
        np.testing.assert_array_equal(model(x), same(x))


def test_recurrent_kernels_are_kept_zero_in_training():
    keras.utils.set_random_seed(0)
    model = of(keras.Input((2, 8)), layers.Bidirectional(layers.GRU(4)), layers.Dense(2))
    model.compile("adam", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(16, 2, 8))
    hook = Pruning(model, ConstantSparsity(0.5))
    model.fit(x, np.ones((16, 2)), batch_size=8, epochs=1, verbose=0, callbacks=[hook])
    assert list(sparsity_of(model).values()) == [0.5] * 3


def test_with_half_precision_the_weights_behind_are_pruned():
    keras.utils.set_random_seed(0)
    dense = layers.Dense(4, dtype="mixed_float16", name="half")
    model = of(keras.Input((8,)), dense)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)), "mse", jit_compile=False)  # fmt: skip
    seen = Seen(dense)
    fit(model, seen, Pruning(model, ConstantSparsity(0.5)))
    assert seen.shares == [0.5] * 16


def test_with_jax_it_says_that_masks_could_not_change(monkeypatch):
    model = net()
    pruning = Pruning(model, ConstantSparsity(0.5))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError) as caught:
        pruning.on_train_begin()
    assert str(caught.value) == (
        "masks can't be changed in a step that JAX has compiled.\n"
        "They can with TensorFlow beneath Keras.\n"
        "  export KERAS_BACKEND=tensorflow"
    )


@pytest.mark.slow
def test_an_epoch_takes_hardly_longer():
    keras.utils.set_random_seed(0)
    model = of(
        keras.Input((16, 16, 3)),
        *(layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(4)),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10),
    )
    model.compile("adam", "mse", jit_compile=False)
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(1024, *shape)).astype("float32") for shape in ((16, 16, 3), (10,)))
    times = []

    class Clock(keras.callbacks.Callback):
        # The processor's time and not the clock's, which other processes have a say in.
        def on_epoch_begin(self, epoch, logs=None):
            self.begun = time.process_time()

        def on_epoch_end(self, epoch, logs=None):
            times[-1].append(time.process_time() - self.begun)

    def seconds(*callbacks):
        """Of the quickest of some epochs; the first compiles."""
        times.append([])
        model.fit(x, y, batch_size=64, epochs=5, verbose=0, callbacks=[*callbacks, Clock()])
        return min(times[-1][1:])

    ratios = []
    for _ in range(3):
        # 80 steps; masks are chosen 6 times.
        pruning = Pruning(model, PolynomialDecay(0.0, 0.8, 0, 75, frequency=15))
        plain = seconds()
        ratios.append(seconds(pruning) / plain)
    assert statistics.median(ratios) <= 1.1, ratios
