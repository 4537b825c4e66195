"""Virtual environments for other tools, made once in the benchmark's cache."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.places import CaseUnavailableError, cache_folder

# The last release of tfmot, with the TensorFlow that strop is measured with and the legacy Keras that goes with it.
TFMOT = ("tensorflow==2.21.0", "tf_keras==2.21.0", "tensorflow-model-optimization==0.8.1")


def tfmot() -> Path:
    """Return the Python of an environment with tensorflow-model-optimization.

    Raises:
        CaseUnavailableError: If it can't be made, as without a network.
    """
    return _python("tfmot", TFMOT)


def _python(name: str, packages: tuple[str, ...]) -> Path:
    folder = cache_folder() / "peers" / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(packages)
    if done.exists() and done.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making the environment of {', '.join(packages)}", flush=True)
    if shutil.which("uv"):
        commands = [
            ["uv", "venv", "--quiet", "--python", sys.executable, str(folder)],
            ["uv", "pip", "install", "--quiet", "--python", str(python), *packages],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *packages],
        ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise CaseUnavailableError(
                f"no environment of {wanted}: {error.stderr[-500:]}"
            ) from None
    done.write_text(wanted)
    return python
