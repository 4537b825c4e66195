"""Weights that were clustered share few values at once, and however they are taught after."""

import keras
import numpy as np
import pytest
from keras import layers

from strop.core.errors import InputError, ModelError, ParameterError
from strop.numerics.clustering import INITIALIZATIONS, clusters_of, distinct_values
from strop.train.clustering import Clustering, cluster, keep_clusters
from strop.train.pruning import keep_zeros, prune
from tests.models import bidirectional_lstm, nested, settle, transformer

# What the step is made of is the same where it is compiled, and compiling takes longer than these trainings.
EAGER = {"run_eagerly": True, "jit_compile": False}
COMPILED = {"run_eagerly": False, "jit_compile": False}


def net(optimizer="adam", *, constraint=None, compiled=EAGER):
    """A model of two dense layers, 128 and 64 weights."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu", kernel_constraint=constraint, name="first"),
            layers.Dense(4, name="last"),
        ]
    )
    model.compile(optimizer, "mse", **compiled)
    return model


def drawn(count=64, *, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 8)).astype("float32")
    return x, (x @ random.normal(size=(8, 4))).astype("float32")


def fit(model, *callbacks, x=None, y=None, **given):
    if x is None:
        x, y = drawn()
    settings = {"batch_size": 32, "epochs": 2, "verbose": 0, **given}
    return model.fit(x, y, callbacks=callbacks, **settings)


def kernel(model, layer="first"):
    return np.array(model.get_layer(layer).kernel)


def places(weights):
    return clusters_of(weights).assignment


class Seen(keras.callbacks.Callback):
    """How many values a layer has after each step."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.counts = layer, []

    def on_train_batch_end(self, batch, logs=None):
        self.counts.append(distinct_values(np.array(self.layer.kernel)))


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_at_once_a_kernel_or_each_channel_has_as_many_values_as_asked(initialization, per_channel):
    model = net()
    biases = [np.array(layer.bias) for layer in model.layers]

    found = cluster(model, 5, initialization=initialization, per_channel=per_channel)

    assert found.values == {"first": 5, "last": 5}
    assert found.left_alone == {}
    axes = [1] if per_channel else []
    assert distinct_values(kernel(model), channel_axes=axes) == 5
    for layer, bias in zip(model.layers, biases, strict=True):
        np.testing.assert_array_equal(layer.bias, bias)


def test_weights_take_values_near_to_what_they_were():
    model, before = net(), kernel(net())
    cluster(model, 16)
    # Sixteen even steps over the range would be off by half a step at most.
    assert np.abs(kernel(model) - before).mean() < np.ptp(before) / 32


@pytest.mark.parametrize(
    ("per_channel", "compiled"),
    [(False, EAGER), (True, EAGER), (True, COMPILED), (False, {"jit_compile": True})],
)
def test_in_training_the_values_change_and_not_who_shares_them(per_channel, compiled):
    model = net(compiled=compiled)
    clustering, seen = Clustering(model, 4, per_channel=per_channel), Seen(model.layers[0])
    before = kernel(model)

    fit(model, clustering, seen)

    after = kernel(model)
    assert set(seen.counts) == {distinct_values(before)}
    axes = [1] if per_channel else []
    for one, other in ((before, after), (after, before)):
        together = clusters_of(one, channel_axes=axes)
        for place in range(len(together.centroids)):
            assert len(np.unique(other[together.assignment == place])) == 1
    assert np.abs(after - before).max() > 1e-3
    assert clustering.report().values == {"first": 4, "last": 4}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_of_gradient_descent_moves_each_centroid_by_the_mean_of_its_weights_gradients(
    momentum,
):
    tf = pytest.importorskip("tensorflow")
    x, y = drawn(8)
    model = net(keras.optimizers.SGD(0.1, momentum=momentum))
    clustering = Clustering(model, 3)
    wanted, velocity = kernel(model).astype(float), 0.0
    together = places(wanted)
    steps = []

    class Gradients(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
            steps.append(np.array(tape.gradient(loss, model.layers[0].kernel.value), float))

    fit(model, clustering, Gradients(), x=x, y=y, epochs=3)

    for gradient in steps:
        means = np.bincount(together.ravel(), gradient.ravel()) / np.bincount(together.ravel())
        velocity = momentum * velocity - 0.1 * means[together]
        wanted += velocity
    # Three steps, each of some 60 additions rounded to float32, on numbers below 10.
    np.testing.assert_allclose(kernel(model), wanted, atol=3 * 60 * 10 * 2.0**-24)


def test_values_that_are_not_moved_stay_to_the_bit():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((400,)), layers.Dense(400)])
    model.compile(keras.optimizers.SGD(0.0), "mse", **EAGER)
    clustering = Clustering(
        model, 2
    )  # of 80,000 weights each: their sum divided again is another float
    before = np.array(model.layers[0].kernel)
    model.fit(
        np.ones((8, 400)), np.ones((8, 400)), batch_size=1, verbose=0, callbacks=[clustering]
    )
    np.testing.assert_array_equal(model.layers[0].kernel, before)


@pytest.mark.parametrize("renew_every", [None, 3])
def test_zeros_stay_zeros_and_only_they(renew_every):
    model = net()
    prune(model, 0.6)
    zeros = kernel(model) == 0
    clustering = Clustering(model, 4, renew_every=renew_every)

    fit(model, clustering, epochs=4)

    np.testing.assert_array_equal(kernel(model) == 0, zeros)
    assert clustering.report().values["first"] <= 4


def test_zeros_are_weights_like_others_where_they_are_not_to_be_preserved():
    model = net()
    prune(model, 0.6)
    fit(model, Clustering(model, 4, preserve_sparsity=False))
    assert np.all(kernel(model) != 0)


def test_a_constraint_of_ones_own_is_kept_within_and_given_back():
    own = keras.constraints.NonNeg()
    model = net(constraint=own)
    clustering = Clustering(model, 4)
    fit(model, clustering)
    assert model.layers[0].kernel.constraint is own
    assert np.all(kernel(model) >= 0)
    assert distinct_values(kernel(model)) <= 4


def test_masks_and_clusters_hold_together_and_leave_the_variable_as_it_was():
    model = net()
    prune(model, 0.5)
    zeros = kernel(model) == 0
    clustering = Clustering(model, 4)
    fit(model, keep_zeros(model), clustering)
    np.testing.assert_array_equal(kernel(model) == 0, zeros)
    assert distinct_values(kernel(model)) == 4
    assert model.layers[0].kernel.constraint is None


@pytest.mark.parametrize("order", [1, -1])
def test_masks_and_clusters_can_be_put_on_again_in_any_order(order):
    own = keras.constraints.NonNeg()
    model = net(constraint=own)
    cluster(model, 4)
    for _ in range(2):
        callbacks = [keep_clusters(model), keep_clusters(model)]
        fit(model, *callbacks[::order])
        assert model.layers[0].kernel.constraint is own
    prune(model, 0.5)
    zeros = kernel(model) == 0
    callbacks = [Clustering(model, 4), keep_zeros(model)][::order]
    for _ in range(2):
        fit(model, *callbacks)
        np.testing.assert_array_equal(kernel(model) == 0, zeros)
        assert distinct_values(kernel(model)) <= 4


def test_a_model_that_was_trained_before_is_held_and_free_again_after():
    model = net(compiled=COMPILED)
    fit(model)
    seen = Seen(model.layers[0])
    clustering = Clustering(model, 4)
    fit(model, clustering, seen)
    assert set(seen.counts) == {4}
    fit(model)
    assert distinct_values(kernel(model)) == 128


def test_after_an_interruption_release_gives_the_variables_back():
    class Interruption(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = net()
    clustering = Clustering(model, 4)
    with pytest.raises(KeyboardInterrupt):
        fit(model, clustering, Interruption())
    assert model.layers[0].kernel.constraint is not None
    clustering.release()
    assert model.layers[0].kernel.constraint is None


def test_several_steps_in_one_execution_are_held_too():
    model = net(compiled={**COMPILED, "steps_per_execution": 4})
    seen = Seen(model.layers[0])
    fit(model, Clustering(model, 4, renew_every=4), seen, batch_size=8)
    assert max(seen.counts) <= 4


@pytest.mark.parametrize("optimizer", ["lion", "ema"])
def test_other_optimizers_leave_no_more_values(optimizer):
    if optimizer == "ema":
        optimizer = keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=3)
    model = net(optimizer)
    fit(model, Clustering(model, 4))
    assert distinct_values(kernel(model)) == 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "mixed_bfloat16"])
def test_weights_of_other_types_share_values_too(dtype):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, dtype=dtype)])
    model.compile("sgd", "mse", **EAGER)
    fit(model, Clustering(model, 4))
    assert distinct_values(np.array(model.layers[0].kernel, np.float64)) <= 4


def regression(renew_every):
    """Teach a layer a kernel of three values, from clusters of its first weights; return the last loss."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.5), "mse", **COMPILED)
    x = random.normal(size=(256, 16)).astype("float32")
    y = x @ random.choice([-1.0, 0.5, 2.0], size=(16, 8))
    clustering = Clustering(model, 3, renew_every=renew_every)
    history = model.fit(x, y, batch_size=16, epochs=12, verbose=0, callbacks=[clustering])
    assert distinct_values(np.array(model.layers[0].kernel)) == 3
    return history.history["loss"][-1]


def test_weights_that_belong_elsewhere_change_their_cluster_where_clusters_are_renewed():
    assert regression(renew_every=8) < 1e-3
    assert regression(renew_every=None) > 1


def test_shared_layers_and_models_within_are_clustered_once():
    model = nested()
    found = cluster(model, 4)
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Sequential))
    assert found.values == {f"{inner.name}/{inner.layers[0].name}": 4, model.layers[-1].name: 4}


@pytest.mark.parametrize("build", [transformer, bidirectional_lstm])
def test_layers_within_layers_are_clustered(build):
    model = build()
    found = cluster(model, 8, per_channel=True)
    assert set(found.values.values()) == {8}
    shared = [v for v in model.trainable_variables if len(v.shape) > 1]
    assert len({v.path.rsplit("/", 1)[0] for v in shared}) == len(found.values)


@pytest.mark.parametrize(
    ("layer", "size", "axes"),
    [
        (layers.Conv2D(6, 3), (5, 5, 4), [3]),
        (layers.Conv2DTranspose(6, 3), (5, 5, 4), [2]),
        (layers.DepthwiseConv2D(4), (5, 5, 4), [2, 3]),
        (layers.Dense(6), (40,), [1]),
        (layers.EinsumDense("ab,bcd->acd", (3, 2)), (40,), [1, 2]),
    ],
)
def test_channels_are_those_of_the_output(layer, size, axes):
    model = keras.Sequential([keras.Input(size), layer])
    cluster(model, 7, per_channel=True)
    weights = np.array(layer.weights[0])
    assert distinct_values(weights, channel_axes=axes) == 7
    assert distinct_values(weights) > 7


def test_what_is_excluded_frozen_or_too_small_is_left_alone_and_told():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="stem"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(8, 1, name="frozen", trainable=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="head"),
        ]
    )
    before = {layer.name: layer.get_weights() for layer in model.layers}

    found = cluster(model, 16, per_channel=True, exclude=["head"])

    assert found.values == {"stem": 16}
    assert found.left_alone == {
        "depthwise": "kernel: 9 weights in a channel are fewer than 16 clusters",
        "frozen": "it is frozen (trainable=False)",
        "head": "excluded, as 'head'",
    }
    for name in found.left_alone:
        for was, now in zip(before[name], model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(now, was)


def test_clusters_that_are_there_are_kept_in_later_training():
    model = net()
    prune(model, 0.5)
    cluster(model, 4, exclude=["last"])
    together, zeros = places(kernel(model)), kernel(model) == 0
    before = kernel(model)

    kept = keep_clusters(model)
    fit(model, kept)

    np.testing.assert_array_equal(places(kernel(model)), together)
    np.testing.assert_array_equal(kernel(model) == 0, zeros)
    assert np.abs(kernel(model) - before).max() > 1e-3
    assert kept.report().values == {"first": 4}
    assert kept.left_alone == {"last": "kernel: its weights share no values"}


def test_clusters_of_channels_are_found_and_kept():
    model = keras.Sequential([keras.Input((40,)), layers.Dense(100)])
    model.compile("adam", "mse", **EAGER)
    cluster(model, 4, per_channel=True)
    fit(model, keep_clusters(model), x=np.ones((8, 40)), y=np.ones((8, 100)))
    assert distinct_values(np.array(model.layers[0].kernel), channel_axes=[1]) == 4


def test_weights_put_back_from_other_clusters_are_gone_by():
    """As where training is resumed: a backup has the weights, and not who shared them."""
    other = net()
    fit(other, Clustering(other, 4, renew_every=2))
    model = net()
    clustering = Clustering(model, 4)
    model.set_weights(other.get_weights())
    fit(model, clustering)
    np.testing.assert_array_equal(places(kernel(model)), places(kernel(other)))
    assert not np.array_equal(kernel(model), kernel(other))


def test_the_model_saves_and_loads_as_what_it_is(tmp_path):
    model = settle(net())
    before = model.get_config()
    fit(model, Clustering(model, 4))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert model.get_config() == before
    assert len(model.weights) == 4
    np.testing.assert_array_equal(loaded(drawn()[0]), model(drawn()[0]))


def test_the_same_seed_clusters_alike():
    one, other, third = net(), net(), net()
    cluster(one, 5, seed=3)
    cluster(other, 5, seed=3)
    cluster(third, 5, initialization="random", seed=4)
    np.testing.assert_array_equal(kernel(one), kernel(other))
    assert not np.array_equal(kernel(one), kernel(third))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clusters": 1}, "clusters must be a whole number from 2, not 1"),
        (
            {"initialization": "midpoint", "renew_every": 0},
            "initialization must be one of 'kmeans_plus_plus', 'linear', 'density', 'random', not 'midpoint'\n"
            "renew_every must be at least 1 step, not 0",
        ),
    ],
)
def test_settings_that_can_not_be_are_refused_all_at_once(settings, said):
    with pytest.raises(ParameterError) as refused:
        Clustering(net(), **settings)
    assert str(refused.value) == said


def test_weights_that_are_no_numbers_are_refused_before_any_is_changed():
    model = net()
    before = kernel(model)
    weights = kernel(model, "last")
    weights[0, 0] = np.nan
    model.get_layer("last").kernel.assign(weights)
    with pytest.raises(ModelError, match="the layer 'last' are NaN or infinite"):
        cluster(model)
    np.testing.assert_array_equal(kernel(model), before)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(InputError, match="is not built"):
        cluster(keras.Sequential([layers.Dense(3)]))


def test_training_that_diverges_ends_without_an_error_of_ours():
    model = net(keras.optimizers.SGD(1e30))
    fit(model, Clustering(model, 4, renew_every=1))
    assert not np.isfinite(kernel(model)).all()
