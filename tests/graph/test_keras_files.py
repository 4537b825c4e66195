import json
import os
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from strop.core.errors import ModelError, UnsafeModelError
from strop.core.model import Form, digest_of
from strop.graph.keras_files import (
    configuration,
    has_foreign_code,
    load,
    lost_loss,
    needs_repair,
    save,
)
from strop.graph.quiet import quiet
from strop.graph.reading import read
from tests import models

DATA = Path(os.environ.get("STROP_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"there is no {DATA}")


@pytest.fixture
def lambda_model():
    import keras

    x = keras.Input((4,))
    inner = keras.Model(x, keras.layers.Lambda(lambda v: v * 2, name="twice")(x))
    return keras.Model(x, keras.layers.Dense(2)(inner(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_however_deep_is_refused_with_the_flag_that_allows_it(
    lambda_model, tmp_path, suffix
):
    path = tmp_path / f"model{suffix}"
    lambda_model.save(path)

    with pytest.raises(UnsafeModelError) as caught:
        load(path)

    assert caught.value.allow == "lambda"
    assert str(caught.value) == (
        f"'{path}' has a Lambda layer ('twice'), which is Python code inside the file.\n"
        "Loading it would run that code. If you trust where it comes from, allow it:\n"
        "  --allow lambda"
    )


def test_a_lambda_that_is_allowed_is_loaded(lambda_model, tmp_path):
    lambda_model.save(tmp_path / "model.keras")
    x = np.ones((1, 4), np.float32)

    loaded = load(tmp_path / "model.keras", allow={"lambda"})

    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(lambda_model(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_unknown_class_is_named(tmp_path, suffix):
    import keras

    class Shift(keras.layers.Layer):
        def call(self, x):
            return x + 1

    x = keras.Input((4,))
    keras.Model(x, Shift()(x)).save(tmp_path / f"model{suffix}")

    with pytest.raises(ModelError, match="'Shift', which Keras does not have") as caught:
        load(tmp_path / f"model{suffix}")

    assert not isinstance(caught.value, UnsafeModelError)


def test_an_unknown_function_is_named(tmp_path):
    import keras

    def double(x):
        return x * 2

    x = keras.Input((4,))
    keras.Model(x, keras.layers.Dense(2, activation=double)(x)).save(tmp_path / "model.keras")

    with pytest.raises(ModelError, match="the function 'double', which Keras does not have"):
        load(tmp_path / "model.keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_a_model_error(tmp_path, suffix, share):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    models.convnet().save(whole)
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])

    with pytest.raises(ModelError):
        load(cut)


def test_weights_without_a_model_are_refused(tmp_path):
    models.convnet().save_weights(tmp_path / "model.weights.h5")

    with pytest.raises(ModelError, match="holds weights only, no model"):
        load(tmp_path / "model.weights.h5")


def test_a_zip_archive_that_is_no_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing")

    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load(tmp_path / "model.keras")


def _as_keras_2(path, layer, argument, value):
    """Write `argument` into the configuration of each `layer` of a Keras file, as Keras 2 did."""
    config = configuration(path)
    for part in config["config"]["layers"]:
        if part["class_name"] == layer:
            part["config"][argument] = value
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**contents, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_stray_arguments_of_keras_2_are_dropped_and_the_file_is_left_alone(tmp_path, suffix):
    model, path = models.convnet(), tmp_path / f"model{suffix}"
    model.save(path)
    _as_keras_2(path, "DepthwiseConv2D", "groups", 1)
    before = path.read_bytes()
    x = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)

    loaded = load(path)

    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(model(x)))
    assert needs_repair(path)
    assert path.read_bytes() == before


def test_time_major_recurrence_is_not_taken_for_batch_major(tmp_path):
    import keras

    path = tmp_path / "model.h5"
    keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(4)]).save(path)
    _as_keras_2(path, "LSTM", "time_major", True)

    with pytest.raises(ModelError, match="time_major"):
        load(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_time_major_that_says_nothing_is_dropped(tmp_path, suffix):
    import keras

    path = tmp_path / f"model{suffix}"
    keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(4)]).save(path)
    _as_keras_2(path, "LSTM", "time_major", False)

    assert load(path).output_shape == (None, 4)


@needs_data
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("mlperf_tiny/streaming_wakeword/str_ww_ref_model.h5", 3),  # groups
        ("keras/mini_xception/fer2013_mini_XCEPTION.99-0.65.hdf5", 7),  # Keras 2.0
        ("keras/fashion_mnist_cnn/fashion_mnist_cnn.h5", 10),
    ],
)
def test_legacy_files_of_others_are_loaded(name, classes):
    with quiet():  # Keras warns of what Keras 2 wrote
        loaded = load(DATA / "models" / name)

    assert loaded.output_shape == (None, classes)


def test_a_model_of_keras_alone_is_saved_as_a_keras_file(tmp_path):
    path, is_keras = save(models.convnet(), tmp_path)

    assert is_keras
    assert not has_foreign_code(configuration(path))


def test_a_model_with_code_of_its_own_is_exported(tmp_path):
    path, is_keras = save(models.subclassed(), tmp_path)

    assert not is_keras
    assert (path / "saved_model.pb").exists()
    assert not (tmp_path / "model.keras").exists()


@pytest.fixture
def of_class():
    """Return a function that makes a model of a class of its own of what it does when it is called, and calls it."""
    import keras
    from keras import layers

    class Own(keras.Model):
        def __init__(self, work):
            super().__init__()
            self.table = self.add_weight(shape=(50, 4), name="table")
            self.words, self.last = layers.Embedding(50, 4), layers.Dense(3)
            self.work = work

        def build(self, shapes):
            """Build nothing: the first call does, and Keras has no need to guess."""

        def call(self, given):
            return self.last(self.work(self, given))

    def make(work, *batch):
        model = Own(work)
        model(batch[0] if len(batch) == 1 else list(batch))
        return model

    return make


def exported(model, folder):
    path, is_keras = save(model, folder)
    assert not is_keras
    return read(path, folder)


def take(model, tokens):
    import tensorflow as tf

    return tf.reduce_mean(tf.gather(model.table, tokens), 1)


def look_up(model, tokens):
    return model.words(tokens)[:, 0]


def beside(model, pair):
    import tensorflow as tf

    return tf.concat([pair[0], take(model, pair[1])], 1)


TOKENS = np.zeros((2, 6), np.int32)


@pytest.mark.parametrize(
    ("work", "batch", "wanted"),
    [
        (take, [TOKENS], ["int32"]),  # float32 will not do
        (look_up, [TOKENS], ["int32"]),  # float32 would: an Embedding casts it
        (beside, [np.zeros((2, 5), np.float32), TOKENS], ["float32", "int32"]),
        (lambda model, x: model.last(x), [np.zeros((2, 3), np.float32)], ["float32"]),
    ],
    ids=["gather", "embedding", "mixed", "float"],
)
def test_an_exported_model_takes_what_its_code_takes(of_class, tmp_path, work, batch, wanted):
    with quiet():
        found = exported(of_class(work, *batch), tmp_path)
    assert [spec.dtype for spec in found.signature.inputs] == wanted


def test_what_cannot_be_exported_is_refused_with_a_way_out_that_works(of_class, tmp_path):
    import keras
    import tensorflow as tf

    def several(model, given):  # more than are tried in each other's company
        return tf.concat([*given[:3], take(model, given[3])], 1)

    floats = np.zeros((2, 5), np.float32)
    model = of_class(several, floats, floats, floats, TOKENS)
    with quiet(), pytest.raises(ModelError, match=r"keras\.Model\(x, model\(x\)\)"):
        save(model, tmp_path)

    x = [*(keras.Input((5,)) for _ in range(3)), keras.Input((6,), dtype="int32")]
    with quiet():
        found = exported(keras.Model(x, model(x)), tmp_path)
    assert [spec.dtype for spec in found.signature.inputs] == ["float32"] * 3 + ["int32"]


def test_a_class_registered_here_alone_does_not_count_as_known(tmp_path):
    import keras

    @keras.saving.register_keras_serializable("here")
    class Shift(keras.layers.Layer):
        def call(self, x):
            return x + 1

    x = keras.Input((4,))
    path, is_keras = save(keras.Model(x, Shift()(x)), tmp_path)

    assert not is_keras
    assert path.is_dir()


@pytest.mark.parametrize("make", [models.convnet, models.transformer, models.bidirectional_lstm])
def test_a_model_saved_twice_is_the_same_model(tmp_path, make):
    model = make()

    digests = []
    for name in ("one.keras", "two.keras"):
        model.save(tmp_path / name)
        time.sleep(1.1)  # Keras writes the date to the second
        digests.append(digest_of(Form.KERAS, tmp_path / name))

    assert digests[0] == digests[1]


def test_a_model_loaded_twice_is_saved_as_the_same_model(tmp_path):
    models.bidirectional_lstm().save(tmp_path / "model.keras")

    digests = []
    for name in ("one.keras", "two.keras"):
        load(tmp_path / "model.keras").save(tmp_path / name)  # its objects lie elsewhere in memory
        digests.append(digest_of(Form.KERAS, tmp_path / name))

    assert digests[0] == digests[1]


def test_other_weights_are_another_model(tmp_path):
    digests = []
    for seed in (0, 1):
        models.settle(models.mlp(), seed=seed).save(tmp_path / "model.keras")
        digests.append(digest_of(Form.KERAS, tmp_path / "model.keras"))

    assert digests[0] != digests[1]


def own_loss(wanted, given):
    return (wanted - given) ** 2


def own_metric(wanted, given):
    return wanted - given


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_loss_and_optimizer_are_had_where_a_metric_is_not(tmp_path, suffix):
    import keras

    model = models.mlp()
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.3)
    model.compile(keras.optimizers.SGD(0.25, momentum=0.9), loss, metrics=[own_metric])
    path = tmp_path / f"model{suffix}"
    model.save(path)

    found = load(path, compiled=True)

    assert type(found.optimizer) is keras.optimizers.SGD
    assert float(found.optimizer.learning_rate) == 0.25
    wanted, given = np.eye(2), np.full((2, 2), 0.5) + 0.2 * np.eye(2)
    assert float(np.mean(found.loss(wanted, given))) == pytest.approx(float(loss(wanted, given)))
    assert lost_loss(read(path, tmp_path / "work")) == ""


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_loss_that_can_not_be_had_is_named_and_the_optimizer_is_there(tmp_path, suffix):
    import keras

    model = models.mlp()
    model.compile(keras.optimizers.SGD(0.25), own_loss)
    path = tmp_path / f"model{suffix}"
    model.save(path)

    found = load(path, compiled=True)

    assert found.loss is None
    assert type(found.optimizer) is keras.optimizers.SGD
    assert lost_loss(read(path, tmp_path / "work")) == "own_loss"


def test_a_model_that_was_never_compiled_lost_no_loss(tmp_path):
    path = tmp_path / "model.keras"
    models.mlp().save(path)
    assert lost_loss(read(path, tmp_path / "work")) == ""
    assert not load(path, compiled=True).compiled
