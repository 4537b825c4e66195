"""A process on an x86 processor that is told it has no AVX: engines take the kernels of older processors."""

import os
import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


def why_not() -> str:
    """Return why no process can be told so here; empty where one can."""
    file = Path("/proc/cpuinfo")
    if not file.exists() or "cpuid_fault" not in file.read_text():
        return "this system or its processor has no way to trap CPUID"
    return "" if shutil.which("cc") else "there is no C compiler"


def environment(folder: Path) -> dict[str, str]:
    """Return the environment for such a process; what it loads first is written into `folder`."""
    library = folder / "without_avx.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    subprocess.run(command, check=True, capture_output=True)
    return {**os.environ, "LD_PRELOAD": str(library)}
