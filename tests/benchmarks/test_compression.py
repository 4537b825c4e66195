"""The benchmark of what trains: its figures are read as they were kept, and nothing that judges is trained on."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.compression.answers import gain, kept, read
from benchmarks.compression.beside import SPARSITIES, TECHNIQUES, TOOLS, Beside, Pace
from benchmarks.compression.originals import ORIGINALS, Original
from benchmarks.compression.rows import ROWS
from benchmarks.compression.scale import SMOKE, WHOLE, Scale
from benchmarks.compression.spoken_digits import cepstra, spoken_digits
from benchmarks.compression.table import pace_tables, tables
from benchmarks.places import CaseUnavailableError
from strop.core.model import Form
from strop.core.recipe import Recipe
from strop.engine.running import mistakes


@given(arrays(np.bool_, st.integers(1, 40)))
def test_answers_are_read_as_they_were_kept(right):
    np.testing.assert_array_equal(read(kept(right)), right)


def test_a_gain_is_in_points_of_the_mean_over_seeds():
    before = [np.array([True, False, False, False])] * 2
    after = [np.array([True, True, False, False]), np.array([True, False, False, False])]

    found = gain(after, before)

    assert found.value == pytest.approx(12.5)
    assert found.low < 0 < found.high


def test_a_gain_over_oneself_is_none():
    right = [np.arange(1000) % 7 > 0]

    found = gain(right, right)

    assert (found.value, round(found.low, 2), round(found.high, 2)) == (0, -0.38, 0.38)


def test_no_row_and_no_file_of_figures_has_the_name_of_another():
    names = [one.name for one in (*ROWS, *map(Beside, SPARSITIES), Pace())]

    assert len(set(names)) == len(names)
    assert Beside(0.7).name == "beside-70"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_steps_of_a_row_lead_to_what_its_engine_runs(row):
    found = [
        mistakes(Recipe(tuple(steps), runtime), Form.KERAS)
        for runtime, steps in row.ways(WHOLE).values()
    ]

    assert found == [[]] * len(found)


def test_only_an_epoch_is_trained_to_see_that_all_works():
    row = next(row for row in ROWS if row.name == "prune-70-cluster-16-int8")

    (_, steps) = row.ways(SMOKE)["aware litert"]

    assert [step.settings.get("epochs") for step in steps] == [1, 1, 1, None]


def test_none_of_the_samples_that_judge_is_given_to_strop(tmp_path, monkeypatch):
    monkeypatch.setenv("STROP_BENCH_CACHE", str(tmp_path))
    x, y = np.arange(400, dtype=np.uint8).reshape(-1, 1), np.zeros(400)
    drawn = {"x_train": x[:250], "y_train": y[:250], "x_test": x[250:], "y_test": y[250:]}
    original = Original("counting", "counting", lambda scale: tmp_path, lambda: drawn)

    with np.load(original.lessons(Scale("tiny", lessons=200, tests=10))) as lessons:
        given = np.unique(np.concatenate([lessons["x_train"], lessons["x_test"]]))

    np.testing.assert_array_equal(given, np.arange(200))
    assert len(original.tests(Scale("tiny", tests=10))[0]) == 10


def test_loudness_moves_the_first_coefficient_alone():
    clip = np.random.default_rng(0).normal(0, 0.1, (1, 8000)).astype(np.float32)

    once, twice = cepstra(clip), cepstra(2 * clip)

    assert once.shape == (1, 49, 10, 1)
    # The logarithm of each of the 40 bands grows by that of 4, which orthonormal cosines gather in the first: ln 4 · √40.
    np.testing.assert_allclose((twice - once)[..., 0, 0], np.log(4) * np.sqrt(40), atol=1e-3)
    np.testing.assert_allclose((twice - once)[..., 1:, 0], 0, atol=1e-3)


def test_spoken_digits_are_shared_out_by_speaker_and_digit():
    try:
        samples = spoken_digits(copies=1)
    except CaseUnavailableError as reason:
        pytest.skip(str(reason))

    assert samples["x_train"].shape == samples["x_test"].shape == (1000, 49, 10, 1)
    np.testing.assert_array_equal(np.bincount(samples["y_test"]), [100] * 10)
    assert np.isfinite(samples["x_train"]).all()


def test_tables_say_what_was_asked_beside_what_was_found(tmp_path):
    right = np.arange(200) % 10 > 0
    worse = right & (np.arange(200) != 5)
    one = {"right": kept(right), "zipped": 900, "kernels": {}}
    made = {"right": kept(worse), "zipped": 300, "kernels": {"int8": 5, "u8": 4, "float32": 1}}
    _put(tmp_path, "prune-70-0", {"original": one, "made": {"keras": made}})
    ways = {
        f"{how} {engine}": made if how == "static" else one
        for how in ("aware", "static")
        for engine in ("litert", "openvino")
    }
    _put(tmp_path, "int8-resnet8-0", {"original": one, "made": ways})
    taught = {"distilled keras": one, "alone keras": made}
    _put(tmp_path, "student-0", {"original": one, "made": taught})
    tools = {tool: {"right": kept(right), "zeros": 0.5} for tool in TOOLS}
    _put(tmp_path, "beside-50-0", tools)
    seconds = {"plain": 1.0, "prune": 1.05, "cluster": 1.2}
    epochs = {f"{tool} {name}": [seconds[name]] * 6 for tool in TOOLS for name in TECHNIQUES}
    _put(tmp_path, "pace-0", {"epochs": epochs})

    lines = [*tables(tmp_path), *pace_tables(tmp_path)]

    pruned = next(line for line in lines if "pruned to 70 %" in line)
    assert pruned.startswith(
        "| ResNet-8, CIFAR-10 | pruned to 70 % | keras | 9 of 10 | 1 | 90.00 | 89.50 | 0.50 (0.50) |"
    )
    assert pruned.endswith("| ≤ 1.0 | 3.00 | ≥ 2.5 |")
    (aware,) = [line for line in lines if "| openvino |" in line]
    assert "| 90.00 | 89.50 | 90.00 | 0.50 (0.50) |" in aware
    (student,) = [line for line in lines if "| keras |  | 1 |" in line and "pruned" not in line]
    assert student.endswith("| 0.50 (0.50) | -1.39 to 2.78 | no |")
    assert any(line.startswith("| 50% | 1 | 50.0% | 50.0% |") for line in lines)
    assert any("1.050 (1.050 to 1.050) | 1.200 (1.200 to 1.200) | ≤ 1.1" in line for line in lines)


def _put(folder, name, figures):
    (folder / f"{name}.json").write_text(json.dumps(figures))


def test_networks_are_there_or_say_why():
    assert set(ORIGINALS) == {"resnet8", "dscnn", "swish"}


@pytest.mark.parametrize(
    ("technique", "zeros", "values"), [("prune", 0.5, None), ("cluster", 0.0, 4)]
)
def test_a_lesson_is_carried_out_with_strop(
    tmp_path, monkeypatch, capsys, technique, zeros, values
):
    import keras

    from benchmarks.peers.lesson import Lesson, carry_out
    from benchmarks.peers.with_strop import treat

    random = np.random.default_rng(0)
    x, y = random.normal(size=(96, 8)), random.integers(0, 3, 96)
    np.savez(tmp_path / "samples.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Dense(16)(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    lesson = Lesson(
        str(tmp_path / "model.keras"),
        str(tmp_path / "samples.npz"),
        technique,
        epochs=2,
        sparsity=0.5,
        clusters=4,
        batch=16,
    )
    monkeypatch.setattr(sys, "argv", ["lesson", lesson.to_argument()])

    carry_out(keras, keras.models.load_model, treat)

    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(told["seconds"]) == 2
    assert read(told["right"]).shape == (96,)
    assert told["zeros"] == pytest.approx(zeros)
    assert values is None or told["values"] == values
