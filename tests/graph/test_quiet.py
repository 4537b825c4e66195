import subprocess
import sys

NOISY = """
import logging, os, sys, warnings
from strop.graph.quiet import quiet
print("before", flush=True)
with quiet():
    with quiet():
        os.write(1, b"native out\\n")
    os.write(2, b"native err\\n")
    print("python out")
    warnings.warn("a warning")
    logging.getLogger("tensorflow").error("an error")
print("after")
print("still there", file=sys.stderr)
"""


def test_what_is_printed_within_is_not_seen_and_what_comes_after_is():
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True)

    assert done.stdout == "before\nafter\n"
    assert done.stderr == "still there\n"


def test_a_file_keeps_what_is_printed_for_whoever_asks_why_a_process_died(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-c", NOISY], stdout=file, stderr=file)

    assert "native err" in log.read_text()


def test_openvino_can_not_send_telemetry():
    code = (
        "from strop.graph.quiet import stay_offline\n"
        "stay_offline()\n"
        "import openvino.tools.ovc.telemetry_utils as t\n"
        "print(t.tm.__name__)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
