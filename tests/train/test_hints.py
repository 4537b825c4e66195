"""What layers within are compared where nobody names them, and what happens where there is nothing to compare."""

import keras
import numpy as np
import pytest
from keras import layers

from strop import passes
from strop.core.errors import ParameterError
from strop.core.samples import Samples
from strop.graph.keras_models import signature_of
from strop.train.fine_tuning import FineTuning, fine_tune
from strop.train.hints import LOGITS, METHODS, hints_of, mistakes
from strop.train.quantization import Quantization, quantization_aware
from tests import models

COUNT = 48


def image():
    return keras.Input((8, 8, 1), name="image")


def convnet(*, dtype=None, gate=False):
    """Two convolutions, the second's channels perhaps weighed by a gate that is open as far as it goes."""
    keras.utils.set_random_seed(0)
    x = given = image()
    x = layers.Conv2D(4, 3, activation="relu", padding="same", name="first", dtype=dtype)(x)
    if gate:
        opened = layers.Dense(
            4, activation="hard_sigmoid", bias_initializer=keras.initializers.Constant(9.0), name="gate"
        )(layers.GlobalAveragePooling2D()(x))  # fmt: skip
        x = layers.Multiply()([x, opened])
    x = layers.Conv2D(6, 3, activation="relu", name="second", dtype=dtype)(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    return keras.Model(given, layers.Dense(3, activation="softmax", name="kind", dtype=dtype)(x))


def off(model, by=0.1):
    """Return a model of the same layers whose weights are a little off."""
    copy, noise = keras.models.clone_model(model), np.random.default_rng(0)
    copy.set_weights(
        [w + noise.normal(0, by, w.shape).astype(w.dtype) for w in model.get_weights()]
    )
    return copy


def tuned(model, teacher, **settings):
    x = np.random.default_rng(1).normal(size=(COUNT, 8, 8, 1)).astype("float32")
    settings = {
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 0.01,
        "method": "features",
        **settings,
    }
    return fine_tune(
        model, Samples({"image": x}), signature_of(teacher), FineTuning(**settings), teacher=teacher
    )  # fmt: skip


def test_what_recipes_may_name_is_what_there_is():
    assert passes.METHODS == METHODS


def test_what_makes_any_of_the_answers_is_no_feature():
    keras.utils.set_random_seed(0)
    given = image()
    x = layers.Conv2D(4, 3, activation="relu", padding="same", name="first")(given)
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    kind = layers.Dense(3, activation="softmax", name="kind")(x)
    model = keras.Model(given, [kind, mask])
    for method in ("features", "attention"):
        assert hints_of(off(model), model, method).pairs == (("first", "first"),)


def test_a_model_within_is_compared_as_a_whole():
    keras.utils.set_random_seed(0)
    within = keras.Sequential([layers.Conv2D(4, 3, activation="relu")], name="backbone")
    given = image()
    x = layers.GlobalAveragePooling2D()(within(given))
    x = layers.Dense(5, activation="relu", name="hidden")(x)
    model = keras.Model(given, layers.Dense(3, name="kind")(x))
    assert hints_of(off(model), model, "features").pairs == (
        ("backbone", "backbone"),
        ("hidden", "hidden"),
    )


def test_a_layer_in_two_places_is_compared_in_both():
    keras.utils.set_random_seed(0)
    given, relu = image(), layers.ReLU(name="relu")
    x = relu(layers.Conv2D(4, 3)(given))
    x = relu(layers.Conv2D(5, 3)(x))
    model = keras.Model(given, layers.Dense(3, name="kind")(layers.GlobalAveragePooling2D()(x)))
    hints = hints_of(off(model), model, "features")
    assert hints.pairs == (("relu", "relu"),) * 2
    assert [tensor.shape[-1] for tensor in hints.teacher.outputs] == [3, 4, 5]


def test_a_layer_that_always_gives_the_same_teaches_nothing_and_ruins_nothing():
    teacher = convnet(gate=True)
    student = off(teacher)
    student.get_layer("gate").bias.assign([0.0] * 4)
    found = tuned(student, teacher, learning_rate=0.001)
    assert ("gate", "gate") in found.compared
    assert all(np.abs(weight).max() < 10 for weight in student.get_weights())


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param("mixed_float16", marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
        "bfloat16",
    ],
)
def test_half_precision_is_compared_in_whole(dtype):
    teacher = convnet(dtype=dtype)
    student = off(teacher, by=0.3)
    before = apart(student, teacher)
    found = tuned(student, teacher, epochs=20)
    assert not found.has_diverged
    assert apart(student, teacher) < 0.5 * before


def apart(student, teacher):
    """Return how far the second layer's features are from the teacher's."""
    x = np.random.default_rng(2).normal(size=(COUNT, 8, 8, 1)).astype("float32")
    ours, theirs = (
        np.asarray(keras.Model(one.inputs[0], one.get_layer("second").output)(x)).astype("float32")
        for one in (student, teacher)
    )
    return float(np.square(ours - theirs).mean())


def test_a_method_that_there_is_not_is_refused_without_a_teacher_too():
    samples = Samples(
        {"image": np.zeros((COUNT, 8, 8, 1), "float32")}, {"kind": np.zeros(COUNT, int)}
    )
    model = convnet()
    with pytest.raises(ParameterError, match="method must be one of 'logits'"):
        fine_tune(model, samples, signature_of(model), FineTuning(method="typo"))


LAYERS = (("first", "first"),)


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ({}, ""),
        ({"weight": 3.0}, " Leave out weight then."),
        ({"layers": LAYERS}, " Leave out layers then."),
        ({"weight": 3.0, "layers": LAYERS}, " Leave out weight and layers then."),
    ],
)
def test_who_is_sent_to_the_answers_is_told_which_settings_to_leave_out(given, then):
    with pytest.raises(ParameterError) as refused:
        hints_of(models.subclassed(), convnet(), "features", **given)
    assert str(refused.value).splitlines()[1:] == [
        f"The method 'features' takes Functional and Sequential models; by its answers any can be taught.{then}",
        "  method = 'logits'",
    ]


def test_a_weight_for_a_model_with_nothing_within_is_to_be_left_out():
    one = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ParameterError) as refused:
        hints_of(off(one), one, "relational", weight=3.0)
    assert str(refused.value).splitlines()[1:] == [
        "By its answers it can be taught. Leave out weight then.",
        "  method = 'logits'",
    ]


def test_layers_that_no_method_compares_are_told_with_the_setting_to_change():
    assert mistakes(LOGITS, 1.0, LAYERS) == [
        "layers are compared by the methods 'features', 'attention' and 'relational', and method is 'logits': set it to "
        "one of them, or name no layers"
    ]
    assert mistakes("features", 1.0, LAYERS) == mistakes(LOGITS, 1.0, ()) == []


@pytest.mark.parametrize("method", ["features", "relational"])
@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_a_model_that_learns_to_be_quantized_is_compared_in_the_same_places(method, ranges):
    teacher = convnet()
    aware = quantization_aware(teacher, Quantization(ranges=ranges)).model
    plain = hints_of(off(teacher), teacher, method)
    found = hints_of(aware, teacher, method)
    assert [theirs for _, theirs in found.pairs] == [theirs for _, theirs in plain.pairs]
    shapes = [
        [tuple(tensor.shape) for tensor in model.outputs]
        for model in (found.student, found.teacher)
    ]
    assert shapes[0] == shapes[1]


def test_the_last_kernel_of_one_without_maps_is_not_the_rounding_of_its_answers():
    given = keras.Input((8,), name="x")
    hidden = layers.Dense(6, activation="relu", name="hidden")(given)
    teacher = keras.Model(given, layers.Dense(3, activation="softmax", name="y")(hidden))
    aware = quantization_aware(teacher).model
    ((ours, theirs),) = hints_of(aware, teacher, "relational").pairs
    assert (ours.removesuffix("_range"), theirs) == ("hidden", "hidden")
