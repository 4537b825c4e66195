"""A smaller model of the same inputs and outputs, made of a model's own layers."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from strop.core.errors import ModelError, ParameterError, UnknownNameError
from strop.graph.keras_models import by_name, signature_of
from strop.train.students import derive_student, macs_of
from tests import models


def residual(width=8, *, blocks=2):
    """A small residual network: a stem, stages of blocks with a projection first, and a classifier."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", name="stem")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for number in range(blocks):
        stride = 2 if number == 0 else 1
        y = layers.Conv2D(2 * width, 3, strides=stride, padding="same", name=f"a{number}")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(2 * width, 3, padding="same", name=f"b{number}")(y)
        y = layers.BatchNormalization()(y)
        if number == 0:
            x = layers.Conv2D(2 * width, 1, strides=2, name="projection")(x)
        x = layers.ReLU()(layers.Add(name=f"sum{number}")([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return models.settle(keras.Model(inputs, layers.Dense(5, name="label")(x)))


def inputs_of(model, batch=3):
    rng = np.random.default_rng(0)
    shapes = [
        (batch, *(6 if n is None else n for n in s.shape[1:])) for s in signature_of(model).inputs
    ]
    return [
        rng.integers(1, 9, shape).astype(s.dtype) if "int" in s.dtype else rng.normal(size=shape).astype(s.dtype)
        for shape, s in zip(shapes, signature_of(model).inputs, strict=True)
    ]  # fmt: skip


def answers(model):
    return [np.asarray(y) for y in by_name(model, inputs_of(model), signature_of(model))]


def assert_runs_like(student, model):
    """Hold a student to the signature, to finite answers, and to being saved and loaded."""
    assert signature_of(student) == signature_of(model)
    for found, wanted in zip(answers(student), answers(model), strict=True):
        assert found.shape == wanted.shape
        assert np.isfinite(found).all()


STOCK = {
    "convnet": models.convnet, "mlp": models.mlp, "dicts": models.two_in_two_out, "transformer": models.transformer,
    "lstm": models.bidirectional_lstm, "nested": models.nested, "residual": residual,
}  # fmt: skip


@pytest.mark.parametrize("name", STOCK)
def test_a_student_has_the_same_inputs_and_outputs_and_runs(name):
    model = STOCK[name]()
    found = derive_student(model, width=0.5, depth=0.5, separable=True)
    assert_runs_like(found.model, model)


@pytest.mark.parametrize("name", ["residual", "nested", "dicts"])
def test_at_full_width_it_is_the_model(name):
    model = STOCK[name]()
    found = derive_student(model, width=1.0)
    assert not found.is_smaller
    assert found.macs[0] == found.macs[1]
    for ours, theirs in zip(answers(found.model), answers(model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_is_added_keeps_the_same_channels():
    model = residual()
    found = derive_student(model, width=0.5)
    inner = dict.fromkeys(("a0", "b0", "projection", "a1", "b1"), (8, 16))
    assert found.channels == {"stem": (4, 8), **inner}
    assert found.left_alone == {"label": "its channels are those of an output"}


def test_channels_without_weights_go_first_and_the_answers_stay():
    """Half of each joined set of channels is made zero, everywhere alike, so that nothing is lost with it."""
    model = residual()
    for name, gone in (("b0", 16), ("projection", 16), ("b1", 16), ("a0", 16), ("a1", 16)):
        layer = model.get_layer(name)
        kernel, bias = layer.get_weights()
        places = np.random.default_rng(3 if name in ("b0", "projection", "b1") else 4)
        places = places.permutation(gone)[: gone // 2]
        kernel[..., places], bias[places] = 0, 0
        layer.set_weights([kernel, bias])
        for call in layer.output._keras_history.operation._outbound_nodes:
            if isinstance(call.operation, layers.BatchNormalization):
                gamma, beta, mean, variance = call.operation.get_weights()
                beta[places], mean[places] = 0, 0
                call.operation.set_weights([gamma, beta, mean, variance])

    found = derive_student(model, width=0.5, exclude=("stem",))

    for ours, theirs in zip(answers(found.model), answers(model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_budget_is_kept_and_nearly_used_up():
    model = residual(16)
    found = derive_student(model, macs=0.5)
    now, was = found.macs
    assert (now, was) == tuple(macs_of(m, signature_of(model)) for m in (found.model, model))
    assert 0.4 < now / was <= 0.5


def test_a_budget_that_fewer_blocks_keep_leaves_all_channels():
    found = derive_student(residual(blocks=4), macs=0.9, depth=0.0)
    assert found.width == 1.0
    assert not found.channels


def test_a_budget_that_can_not_be_kept_is_refused_with_what_can():
    with pytest.raises(ParameterError) as refused:
        derive_student(models.transformer(), macs=0.3)
    first, *_, last = str(refused.value).splitlines()
    assert "no student comes to 30% of the multiply-accumulates" in first
    share = float(last.split("=")[1])
    assert derive_student(models.transformer(), macs=share).macs[0] > 0


def test_multiply_accumulates_are_counted_at_the_sizes_that_are_told():
    model = models.transformer(None)
    with pytest.raises(ParameterError, match="can't be counted"):
        derive_student(model, macs=0.8)
    told = signature_of(model).with_shapes({"tokens": (None, 16)})
    found = derive_student(model, macs=0.8, signature=told)
    assert found.macs[0] <= 0.8 * found.macs[1]


def test_blocks_go_whole_and_the_rest_fits():
    model = residual(blocks=4)
    found = derive_student(model, width=1.0, depth=0.5)
    assert {"a3", "b3"} <= set(found.left_out)
    assert "a0" in {layer.name for layer in found.model.layers}
    assert_runs_like(found.model, model)


def test_a_branch_that_adds_nothing_can_be_left_out_without_loss():
    model = residual(blocks=3)
    last = model.get_layer("sum2").input[1]._keras_history.operation  # a normalization
    gamma, beta, mean, variance = last.get_weights()
    last.set_weights([0 * gamma, 0 * beta, mean, variance])
    gone = derive_student(model, width=1.0, depth=0.7).left_out
    assert set(gone) >= {"a2", "b2"}
    student = derive_student(model, width=1.0, depth=0.7).model
    np.testing.assert_allclose(answers(student)[0], answers(model)[0], atol=1e-5)


def test_convolutions_become_the_nearest_separable_ones():
    x = inputs = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, name="first")(x)
    x = layers.Conv2D(5, 3, activation="relu", name="second")(x)
    x = layers.Conv2D(3, 1, name="pointwise")(x)
    model = models.settle(keras.Model(inputs, layers.GlobalMaxPooling2D()(x)))
    kernel = model.get_layer("second").get_weights()[0]
    exact = np.ones((3, 3, 4, 1)) * kernel[:1, :1]  # of rank one for each input channel
    model.get_layer("second").kernel.assign(exact)

    found = derive_student(model, width=1.0, separable=True)

    assert found.separated == ("second",)
    assert isinstance(found.model.get_layer("second"), layers.SeparableConv2D)
    np.testing.assert_allclose(answers(found.model)[0], answers(model)[0], atol=1e-5)
    assert list(found.left_alone) == ["first"]
    assert found.left_alone["first"].startswith("not made separable: it reads an input")


def test_what_can_not_be_narrower_is_left_and_listed():
    x = inputs = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(8, 3, name="free")(x)
    x = layers.Conv2D(8, 3, name="before_groups")(x)
    x = layers.Conv2D(8, 1, groups=2, name="grouped")(x)
    x = layers.Reshape((2, -1), name="rows")(x)
    x = layers.LSTM(6, name="gates")(x)
    model = models.settle(keras.Model(inputs, layers.Dense(2, name="label")(x)))

    found = derive_student(model, width=0.5)

    assert found.channels == {"free": (4, 8)}
    assert found.left_alone == {
        "before_groups": "'grouped', a Conv2D, takes all its channels as they are",
        "grouped": "its channels are in groups",
        "gates": "the gates of recurrent layers keep their size",
        "label": "its channels are those of an output",
    }
    assert_runs_like(found.model, model)


def test_excluded_layers_stay_as_they_are():
    model = residual()
    found = derive_student(model, exclude=("a1",))
    assert found.left_alone["a1"] == "excluded, as 'a1'"
    for ours, theirs in zip(
        found.model.get_layer("a1").get_weights(), model.get_layer("a1").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UnknownNameError, match="Did you mean 'a1'"):
        derive_student(model, exclude=("a11",))


def test_a_shared_layer_stays_shared():
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    shared = layers.Dense(8, activation="relu", name="shared")
    both = layers.Concatenate()([shared(left), shared(right)])
    model = models.settle(keras.Model([left, right], layers.Dense(1, name="score")(both)))
    found = derive_student(model, width=0.5)
    assert found.channels == {"shared": (4, 8)}
    assert len(found.model.get_layer("shared").get_weights()[1]) == 4
    assert found.model.count_params() == 6 * 4 + 4 + 8 + 1
    assert_runs_like(found.model, model)


def test_models_within_are_taken_apart_and_their_outputs_keep_their_names():
    body = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="dense"), layers.Dense(4, name="last")],
        name="body",
    )
    head = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="dense")], name="head")
    x = keras.Input((6,), name="x")
    model = models.settle(keras.Model(x, head(body(x, training=False))))
    found = derive_student(model, width=0.5)
    assert signature_of(found.model).output_names == ("head",)
    assert set(found.channels) == {"body/dense", "body/last"}
    assert_runs_like(found.model, model)


def test_frozen_layers_are_taught_again():
    model = residual()
    model.trainable = False
    student = derive_student(model).model
    assert len(student.trainable_weights) == len(residual().trainable_weights)


def test_the_teacher_stays_as_it_is():
    model = residual()
    before, config = model.get_weights(), model.get_config()
    derive_student(model, depth=0.5, separable=True)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert model.get_config() == config


def test_a_student_is_a_keras_file_like_any_other(tmp_path):
    student = derive_student(residual(), depth=0.5, separable=True).model
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(answers(again)[0], answers(student)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": 0.0}, "width must lie in"),
        ({"width": float("nan")}, "width must lie in"),
        ({"macs": 1.5}, "macs must lie in"),
        ({"depth": -0.1}, "depth must lie in"),
    ],
)
def test_arguments_out_of_range_are_refused(given, said):
    with pytest.raises(ParameterError, match=said):
        derive_student(models.mlp(), **given)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (models.subclassed, "called by code of its own class, Own"),
        (lambda: keras.Sequential([layers.Dense(3)]), "was never called"),
    ],
)
def test_models_that_show_no_layers_are_refused(make, said):
    with pytest.raises(ModelError, match=said):
        derive_student(make())


KINDS = ("conv", "depthwise", "separable", "norm", "relu", "pool", "add", "join", "weigh", "turn")


def network(channels, steps, flat, hidden):
    """Return a small convolutional network: rows of layers, branches that are added, joined or weighed, and a head.

    Args:
        channels: Of the image.
        steps: Pairs of a kind of `KINDS` and a number, which is a width where the kind has one.
        flat: Whether the maps are written in a row, and not averaged.
        hidden: The width before the last layer.
    """
    x = inputs = keras.Input((6, 6, channels), name="image")
    for kind, n in steps:
        x = _next(x, kind, n)
    x = layers.Flatten()(x) if flat else layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(hidden, activation="relu")(x)
    return models.settle(keras.Model(inputs, layers.Dense(3, name="label")(x)))


def _next(x, kind, n):
    width = x.shape[-1]
    if kind == "add":
        return layers.Add()([x, layers.Conv2D(width, 3, padding="same", activation="relu")(x)])
    if kind == "join":
        return layers.Concatenate()([x, layers.Conv2D(n, 1)(x)])
    if kind == "weigh":
        pooled = layers.Reshape((1, 1, width))(layers.GlobalAveragePooling2D()(x))
        return x * layers.Dense(width, activation="sigmoid")(pooled)
    made = {
        "conv": lambda: layers.Conv2D(n, 3, padding="same"),
        "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + n % 2),
        "separable": lambda: layers.SeparableConv2D(n, 3, padding="same", depth_multiplier=2),
        "norm": lambda: layers.LayerNormalization() if n % 2 else layers.BatchNormalization(),
        "relu": lambda: layers.PReLU() if n % 2 else layers.ReLU(),
        "pool": lambda: layers.MaxPooling2D(2, strides=1, padding="same"),
        "turn": lambda: layers.Conv2DTranspose(n, 3, padding="same"),
    }
    return made[kind]()(x)


steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 6)), min_size=1, max_size=6)


@settings(max_examples=15)
@given(
    st.builds(dict, channels=st.integers(1, 4), steps=steps, flat=st.booleans(), hidden=st.integers(2, 6)),
    st.floats(0.1, 1.0),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
)  # fmt: skip
def test_students_of_any_network_build_and_keep_the_signature(drawn, width, depth, separable):
    model = network(**drawn)
    found = derive_student(model, width=width, depth=depth, separable=separable)
    assert_runs_like(found.model, model)
    # Where there is next to nothing, two layers cost more than one.
    assert separable or found.macs[0] <= found.macs[1]
    if not found.is_smaller:
        np.testing.assert_allclose(answers(found.model)[0], answers(model)[0], atol=1e-4)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.builds(dict, channels=st.integers(1, 4), steps=steps, flat=st.booleans(), hidden=st.integers(2, 6)),
    st.floats(0.3, 1.0),
)  # fmt: skip
def test_budgets_are_kept_by_students_of_any_network(drawn, share):
    model = network(**drawn)
    try:
        found = derive_student(model, macs=share)
    except ParameterError as error:
        assert "no student comes to" in str(error)  # noqa: PT017 - some networks are as small as can be
        return
    assert found.macs[0] <= share * found.macs[1]
    assert_runs_like(found.model, model)
