"""A student taught by a larger model: by what it answers, and by what goes on within it."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from strop.core.errors import ModelError, ParameterError, UnknownNameError
from strop.core.samples import Samples
from strop.graph.keras_files import load
from strop.graph.keras_models import signature_of
from strop.train.distillation import Distillation, distill
from strop.train.fine_tuning import FineTuning, fine_tune
from strop.train.hints import (
    METHODS,
    AttentionDistillation,
    RelationalDistillation,
)
from strop.train.lessons import answers_of
from strop.train.losses import Kind, distillation_loss


def net(width=12, *, seed=1, compiled=False, outputs=3, name="image"):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name=name),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="first"),
            layers.MaxPooling2D(name="smaller"),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu", name="second"),
            layers.GlobalAveragePooling2D(name="pooled"),
            layers.Dense(outputs, activation="softmax", name="kind"),
        ]
    )
    if compiled:
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def drawn(count=320, *, seed=0):
    """Images with a bright bar: upright, level or slanted."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 0.4, (count, 8, 8, 1)), rng.integers(0, 3, count)
    for image, kind, place in zip(x, y, rng.integers(1, 7, count), strict=True):
        if kind == 2:
            image[range(8), range(8)] += 1.5
        else:
            image[(slice(None), place) if kind else place] += 1.5
    return x.astype("float32"), y


def samples(*, labelled=True, count=320):
    x, y = drawn(count)
    return Samples({"image": x}, {"kind": y} if labelled else {})


def share_right(model):
    x, y = drawn(seed=1)
    return float(np.mean(np.argmax(ops.convert_to_numpy(model(x)), -1) == y))


def apart(model, other):
    x, _ = drawn(seed=1)
    return float(np.abs(ops.convert_to_numpy(model(x)) - ops.convert_to_numpy(other(x))).mean())


def taught(student, teacher, given=None, **settings):
    chosen = {"epochs": 6, "batch_size": 32, "learning_rate": 0.03, **settings}
    return distill(
        student, teacher, given or samples(), signature_of(teacher), Distillation(**chosen)
    )


@pytest.fixture(scope="module")
def teacher():
    model, (x, y) = net(compiled=True), drawn(640)
    model.fit(x, y, epochs=10, batch_size=32, verbose=0)
    assert share_right(model) > 0.95
    return model


@pytest.mark.parametrize("method", METHODS)
def test_a_student_learns_without_labels_by_every_method(teacher, method):
    student = net(6, seed=3)
    before = apart(student, teacher)

    found = taught(student, teacher, samples(labelled=False), method=method)

    assert not found.has_diverged
    assert found.taught_by.startswith("the original's answers")
    assert share_right(student) > 0.85
    assert apart(student, teacher) < 0.5 * before


def test_labels_are_learnt_too_where_there_are_any(teacher):
    found = taught(net(6, seed=3), teacher, method="attention", epochs=1)
    assert found.taught_by == (
        "sparse_categorical_crossentropy and the original's answers and the original's attention maps"
    )


def test_the_teacher_stays_as_it_is(teacher):
    before, was_trainable = teacher.get_weights(), [w.trainable for w in teacher.weights]
    taught(net(6, seed=3), teacher, method="features", epochs=1)
    for was, now in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert [w.trainable for w in teacher.weights] == was_trainable


def test_what_projects_features_is_no_part_of_the_student(teacher):
    student = net(6, seed=3)
    count = student.count_params()
    found = taught(student, teacher, method="features", epochs=2)
    assert found.compared == (("second", "second"),)
    assert student.count_params() == count
    assert [layer.name for layer in student.layers] == [layer.name for layer in teacher.layers]


def given_by(model, layer):
    """Return what a layer gives for a hundred images."""
    within = keras.Model(model.inputs[0], model.get_layer(layer).output)
    return ops.convert_to_numpy(within(drawn(100, seed=1)[0]))


def unexplained(student, teacher):
    """Return the share of the variance of the teacher's features that no linear function of the student's gives."""
    ours, wanted = (given_by(m, "first").reshape(-1, w) for m, w in ((student, 6), (teacher, 12)))
    ours = np.column_stack([ours, np.ones(len(ours))])
    best = ours @ np.linalg.lstsq(ours, wanted, rcond=None)[0]
    return np.sum((wanted - best) ** 2) / np.sum((wanted - wanted.mean(0)) ** 2)


def attention_apart(student, teacher):
    loss = AttentionDistillation()
    return float(loss.compute_loss(given_by(teacher, "first"), given_by(student, "first")))


def relations_apart(student, teacher):
    loss = RelationalDistillation()
    return float(loss.compute_loss(given_by(teacher, "pooled"), given_by(student, "pooled")))


@pytest.mark.slow
def test_what_is_taught_within_is_learnt_that_answers_do_not_teach(teacher):
    by_answers = net(6, seed=4)
    taught(by_answers, teacher, epochs=8, learning_rate=0.02)
    for method, apart_within, layers_compared in (
        ("features", unexplained, (("first", "first"),)),
        ("attention", attention_apart, ()),
        ("relational", relations_apart, ()),
    ):
        student = net(6, seed=4)
        taught(
            student, teacher,
            method=method, layers=layers_compared, weight=5.0, epochs=8, learning_rate=0.02,
        )  # fmt: skip
        assert apart_within(student, teacher) < 0.7 * apart_within(by_answers, teacher), method


@pytest.mark.parametrize("method", ["logits", "attention"])
def test_images_can_be_changed_at_each_step(teacher, method):
    student = net(6, seed=3)
    found = taught(student, teacher, method=method, augment=("shift", "mix"), epochs=8)
    assert not found.has_diverged
    assert share_right(student) > 0.8


def test_what_has_all_of_the_originals_layers_is_taught_all_that_activations_within_give(teacher):
    """Fine-tuning, as of a pruned network: its features come back to the original's."""
    changed = a_little_off(teacher)
    x, _ = drawn()
    view = keras.Model(changed.inputs, changed.get_layer("second").output)
    original = keras.Model(teacher.inputs, teacher.get_layer("second").output)
    wanted, before = original.predict(x, verbose=0), view.predict(x, verbose=0)

    found = fine_tune(
        changed, samples(labelled=False), signature_of(teacher),
        FineTuning(epochs=30, learning_rate=0.003, method="features", weight=10.0), teacher=teacher,
    )  # fmt: skip

    assert found.compared == (("first", "first"), ("second", "second"))
    assert found.taught_by == "the original's answers and the original's features"
    after = view.predict(x, verbose=0)
    assert np.square(after - wanted).mean() < 0.1 * np.square(before - wanted).mean()


def a_little_off(model):
    """Return a model of its layers whose weights are a little off."""
    copy = keras.models.clone_model(model)
    noise = np.random.default_rng(0)
    copy.set_weights(
        [w + noise.normal(0, 0.1, w.shape).astype("float32") for w in model.get_weights()]
    )
    return copy


def test_attention_is_taught_at_the_last_maps_of_each_size(teacher):
    found = taught(net(6, seed=3), teacher, method="attention", epochs=1)
    assert found.compared == (("first", "first"), ("second", "second"))


def test_relations_are_taught_where_the_last_layer_reads(teacher):
    found = taught(net(6, seed=3), teacher, method="relational", epochs=1)
    assert found.compared == (("pooled", "pooled"),)


def test_layers_can_be_named(teacher):
    found = taught(
        net(6, seed=3), teacher, method="attention", layers=(("smaller", "second"),), epochs=1
    )
    assert found.compared == (("smaller", "second"),)


def test_training_that_diverges_keeps_the_best_weights(teacher):
    student = net(6, seed=3)
    student.compile(keras.optimizers.SGD(1e30), "sparse_categorical_crossentropy")
    before = student.get_weights()
    found = taught(student, teacher, method="features", learning_rate=None)
    assert found.has_diverged
    assert found.best is None
    for was, now in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_interrupted_training_goes_on_with_its_projections(tmp_path, teacher):
    class Interruption(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    settings = Distillation(epochs=4, batch_size=32, learning_rate=0.01, method="features")
    of, backup = signature_of(teacher), tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        distill(
            net(4), teacher, samples(), of, settings, backup=backup, callbacks=[Interruption()]
        )
    found = distill(net(4), teacher, samples(), of, settings, backup=backup)
    assert len(found.losses) == 2


def test_a_model_of_its_own_class_is_taught_by_answers_alone(teacher):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = layers.Dense(3, activation="softmax")
            self.row = layers.Flatten()

        def call(self, x):
            return self.last(self.row(x))

    student = Own()
    student(np.zeros((1, 8, 8, 1), "float32"))
    before = apart(student, teacher)
    taught(student, teacher)
    assert apart(student, teacher) < before
    with pytest.raises(ParameterError, match="can't be seen: its layers are called by code of"):
        taught(student, teacher, method="features")


def test_a_student_without_maps_is_taught_before_its_last_layer(teacher):
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(7, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    found = taught(student, teacher, method="features", epochs=1)
    assert found.compared == (("hidden", "pooled"),)
    with pytest.raises(ParameterError, match="maps of the same size"):
        taught(student, teacher, method="attention")


@pytest.mark.parametrize(
    ("student", "said"),
    [
        (lambda: net(4, outputs=4), r"its output 'kind' is float32\[None, 4\], and not float32"),
        (
            lambda: keras.Sequential([keras.Input((4, 4, 1), name="image"), layers.Flatten()]),
            r"its input 'image' is float32\[None, 4, 4, 1\]",
        ),
        (
            lambda: keras.Model(i := [keras.Input((8, 8, 1)), keras.Input((2,))], i[1]),
            "it has 2 inputs, and not 1",
        ),
        (lambda: keras.Sequential([layers.Flatten()]), "was never called"),
    ],
)
def test_a_student_of_another_signature_is_refused(teacher, student, said):
    with pytest.raises(ModelError, match=said):
        taught(student(), teacher)


def test_a_student_may_have_other_names_where_that_is_clear(teacher):
    student = net(4, name="photo")
    found = taught(student, teacher, epochs=1)
    assert found.best == 0


def test_the_refusal_of_another_signature_says_what_is_wanted(teacher):
    with pytest.raises(ModelError) as refused:
        taught(net(4, outputs=4), teacher)
    assert str(refused.value).splitlines()[1:] == [
        "It needs inputs and outputs of the same names, in the same order, with the same shapes and types:",
        "  (image: float32[?,8,8,1]) -> (kind: float32[?,3])",
    ]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"method": "guess"}, ParameterError, "method must be one of 'logits', 'features'"),
        ({"temperature": 0.0}, ParameterError, "temperature must be above 0"),
        ({"weight": float("nan")}, ParameterError, "weight must be at least 0"),
        ({"layers": (("first", "first"),)}, ParameterError, "compared by the methods"),
        (
            {"method": "features", "layers": (("frist", "first"),)},
            UnknownNameError,
            "Did you mean 'first'",
        ),
        (
            {"method": "features", "layers": (("first", "second"),)},
            ParameterError,
            "'first' gives has the sizes 8 x 8, and what the teacher's 'second' gives has 4 x 4",
        ),
        (
            {"method": "attention", "layers": (("pooled", "pooled"),)},
            ParameterError,
            "'pooled' gives no maps",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(teacher, settings, error, said):
    with pytest.raises(error, match=said):
        taught(net(4), teacher, **settings)


def test_a_model_can_not_teach_itself(teacher):
    with pytest.raises(ModelError, match="is the teacher itself"):
        taught(teacher, teacher)


def test_a_small_student_of_the_digits_comes_near_its_teacher(digits):
    teacher = load(digits.model)
    with np.load(digits.data) as data:
        x, y = data["x_train"], data["y_train"]
        unseen, right = data["x_test"], data["y_test"]
    keras.utils.set_random_seed(2)
    student = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(24, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    of = signature_of(teacher)
    given = Samples({of.input_names[0]: x}, {of.output_names[0]: y})

    def answers(model):
        return answers_of(model, Samples({of.input_names[0]: unseen}), of)[0]

    wanted = answers(teacher)
    before = np.abs(answers(student) - wanted).mean()
    settings = Distillation(epochs=15, batch_size=32, learning_rate=0.01)
    distill(student, teacher, given, of, settings)
    found = answers(student)
    assert np.mean(np.argmax(found, -1) == right) > 0.93
    assert np.abs(found - wanted).mean() < 0.25 * before


def features(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_attention_counts_places_and_not_channels_or_sizes():
    loss, some = AttentionDistillation(), features(0, 5, 3, 3, 4)
    more = np.concatenate([some, some], -1)  # twice the energy at each place
    assert float(loss.compute_loss(some, 7 * some)) == pytest.approx(0, abs=1e-6)
    assert float(loss.compute_loss(some, more)) == pytest.approx(0, abs=1e-6)


def test_maps_that_are_active_elsewhere_are_two_apart():
    left, right = np.zeros((2, 4, 1), "float32"), np.zeros((2, 4, 3), "float32")
    left[:, 0], right[:, 3] = 1.0, 2.0
    assert float(AttentionDistillation().compute_loss(left, right)) == pytest.approx(2.0)


@given(st.integers(0, 1000), st.floats(0.1, 10), st.integers(2, 6))
def test_relations_do_not_change_by_turning_and_scaling(seed, scale, width):
    some = features(seed, 6, width)
    turn, _ = np.linalg.qr(features(seed + 1, width + 2, width))
    turned = (scale * some @ turn.T + 1.0).astype("float32")
    # Differences of float32 numbers of about ten have some 1e-6 of error, which distances of 0.1 make tenfold, squared.
    assert float(RelationalDistillation().compute_loss(some, turned)) < 1e-6


def test_relations_of_three_samples_are_those_of_their_triangle():
    # Sides of 3, 4 and 5, whose mean is 4, against three equal ones; each pair stands twice, and each sample at 0.
    right = np.array([[0, 0], [3, 0], [0, 4]], "float32")
    even = np.array([[0, 0], [1, 0], [0.5, 0.75**0.5]], "float32")
    distances = 2 * (0.5 * 0.25**2 + 0 + 0.5 * 0.25**2) / 9
    angles = 2 * sum(0.5 * (cosine - 0.5) ** 2 for cosine in (0.0, 0.6, 0.8)) / 27
    found = RelationalDistillation(angle_weight=3.0).compute_loss(right, even)
    assert float(found) == pytest.approx(distances + 3 * angles, rel=1e-5)


def test_samples_that_are_alike_give_gradients_that_are_numbers():
    tensorflow = pytest.importorskip("tensorflow")
    same = tensorflow.Variable(np.ones((4, 3), "float32"))
    with tensorflow.GradientTape() as tape:
        found = RelationalDistillation().compute_loss(features(0, 4, 3), same)
    assert np.isfinite(tape.gradient(found, same).numpy()).all()


@pytest.mark.parametrize("kind", [AttentionDistillation, RelationalDistillation])
def test_keras_own_distiller_takes_the_losses(teacher, kind):
    student = net(6, seed=3)
    loss = kind("second", "second")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    other = keras.models.clone_model(teacher)  # it is left frozen
    distiller = keras.distillation.Distiller(other, student, [again], student_loss_weight=0.5)
    distiller.compile("adam", "sparse_categorical_crossentropy")
    x, y = drawn(64)
    history = distiller.fit(x, y, epochs=1, verbose=0).history
    assert np.isfinite(history["total_loss"]).all()


@given(st.floats(0.5, 8.0), st.integers(0, 1000))
def test_answers_are_compared_as_keras_compares_them_and_at_any_temperature(temperature, seed):
    wanted, found = features(seed, 7, 4), features(seed + 1, 7, 4)
    ours = distillation_loss(Kind.LOGITS, found, wanted, temperature=temperature)
    # Named by a string, Keras would take the divergence of the logits themselves.
    keras_own = keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence())
    theirs = keras_own.compute_loss(wanted, found)
    # Keras keeps probabilities from 0 by 1e-7, beside which those of logits within 8 of each other are large.
    assert float(ours) == pytest.approx(float(theirs), rel=1e-3, abs=1e-5 * temperature**2)
