"""What TensorFlow's clustering guides do, done with strop's names, to the end."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

import strop.compat.tfmot as tfmot
from strop.compat.tfmot.clustering import keras as clustering
from strop.compat.tfmot.clustering.keras.experimental import cluster
from strop.compat.tfmot.sparsity import keras as sparsity
from strop.core.errors import InputError
from tests.compat.conftest import compiled, in_litert
from tests.models import transformer

CentroidInitialization = clustering.CentroidInitialization


def net(*more, **of_first):
    """A small model that takes vectors of 20."""
    keras.utils.set_random_seed(1)
    first = layers.Dense(20, name="first", **of_first)
    return keras.Sequential([keras.Input((20,)), first, layers.Flatten(), *more])


def fit(model, *callbacks, **given):
    if not model.compiled:
        model.compile("adam", "mse", jit_compile=False)
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 20)).astype("float32")
    y = x @ random.normal(size=(20, model.output_shape[-1])).astype("float32")
    return model.fit(x, y, batch_size=8, verbose=0, callbacks=list(callbacks), **given)


def values(variable):
    return np.unique(np.array(variable)).size


def test_the_names_of_the_guides_are_modules_and_names():
    assert tfmot.clustering.keras is clustering
    assert "strop.compat.tfmot.clustering.keras.experimental.cluster" in sys.modules
    assert clustering.experimental.cluster_weights is cluster.cluster_weights
    assert {"cluster_weights", "cluster_scope", "strip_clustering", "CentroidInitialization",
            "ClusteringSummaries", "ClusterableLayer", "experimental"} == set(clustering.__all__)  # fmt: skip
    for name in clustering.__all__:
        assert getattr(clustering, name) is not None


def test_a_taught_model_is_clustered_and_comes_out_plain(taught, tmp_path):
    before = taught.model.get_weights()
    model = clustering.cluster_weights(
        taught.model,
        number_of_clusters=16,
        cluster_centroids_init=CentroidInitialization.LINEAR,
    )
    at_once = [np.array(layer.kernel) for layer in model.layers if layer.weights]
    compiled(model, 1e-3).fit(
        *taught.train,
        batch_size=100,
        epochs=2,
        validation_split=0.1,
        verbose=0,
        callbacks=[clustering.ClusteringSummaries(log_dir=str(tmp_path / "logs"))],
    )
    plain = clustering.strip_clustering(model)

    kernels = [np.array(layer.kernel) for layer in plain.layers if layer.weights]
    for kernel, first in zip(kernels, at_once, strict=True):
        assert values(kernel) <= 16
        assert values(first) <= 16
        assert np.any(kernel != first)  # the values were trained
    assert values(plain.layers[-1].bias) > 8
    assert taught.accuracy_of(plain) > taught.accuracy - 0.03 > 0.9
    assert plain.layers[-1].kernel_constraint is None is plain.layers[-1].kernel.constraint
    for was, stayed in zip(before, taught.model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, stayed)  # the one that was given is not changed
    assert list((tmp_path / "logs" / "metrics").iterdir())


@pytest.mark.parametrize("initialization", list(CentroidInitialization))
def test_every_initialization_gives_as_many_values_as_were_asked_for(initialization):
    model = clustering.cluster_weights(net(), 3, initialization)
    assert values(model.get_layer("first").kernel) == 3


def test_some_layers_are_clustered_by_a_function_that_clones():
    base = net(layers.Dense(6, name="last"))
    original = np.array(base.get_layer("last").kernel)

    def clustered_if_last(layer):
        return clustering.cluster_weights(layer, 3) if layer.name == "last" else layer

    model = keras.models.clone_model(base, clone_function=clustered_if_last)
    kernel = np.array(model.get_layer("last").kernel)
    assert values(kernel) == 3
    assert np.corrcoef(kernel.ravel(), original.ravel())[0, 1] > 0.85  # of the weights it had
    fit(model)
    assert values(model.get_layer("last").kernel) == 3
    assert values(model.get_layer("first").kernel) == 400


def test_layers_not_built_yet_are_clustered_before_the_first_step():
    inputs = keras.Input((20,))
    x = clustering.cluster_weights(layers.Dense(10, name="first"), 4)(inputs)
    model = keras.Model(inputs, layers.Flatten()(x))
    assert values(model.get_layer("first").kernel) == 200
    fit(model)
    assert values(model.get_layer("first").kernel) == 4


def test_an_unbuilt_layer_may_begin_a_sequential():
    model = keras.Sequential(
        [clustering.cluster_weights(layers.Dense(8), 4, input_shape=(20,), name="first")]
    )
    fit(model)
    assert values(clustering.strip_clustering(model).get_layer("first").kernel) == 4


def test_a_model_that_is_pruned_and_clustered_at_once_keeps_both():
    model = clustering.cluster_weights(sparsity.prune_low_magnitude(net()), 5)
    fit(model, sparsity.UpdatePruningStep())
    kernel = np.array(clustering.strip_clustering(sparsity.strip_pruning(model)).layers[0].kernel)
    assert np.mean(kernel == 0) >= 0.5
    assert values(kernel) <= 6  # zeros beside the values


def test_two_marks_on_weights_that_are_not_told_apart_are_refused():
    layer = clustering.cluster_weights(sparsity.prune_low_magnitude(layers.Dense(4)), 5)
    with pytest.raises(InputError, match="to keep two things at once"):
        fit(keras.Sequential([keras.Input((20,)), layer]), sparsity.UpdatePruningStep())


def test_a_layer_of_ones_own_says_what_is_clustered(tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class OfBias(layers.Dense, clustering.ClusterableLayer):
        def get_clusterable_weights(self):
            return [("bias", self.bias)]

    layer = OfBias(16, bias_initializer=keras.initializers.RandomNormal(seed=1), name="first")
    model = keras.Sequential([keras.Input((20,)), clustering.cluster_weights(layer, 3)])
    fit(model)
    assert (values(layer.bias), values(layer.kernel)) == (3, 320)

    model.save(tmp_path / "own.keras")
    with clustering.cluster_scope():
        loaded = keras.models.load_model(tmp_path / "own.keras")
    fit(loaded)
    assert values(loaded.get_layer("first").bias) == 3
    assert values(loaded.get_layer("first").kernel) == 320


def test_an_algorithm_of_ones_own_is_refused():
    class OfAlgorithm(layers.Dense, clustering.ClusterableLayer):
        def get_clusterable_weights(self):
            return [("kernel", self.kernel)]

        def get_clusterable_algorithm(self, name):
            return object()

    layer = OfAlgorithm(4, name="own")
    layer.build((None, 8))
    with pytest.raises(ValueError, match="'own' has an algorithm of its own for the weight 'ker"):
        clustering.cluster_weights(layer, 3)


def test_zeros_stay_zeros_where_that_is_asked():
    base = net()
    kernel = np.array(base.get_layer("first").kernel)
    kernel[::2] = 0
    base.get_layer("first").kernel.assign(kernel)
    for preserve, least in ((True, 0.5), (False, 0.0)):
        model = cluster.cluster_weights(base, 4, preserve_sparsity=preserve)
        fit(model, epochs=2)
        plain = clustering.strip_clustering(model)
        found = np.array(plain.get_layer("first").kernel)
        assert np.mean(found == 0) == least
        assert values(found) <= 4


def test_each_channel_may_have_values_of_its_own(taught):
    model = clustering.cluster_weights(taught.model, 4, cluster_per_channel=True)
    compiled(model, jit_compile=False).fit(*taught.train, batch_size=100, verbose=0)
    kernel = np.array(clustering.strip_clustering(model).layers[1].kernel)
    of_each = [values(kernel[..., channel]) for channel in range(24)]
    assert of_each == [4] * 24
    assert values(kernel) > 64


def test_a_model_saved_halfway_goes_on_with_its_clusters(tmp_path):
    model = clustering.cluster_weights(net(layers.Dense(4, name="last")), 5)
    fit(model)
    model.save(tmp_path / "halfway.keras")
    with clustering.cluster_scope():
        loaded = keras.models.load_model(tmp_path / "halfway.keras")
    before = {name: np.array(loaded.get_layer(name).kernel) for name in ("first", "last")}
    fit(loaded)
    for name, was in before.items():
        kernel = np.array(loaded.get_layer(name).kernel)
        assert values(kernel) == 5
        for value in np.unique(was):  # who was together is together
            assert np.unique(kernel[was == value]).size == 1


def test_weights_that_are_loaded_meanwhile_are_clustered_anew():
    model = clustering.cluster_weights(net(), 5)
    model.set_weights(net().get_weights())
    fit(model)
    assert values(model.get_layer("first").kernel) == 5


def test_a_training_loop_of_ones_own_keeps_clusters():
    import tensorflow as tf

    model = clustering.cluster_weights(net(), 5)
    optimizer = keras.optimizers.Adam()
    x = np.random.default_rng(0).normal(size=(8, 20)).astype("float32")

    def train():
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(model(x, training=True) ** 2)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    for step in (train, tf.function(train)):
        step()
        assert values(model.get_layer("first").kernel) == 5


def test_layers_in_layers_are_clustered():
    model = clustering.cluster_weights(transformer(), 6)
    kernels = [v for v in model.trainable_variables if v.name not in ("bias", "beta", "gamma")]
    assert len(kernels) == 14
    assert {values(kernel) for kernel in kernels} == {6}


def test_what_cannot_be_clustered_is_listed():
    base = net(layers.Dense(3, use_bias=False, name="few", trainable=False))
    with pytest.warns(UserWarning, match="not clustered:\n  few: it is frozen"):
        model = clustering.cluster_weights(base, 5)
    assert values(model.get_layer("few").kernel) == 60
    small = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="few")])
    with pytest.warns(UserWarning, match="few/kernel: 6 weights are fewer than 8 clusters"):
        model = clustering.cluster_weights(small, 8)
    assert values(clustering.strip_clustering(model).get_layer("few").kernel) == 6


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"number_of_clusters": 1}, "number_of_clusters must be 2 or more, not 1"),
        ({"number_of_clusters": 2.5}, "number_of_clusters must be 2 or more, not 2.5"),
        (
            {"number_of_clusters": 4, "cluster_centroids_init": "best"},
            "'best' is not a valid Cent",
        ),
    ],
)
def test_what_cannot_be_is_a_value_error(given, wrong):
    with pytest.raises(ValueError, match=wrong):
        clustering.cluster_weights(net(), **given)


def test_what_was_clustered_converts_to_few_codes_and_zips_to_less(taught):
    plain = clustering.strip_clustering(clustering.cluster_weights(taught.model, 8))
    x = taught.test[0]
    found, whole = (in_litert(model, x) for model in (plain, taught.model))
    # Codes of 8 bits, one grid an output channel, of which each has at most 8.
    codes = found.codes(2160)
    assert codes.dtype == np.int8
    assert max(values(channel) for channel in codes.reshape(10, -1)) <= 8
    assert found.size < 0.8 * whole.size
