"""What a model is taught by: which loss is taken, what is held out, and what is refused."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.core.errors import SamplesError
from strop.core.samples import Samples
from strop.core.signature import Signature, TensorSpec
from strop.graph.keras_models import signature_of
from strop.train.lessons import held_out_of, lessons_of
from tests.directions import classes, drawn, net


def lessons(model, samples, **given):
    return lessons_of(
        model, samples, signature_of(model), teacher_share=0.5, compiled=model, **given
    )


def loss_held_out(found, model):
    inputs, wanted = found.held_out
    return float(found.loss([model(inputs[0])], wanted))


def test_a_loss_for_targets_written_otherwise_gives_way_to_the_usual_one():
    model, x = net(), drawn()
    model.compile(loss="categorical_crossentropy")
    found = lessons(model, Samples({"x": x}, {"y": classes(x)}))  # by number, and not one-hot
    assert found.spelled() == "sparse_categorical_crossentropy"


def test_losses_compiled_by_the_keys_of_outputs_are_found():
    keras.utils.set_random_seed(1)
    image = keras.Input((4,), name="x")
    model = keras.Model(image, {"z": keras.layers.Dense(1, name="last")(image)})
    model.compile("adam", loss={"z": keras.losses.Huber()})
    x = drawn()
    found = lessons(model, Samples({"x": x}, {signature_of(model).output_names[0]: x[:, :1]}))
    assert found.spelled() == "huber_loss"


@pytest.mark.parametrize(
    ("loss", "weights"),
    [({"a": "mse", "b": "mse"}, {"a": 1.0, "b": 1e-6}), (["mse", "mse"], [1.0, 1e-6])],
)
def test_outputs_count_what_they_were_compiled_to_count(loss, weights):
    """The second is a million times as far off, and counts a millionth."""
    keras.utils.set_random_seed(1)
    image = keras.Input((4,), name="x")
    model = keras.Model(image, [keras.layers.Dense(1, name=name)(image) for name in "ab"])
    model.compile("adam", loss=loss, loss_weights=weights)
    x, names = drawn(), signature_of(model).output_names
    far = {names[0]: np.zeros((len(x), 1)), names[1]: np.full((len(x), 1), 1e3)}
    found = lessons(model, Samples({"x": x}, far))
    inputs, wanted = found.held_out
    told = model.evaluate(
        x[-len(inputs[0]) :], [far[n][-len(inputs[0]) :] for n in names], verbose=0
    )
    assert float(found.loss(model(inputs[0]), wanted)) == pytest.approx(told[0], rel=1e-3)


def test_a_batch_of_one_sample_is_no_louder_than_others():
    """One number has no variance to measure its error by; of 15 samples one is held out."""
    other, x = net(last=None, outputs=1, seed=2), drawn(15)
    model = net(last=None, outputs=1)
    assert loss_held_out(lessons(model, Samples({"x": x}), teacher=other), model) < 100


def test_a_teacher_that_answers_one_number_to_all_is_learnt_in_its_own_unit():
    other, x = net(last=None, outputs=1, seed=2), drawn(64)
    *within, kernel, bias = other.get_weights()
    other.set_weights([*within, np.zeros_like(kernel), bias + 3])
    model = net(last=None, outputs=1)
    assert loss_held_out(lessons(model, Samples({"x": x}), teacher=other), model) < 100


def test_what_a_teacher_answers_to_changed_samples_stands_for_what_it_did_before():
    other, model, x = net(seed=2), net(), drawn()
    found = lessons(model, Samples({"x": x}), teacher=other)
    _, wanted = found.held_out
    changed = 2 * x[-40:]
    newer = other(changed)
    assert float(found.loss([newer], wanted, answers=[newer])) < 1e-6
    assert float(found.loss([newer], wanted)) > 1e-3


@given(st.integers(8, 50_000), st.sampled_from([None, 1, 6, 32]))
def test_a_tenth_is_held_out_in_whole_batches_up_to_two_thousand(count, batch):
    shape = TensorSpec("x", (batch, 4), "float32")
    held = held_out_of(count, Signature((shape,), (shape,)))
    only = batch or 1
    assert held % only == 0
    assert max(min(count // 10, 2000), 1) <= held < min(max(count / 10, 1), 2000) + only


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
        lessons(net(), samples)
