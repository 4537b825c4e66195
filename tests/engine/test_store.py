"""The store: an entry is whole or not there at all."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from strop.core.contracts import Unchanged
from strop.core.errors import OutputError, SamplesError, TrialError
from strop.core.model import Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.engine.store import Store

SIGNATURE = Signature(
    (TensorSpec("x", (None, 2), "float32"),), (TensorSpec("y", (None, 1), "float32"),)
)


def kept(store: Store, key: str, content: bytes = b"weights") -> Model:
    with store.draft() as draft:
        (draft / "model.tflite").write_bytes(content)
        return store.put(key, Model.at(Form.LITERT, draft / "model.tflite", SIGNATURE), draft)


def be_out_of_room(folder: Path) -> None:
    (folder / "epoch").touch()
    raise OutputError("no room")


def fail_halfway(draft: Path) -> None:
    (draft / "half").write_bytes(b"half")
    raise RuntimeError


def test_what_was_put_is_found_by_another_store_of_the_folder(tmp_path):
    put = kept(Store(tmp_path), "key")

    found = Store(tmp_path).get("key")

    assert found == put
    assert found.path.read_bytes() == b"weights"


def test_nothing_is_found_under_another_key(tmp_path):
    store = Store(tmp_path)
    kept(store, "key")
    assert store.get("other") is None


def test_unchanged_is_kept_with_its_reason(tmp_path):
    store = Store(tmp_path)
    with store.draft() as draft:
        store.put("key", Unchanged("nothing to fold"), draft)
    assert Store(tmp_path).get("key") == Unchanged("nothing to fold")


def test_a_draft_that_fails_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.draft() as draft:
        fail_halfway(draft)
    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_killed_process_is_swept(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from strop.engine.store import Store\n"
        "with Store(Path(sys.argv[1])).draft() as draft:\n"
        "    (draft / 'half').write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert [path.name.startswith("draft-") for path in tmp_path.iterdir()] == [True]

    Store(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_living_process_stays(tmp_path):
    with Store(tmp_path).draft() as draft:
        Store(tmp_path)
        assert draft.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.tflite", b"weightz"),
        ("entry.json", b'{"model": {'),
        ("entry.json", b"{}"),
        ("entry.json", b"null"),
        ("entry.json", b"[]"),
        ("entry.json", b'{"model": null}'),
    ],
)
def test_a_damaged_entry_is_noticed_dropped_and_made_again(tmp_path, file, content):
    kept(Store(tmp_path), "key")
    (tmp_path / "key" / file).write_bytes(content)
    store = Store(tmp_path)

    assert store.get("key") is None

    kept(store, "key", b"again")
    assert Store(tmp_path).get("key").path.read_bytes() == b"again"


def test_an_entry_with_a_changed_key_is_made_again(tmp_path):
    kept(Store(tmp_path), "key")
    entry = tmp_path / "key" / "entry.json"
    entry.write_text(entry.read_text().replace('"scale"', '"scala"'))
    assert Store(tmp_path).get("key") is None


def test_an_entry_whose_model_is_gone_is_made_again(tmp_path):
    kept(Store(tmp_path), "key")
    (tmp_path / "key" / "model.tflite").unlink()
    store = Store(tmp_path)
    assert store.get("key") is None
    assert kept(store, "key").path.exists()


def test_an_entry_that_another_made_while_ours_was_a_draft_stays(tmp_path):
    store = Store(tmp_path)
    with store.draft() as draft:
        (draft / "model.tflite").write_bytes(b"ours")
        kept(Store(tmp_path), "key", b"theirs")
        store.put("key", Model.at(Form.LITERT, draft / "model.tflite", SIGNATURE), draft)

    assert (tmp_path / "key" / "model.tflite").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_two_processes_may_make_the_same_entry_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2]); from test_store import kept; from strop.engine.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for i in range(200): kept(store, f'key{i}', b'same')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint

    store = Store(tmp_path)

    assert all(store.get(f"key{i}") is not None for i in range(200))
    assert len(list(tmp_path.iterdir())) == 200


def test_a_full_or_forbidden_disk_is_an_output_error_that_says_what_to_do(tmp_path):
    store = Store(tmp_path / "store")
    (tmp_path / "store").rmdir()
    with pytest.raises(OutputError) as caught, store.draft():
        pass
    assert "could not write beneath" in str(caught.value)
    assert f"\n  df -h {tmp_path / 'store'}" in str(caught.value)


def end_after(epoch: int, folder: Path, error: type[BaseException]) -> None:
    (folder / "epoch").write_text(str(epoch))
    raise error


def test_what_long_work_goes_on_from_outlives_an_interruption_and_nothing_else(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.unfinished("a") as folder:
        end_after(7, folder, KeyboardInterrupt)
    with store.unfinished("a") as folder:
        assert (folder / "epoch").read_text() == "7"
    with store.unfinished("a") as folder:  # it was finished, so it begins anew
        assert not (folder / "epoch").exists()
        (folder / "epoch").write_text("1")
    with pytest.raises(TrialError), store.unfinished("a") as folder:
        end_after(2, folder, TrialError)
    with store.unfinished("a") as folder:
        assert not (folder / "epoch").exists()


def test_what_is_unfinished_outlives_a_full_disk(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(OutputError), store.unfinished("a") as folder:
        be_out_of_room(folder)
    with store.unfinished("a") as folder:
        assert (folder / "epoch").exists()


def test_two_at_once_do_not_go_on_from_the_same_place(tmp_path):
    with Store(tmp_path).unfinished("a") as mine, Store(tmp_path).unfinished("a") as other:
        assert mine.exists()
        assert other is None
    assert not mine.exists()


def test_a_slip_in_the_next_command_does_not_lose_it(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.unfinished("a") as folder:
        end_after(7, folder, KeyboardInterrupt)
    with pytest.raises(SamplesError), store.unfinished("a") as folder:
        raise SamplesError
    with store.unfinished("a") as folder:
        assert (folder / "epoch").read_text() == "7"
    with pytest.raises(SamplesError), store.unfinished("b") as folder:  # nothing was there before
        raise SamplesError
    assert not folder.exists()


def test_a_place_that_another_has_just_done_with_is_not_taken(tmp_path, monkeypatch):
    folder = tmp_path / "unfinished" / "a"
    monkeypatch.setattr("strop.engine.store.fcntl.flock", lambda *_: shutil.rmtree(folder))
    with Store(tmp_path).unfinished("a") as given:
        assert given is None
