"""The report and the artifact of a real study: opened, read, loaded and run as a user would."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import strop


def test_the_winner_keeps_the_limit(result):
    assert result.outcome.confirmed.drop.value <= 0.01
    assert result.outcome.best in result.outcome.trials


def test_trials_csv_has_every_trial_with_its_state(result):
    with (result.folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.outcome.trials)
    assert list(rows[0])[:6] == ["number", "state", "recipe", "reason", "metric", "drop"]
    assert "latency_p50@1 [ms]" in rows[0]
    assert "size [bytes]" in rows[0]
    assert sorted(int(row["number"]) for row in rows) == list(range(1, len(rows) + 1))
    assert [row["state"] for row in rows].count("best") == 1
    for row in rows:
        assert row["reason"] or row["state"] in ("baseline", "compared"), row


# Of the demonstration's network: outputs · weights of one of their channels, layer by layer.
MACS = 64 * 32 * 9 + 64 * 64 * 9 * 32 + 16 * 64 * 9 * 64 + 10 * 64
PARAMETERS = 9 * 32 + 4 * 32 + 9 * 32 * 64 + 4 * 64 + (9 * 64 + 1) * 64 + (64 + 1) * 10


def test_the_originals_operations_are_counted_kept_and_told(result):
    certificate = json.loads((result.folder / "best" / "certificate.json").read_text())
    counted = certificate["baseline"]["measurements"]
    assert (counted["macs"]["value"], counted["parameters"]["value"]) == (MACS, PARAMETERS)
    said = f"The original has {PARAMETERS:,} parameters and takes {MACS:,} multiply-accumulates"
    assert said in result.report()
    assert said in (result.folder / "report.html").read_text()


def test_all_that_was_measured_is_told_of_original_and_winner(result):
    text, page = result.report(), (result.folder / "report.html").read_text()
    labels = [
        *(f"latency, {part}, batch 1" for part in ("median", "90 %", "99 %")), "throughput, batch 1",
        "size on disk", "size zipped", "cold start", "peak memory, over the process before",
        "resident memory, all of the process",
    ]  # fmt: skip
    for label in labels:
        before, after = re.search(rf"^\| {label} \| (.+) \| (.+) \|$", text, re.M).groups()
        assert "–" not in (before, after), label
        assert f"<td>{label}</td><td>{before}</td><td>{after}</td>" in page


def opened(page, scratch):
    """Return a page as headless Chromium sees it after its scripts ran, and what they wrote to the console."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to open the page in")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={scratch / 'p'}",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=5000",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_the_page_asks_nothing_of_the_network_and_its_scripts_do_not_fail(result, tmp_path):
    seen, said = opened(result.folder / "report.html", tmp_path)
    assert said == []
    assert "<svg" in seen
    page = (result.folder / "report.html").read_text()
    assert re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']?https?:", page) == []
    assert re.findall(r"<link[^>]+href=[\"']?https?:", page) == []


# What the frame shows is told by the page around it, since a dumped page holds a frame as it was written.
_LOOK_INTO_FRAME = """<script>addEventListener("load", () => setTimeout(() => {
  const inside = document.querySelector("iframe").contentDocument;
  document.title = [inside.querySelectorAll("table tbody tr").length, inside.querySelectorAll("svg").length].join();
}, 2000))</script>"""


def test_in_a_notebook_the_result_shows_the_table_and_the_picture(result, tmp_path):
    cell = f"<!doctype html><body>{result._repr_html_()}{_LOOK_INTO_FRAME}</body>"
    (tmp_path / "cell.html").write_text(cell)
    seen, said = opened(tmp_path / "cell.html", tmp_path)
    assert said == []
    rows, pictures = map(int, re.search(r"<title>(\d+),(\d+)</title>", seen).groups())
    assert rows >= len(result.outcome.trials)
    assert pictures > 0


def test_the_artifact_answers_as_its_certificate_says(result):
    with (
        strop.load(result.folder / "best") as predictor,
        np.load(result.folder / "best" / "reference.npz") as stored,
    ):
        found = predictor(stored["input_0"])
        # The same engine, file and machine: the same bits, but for threads that may add in another order.
        np.testing.assert_allclose(found, stored["output_0"], atol=1e-6)


def test_the_artifact_verifies(result):
    assert strop.verify(result.folder / "best").holds


def test_the_readmes_lines_run_without_strop_and_agree(result, tmp_path):
    folder = shutil.copytree(result.folder / "best", tmp_path / "best")
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    snippet = next(block for block in blocks if "strop" not in block)
    script = snippet + "\nimport sys\nassert 'strop' not in sys.modules\n"
    script += "np.savez('found.npz', inputs[0], *outputs)\n"
    subprocess.run(
        [sys.executable, "-c", script], cwd=folder, check=True, capture_output=True, timeout=120
    )
    with np.load(folder / "found.npz") as found, strop.load(folder) as predictor:
        wanted = predictor(np.zeros(found["arr_0"].shape, "float32"))
        np.testing.assert_allclose(found["arr_1"], wanted, atol=1e-6)


def test_an_artifact_that_was_changed_is_refused(result, tmp_path):
    folder = shutil.copytree(result.folder / "best", tmp_path / "best")
    with next(p for p in folder.iterdir() if p.stem.startswith("model")).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(strop.StropError, match="its digest differs"):
        strop.load(folder)


def test_the_markdown_names_every_recipe(result):
    text = result.report()
    for trial in result.outcome.trials:
        assert str(trial.recipe) in text
