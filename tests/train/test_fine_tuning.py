"""Teaching a changed model again: by targets, by the model that it was made from, or by both."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from strop.core.errors import SamplesError
from strop.core.samples import Samples
from strop.graph.keras_models import signature_of
from strop.train.fine_tuning import FineTuning, answers_of, fine_tune
from strop.train.kernels import sparsity_of
from strop.train.pruning import keep_zeros, prune


def net(*, last="softmax", outputs=3, width=16, seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(outputs, activation=last, name="y"),
        ]
    )


def drawn(count=400, *, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")


def classes(x):
    """Which of three directions a sample lies nearest to."""
    return np.argmax(x @ np.random.default_rng(7).normal(size=(4, 3)), -1)


def share_right(model, x):
    return float((np.argmax(keras.ops.convert_to_numpy(model(x)), -1) == classes(x)).mean())


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


def test_without_targets_the_teacher_is_what_is_learnt(teacher):
    student = net(width=8)
    found = taught(student, Samples({"x": drawn()}), teacher=teacher)
    assert found.taught_by == "the original's answers"
    assert share_right(student, drawn(seed=1)) > 0.85


def test_targets_and_teacher_are_learnt_together(teacher):
    x, student = drawn(), net(width=8)
    found = taught(student, Samples({"x": x}, {"y": classes(x)}), teacher=teacher)
    assert found.taught_by == "sparse_categorical_crossentropy and the original's answers"
    assert share_right(student, drawn(seed=1)) > 0.85


def test_the_weights_that_did_best_are_kept(teacher):
    x = drawn()
    student = net()
    settings = FineTuning(epochs=8, batch_size=32, learning_rate=0.5, patience=2)
    found = taught(student, Samples({"x": x}, {"y": classes(x)}), settings)
    assert found.losses[found.best] == min(found.losses)
    held_out = Samples({"x": x[-40:]}, {"y": classes(x[-40:])})
    now = keras.losses.sparse_categorical_crossentropy(
        held_out.targets["y"], student(held_out.inputs["x"])
    )
    assert float(keras.ops.mean(now)) == pytest.approx(min(found.losses), rel=1e-4)


def test_epochs_in_which_the_model_is_still_being_changed_are_not_kept(teacher):
    found = taught(net(), Samples({"x": drawn()}), teacher=teacher, keep_from=5)
    assert found.best == 5


def test_it_ends_where_it_is_enough(teacher):
    asked = []
    found = taught(
        net(),
        Samples({"x": drawn()}),
        teacher=teacher,
        is_enough=lambda: asked.append(1) or len(asked) == 2,
    )
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


def test_the_loss_and_optimizer_that_a_model_was_compiled_with_are_used():
    model, x = net(last=None, outputs=1), drawn()
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="mean_absolute_error")
    y = x @ np.array([[1.0], [2.0], [-1.0], [0.5]], "float32")
    found = taught(model, Samples({"x": x}, {"y": y}), FineTuning(epochs=30))
    assert found.taught_by == "mean_absolute_error"
    assert found.losses[-1] < 0.3 * found.losses[0]


def test_a_loss_for_targets_written_otherwise_gives_way_to_the_usual_one():
    model, x = net(), drawn()
    model.compile(loss="categorical_crossentropy")
    found = taught(model, Samples({"x": x}, {"y": classes(x)}))  # by number, and not one-hot
    assert found.taught_by == "sparse_categorical_crossentropy"
    assert share_right(model, drawn(seed=1)) > 0.8


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


def test_the_best_weights_of_before_an_interruption_are_kept(tmp_path, teacher):
    class Spoiling(keras.callbacks.Callback):
        """Interrupts after the third epoch; what comes after is spoilt."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3 and not (tmp_path / "interrupted").exists():
                (tmp_path / "interrupted").touch()
                raise KeyboardInterrupt
            if epoch >= 3:
                for weight in self.model.trainable_weights:
                    weight.assign(weight * 0)

    samples = Samples({"x": drawn()})
    given = {"teacher": teacher, "backup": tmp_path / "b", "callbacks": [Spoiling()]}
    with pytest.raises(KeyboardInterrupt):
        taught(net(), samples, **given)
    again, told = net(seed=5), []
    found = taught(again, samples, report=lambda share, note: told.append(share), **given)
    assert found.best == 2
    assert share_right(again, drawn(seed=1)) > 0.8
    assert told[0] > 0.5  # three epochs of six were done before


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

    samples = Samples({"x": drawn()}, {"y": classes(drawn())})
    settings = FineTuning(epochs=6, batch_size=32, learning_rate=0.5)
    with pytest.raises(KeyboardInterrupt):
        taught(half(), samples, settings, backup=tmp_path, callbacks=[Interruption()])
    again = half()
    assert share_right(again, drawn(seed=1)) < 0.6
    taught(again, samples, replace(settings, epochs=4), backup=tmp_path)  # all done before
    assert share_right(again, drawn(seed=1)) > 0.8


def test_a_batch_of_one_sample_is_no_louder_than_others():
    """One number has no variance to measure its error by; of 15 samples one is held out."""
    other, x = net(last=None, outputs=1, seed=2), drawn(15)
    found = taught(net(last=None, outputs=1), Samples({"x": x}), FineTuning(1, 13), teacher=other)
    assert found.losses[0] < 100


def test_a_teacher_that_answers_one_number_to_all_is_learnt_in_its_own_unit():
    other, x = net(last=None, outputs=1, seed=2), drawn(64)
    *within, kernel, bias = other.get_weights()
    other.set_weights([*within, np.zeros_like(kernel), bias + 3])
    found = taught(net(last=None, outputs=1), Samples({"x": x}), FineTuning(1, 16), teacher=other)
    assert found.losses[0] < 100


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


def test_losses_compiled_by_the_keys_of_outputs_are_found():
    keras.utils.set_random_seed(1)
    given = keras.Input((4,), name="x")
    model = keras.Model(given, {"z": keras.layers.Dense(1, name="last")(given)})
    model.compile("adam", loss={"z": keras.losses.Huber()})
    x = drawn()
    found = taught(model, Samples({"x": x}, {signature_of(model).output_names[0]: x[:, :1]}))
    assert found.taught_by == "huber_loss"


def test_how_far_it_is_is_told(teacher):
    told = []
    taught(
        net(),
        Samples({"x": drawn()}),
        teacher=teacher,
        report=lambda share, note: told.append((share, note)),
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert "s left" in told[0][1]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (Samples({"x": drawn(7)}, {"y": classes(drawn(7))}), "at least 8 samples"),
        (Samples({"x": drawn()}), "neither targets nor a teacher"),
        (
            Samples({"x": drawn()}, {"y": classes(drawn()) + 1}),
            "name the class 3; it has those from 0 to 2",
        ),
        (Samples({"x": drawn()}, {"y": classes(drawn()) - 1}), "name the class -1"),
        (
            Samples({"x": drawn()}, {"y": classes(drawn(300))}),
            "300 targets of 'y' for 400 samples",
        ),
        (Samples({"x": drawn()}, {"y": drawn().repeat(2, -1)}), "there is no loss between them"),
    ],
)
def test_what_can_not_be_taught_is_refused(samples, said):
    with pytest.raises(SamplesError, match=said):
        taught(net(), samples)
