"""What TensorFlow's guides to pruning, clustering and quantization together do, done with strop's names, to the end."""

import keras
import numpy as np
import pytest

import strop.compat.tfmot as tfmot
from strop.compat.tfmot.clustering.keras.experimental import cluster
from tests.compat.conftest import compiled, in_litert

quantization = tfmot.quantization.keras
combine = tfmot.experimental.combine


def sparsities(model):
    """The share of zeros in each kernel, as the guides look at it."""
    return [float(np.mean(w.numpy() == 0)) for w in kernels(model)]


def clusters(model):
    """The number of values in each kernel."""
    return [len(np.unique(w)) for w in kernels(model)]


def kernels(model):
    return [w for layer in model.layers for w in layer.weights if "kernel" in w.name]


def taught_on(taught, model, callbacks=(), rate=1e-3, **given):
    compiled(model, rate, jit_compile=False)
    model.fit(
        *taught.train, batch_size=100, epochs=2, verbose=0, callbacks=list(callbacks), **given
    )
    return model


def preserved(model, scheme):
    return quantization.quantize_apply(quantization.quantize_annotate_model(model), scheme)


@pytest.fixture(scope="module")
def pruned(taught):
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=100)
    model = tfmot.sparsity.keras.prune_low_magnitude(taught.model, pruning_schedule=schedule)
    taught_on(taught, model, [tfmot.sparsity.keras.UpdatePruningStep()])
    return tfmot.sparsity.keras.strip_pruning(model)


@pytest.fixture(scope="module")
def pruned_and_clustered(taught, pruned):
    model = cluster.cluster_weights(
        pruned,
        number_of_clusters=8,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity=True,
    )
    return tfmot.clustering.keras.strip_clustering(taught_on(taught, model))


def test_clustering_keeps_zeros_where_that_is_asked(taught, pruned, pruned_and_clustered):
    assert sparsities(pruned) == [0.5, 0.5] == sparsities(pruned_and_clustered)
    assert max(clusters(pruned_and_clustered)) <= 8
    without = cluster.cluster_weights(pruned, number_of_clusters=8)
    assert max(sparsities(taught_on(taught, without))) < 0.5
    assert taught.accuracy_of(pruned_and_clustered) > taught.accuracy - 0.05 > 0.9


def test_pruned_weights_keep_their_zeros_while_quantization_is_taught(taught, pruned, tmp_path):
    plain = taught_on(taught, quantization.quantize_model(pruned))
    model = taught_on(taught, preserved(pruned, combine.Default8BitPrunePreserveQuantizeScheme()))
    assert max(sparsities(plain)) < 0.1
    assert sparsities(model) == [0.5, 0.5]

    found = in_litert(model, taught.test[0])
    assert found.floats == ["QUANTIZE", "DEQUANTIZE"]
    assert np.mean(found.codes(2160) == 0) >= 0.5
    assert np.mean(found.codes(216) == 0) >= 0.5
    right = np.mean(found.answers.argmax(-1) == taught.test[1])
    assert right > taught.accuracy - 0.05 > 0.9
    assert found.size < in_litert(plain, taught.test[0]).size

    model.save(tmp_path / "pqat.keras")
    with quantization.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "pqat.keras")
    loaded.fit(taught.train[0][:200], taught.train[1][:200], verbose=0)
    assert sparsities(loaded) == [0.5, 0.5]


@pytest.mark.slow
def test_clustered_weights_stay_together_while_quantization_is_taught(taught):
    model = tfmot.clustering.keras.cluster_weights(
        taught.model, number_of_clusters=8, cluster_per_channel=True
    )
    plain = tfmot.clustering.keras.strip_clustering(taught_on(taught, model))
    of_channels = clusters(plain)
    assert clusters(taught_on(taught, quantization.quantize_model(plain))) != of_channels

    cqat = taught_on(taught, preserved(plain, combine.Default8BitClusterPreserveQuantizeScheme()))

    for kernel in kernels(cqat):
        channels = kernel.numpy().reshape(-1, kernel.shape[-1]).T
        assert max(len(np.unique(channel)) for channel in channels) <= 8
    found = in_litert(cqat, taught.test[0])
    assert found.floats == ["QUANTIZE", "DEQUANTIZE"]
    for size, channels in ((216, 24), (2160, 10)):
        codes = found.codes(size).reshape(channels, -1)
        assert max(len(np.unique(channel)) for channel in codes) <= 8
    assert np.mean(found.answers.argmax(-1) == taught.test[1]) > taught.accuracy - 0.05
    assert clusters(combine.strip_clustering_cqat(cqat)) == clusters(cqat)


def test_pruned_and_clustered_weights_keep_both(taught, pruned_and_clustered, tmp_path):
    scheme = combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    model = taught_on(taught, preserved(pruned_and_clustered, scheme))

    assert sparsities(model) == [0.5, 0.5]
    assert clusters(model) == clusters(pruned_and_clustered)
    found = in_litert(model, taught.test[0])
    assert found.floats == ["QUANTIZE", "DEQUANTIZE"]
    assert np.mean(found.codes(2160) == 0) >= 0.5
    assert np.mean(found.answers.argmax(-1) == taught.test[1]) > taught.accuracy - 0.05 > 0.9
    assert found.size < in_litert(quantization.quantize_model(taught.model), taught.test[0]).size

    model.save(tmp_path / "pcqat.keras")
    with quantization.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "pcqat.keras")
    loaded.fit(taught.train[0][:200], taught.train[1][:200], verbose=0)
    assert sparsities(loaded) == [0.5, 0.5]
    assert clusters(loaded) == clusters(model)


def test_weights_that_share_nothing_are_listed(taught):
    with pytest.warns(UserWarning, match="not clustered:\n  .*kernel: its weights share no val"):
        preserved(taught.model, combine.Default8BitClusterPreserveQuantizeScheme())


def test_a_training_that_is_not_compiled_keeps_zeros_and_says_when_it_cannot(
    taught, pruned, tmp_path
):
    from strop.core.errors import InputError

    model = preserved(pruned, combine.Default8BitPrunePreserveQuantizeScheme())
    compiled(model, run_eagerly=True).fit(taught.train[0][:64], taught.train[1][:64], verbose=0)
    assert sparsities(model) == [0.5, 0.5]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    compiled(loaded, run_eagerly=True)
    with pytest.raises(InputError, match="has to keep can't be told any more"):
        loaded.fit(taught.train[0][:64], taught.train[1][:64], verbose=0)
