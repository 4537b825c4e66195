"""Teaching a changed model again: by targets, by the model that it was made from, or by both."""

import keras
import numpy as np
import pytest

from strop.core.samples import Samples
from strop.graph.keras_models import signature_of
from strop.train.fine_tuning import FineTuning, fine_tune
from strop.train.kernels import sparsity_of
from strop.train.lessons import answers_of
from strop.train.pruning import keep_zeros, prune
from tests.directions import classes, drawn, net, share_right


def taught(model, samples, settings=None, **given):
    settings = settings or FineTuning(epochs=6, batch_size=32, learning_rate=0.02)
    return fine_tune(model, samples, signature_of(model), settings, **given)


@pytest.fixture(scope="module")
def teacher():
    model = net(width=32)
    x = drawn()
    found = taught(model, Samples({"x": x}, {"y": classes(x)}))
    assert found.taught_by == "sparse_categorical_crossentropy"
    assert share_right(model, drawn(seed=1)) > 0.9
    return model


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_without_targets_the_teacher_is_what_is_learnt(teacher, share):
    student = net(width=8)
    settings = FineTuning(epochs=6, batch_size=32, learning_rate=0.02, teacher_share=share)
    found = taught(student, Samples({"x": drawn()}), settings, teacher=teacher)
    assert found.taught_by == "the original's answers"
    assert share_right(student, drawn(seed=1)) > 0.85


def test_targets_and_teacher_are_learnt_together(teacher):
    x, student = drawn(), net(width=8)
    found = taught(student, Samples({"x": x}, {"y": classes(x)}), teacher=teacher)
    assert found.taught_by == "sparse_categorical_crossentropy and the original's answers"
    assert share_right(student, drawn(seed=1)) > 0.85


def test_the_loss_and_optimizer_that_a_model_was_compiled_with_are_used():
    model, x = net(last=None, outputs=1), drawn()
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="mean_absolute_error")
    y = x @ np.array([[1.0], [2.0], [-1.0], [0.5]], "float32")
    found = taught(model, Samples({"x": x}, {"y": y}), FineTuning(epochs=30))
    assert found.taught_by == "mean_absolute_error"
    assert found.losses[-1] < 0.3 * found.losses[0]


def test_each_output_is_taught_by_what_there_is_for_it(teacher):
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    both = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    outputs = {
        "kind": keras.layers.Dense(3, name="kind")(both),
        "size": keras.layers.Dense(1, name="size")(both),
        "is_far": keras.layers.Dense(1, activation="sigmoid", name="is_far")(both),
    }
    model = keras.Model(inputs, outputs)
    a, b = drawn(seed=2), drawn(seed=3)
    samples = Samples({"a": a, "b": b}, {"kind": classes(a), "size": b[:, :1] * 2})
    other = keras.models.clone_model(model)
    before = answers_of(other, samples, signature_of(other))
    settings = FineTuning(epochs=20, learning_rate=0.03, teacher_share=0.1)
    found = taught(model, samples, settings, teacher=other)
    assert found.losses[-1] < found.losses[0]
    after = dict(
        zip(
            signature_of(model).output_names,
            answers_of(model, samples, signature_of(model)),
            strict=True,
        )
    )
    assert (np.argmax(after["kind"], -1) == classes(a)).mean() > 0.8
    place = signature_of(other).output_names.index("is_far")
    assert np.abs(after["is_far"] - before[place]).mean() < 0.1


def test_interrupted_training_goes_on_where_it_was(tmp_path, teacher):
    class Interruption(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    samples, model = Samples({"x": drawn()}), net()
    with pytest.raises(KeyboardInterrupt):
        taught(model, samples, teacher=teacher, backup=tmp_path / "b", callbacks=[Interruption()])
    again = net(seed=5)
    found = taught(again, samples, teacher=teacher, backup=tmp_path / "b")
    assert len(found.losses) == 3  # of six
    assert not [path for path in (tmp_path / "b").rglob("*") if path.is_file()]


def test_a_process_ended_while_it_writes_costs_one_epoch(tmp_path, teacher):
    class Torn(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                (tmp_path / "b" / "epochs" / "latest.weights.h5").write_bytes(b"half")
                raise KeyboardInterrupt

    samples = Samples({"x": drawn()})
    with pytest.raises(KeyboardInterrupt):
        taught(net(), samples, teacher=teacher, backup=tmp_path / "b", callbacks=[Torn()])
    found = taught(net(seed=5), samples, teacher=teacher, backup=tmp_path / "b")
    assert len(found.losses) == 4  # of six


def test_a_model_for_one_batch_size_is_taught_in_batches_of_that(teacher):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(6, 4), name="x"),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax", name="y"),
        ]
    )
    taught(model, Samples({"x": drawn()}), teacher=teacher)
    x = drawn(396, seed=1)
    answers = answers_of(model, Samples({"x": x[:395]}), signature_of(model))[0]
    assert len(answers) == 395
    assert np.mean(np.argmax(answers, -1) == classes(x[:395])) > 0.8


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_models_of_half_precision_are_taught_in_it(teacher, policy):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(16, activation="relu", dtype=policy),
            keras.layers.Dense(3, activation="softmax", name="y", dtype=policy),
        ]
    )
    taught(model, Samples({"x": drawn()}, {"y": classes(drawn())}), teacher=teacher)
    assert share_right(model, drawn(seed=1)) > 0.8


def test_what_is_pruned_in_bfloat16_stays_zero_while_the_rest_is_taught(teacher):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(32, activation="relu", dtype="bfloat16"),
            keras.layers.Dense(3, activation="softmax", name="y", dtype="bfloat16"),
        ]
    )
    prune(model, 0.5)
    taught(model, Samples({"x": drawn()}), teacher=teacher, callbacks=[keep_zeros(model)])
    assert list(sparsity_of(model).values()) == [0.5, 0.5]
    assert share_right(model, drawn(seed=1)) > 0.8
