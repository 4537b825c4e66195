"""Keeping libraries' banners, progress bars, warnings and telemetry away from the user's terminal and network."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator

_NOISY = (
    "tensorflow",
    "tf2onnx",
    "nncf",
    "absl",
    "openvino",
    "onnxslim",
    "ai_edge_quantizer",
    "root",
)
_lock = threading.Lock()
_depth = 0
_kept: list[tuple[int, int]] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence known noisy libraries while in here: their loggers, their warnings, and what their C++ prints.

    C++ writes to the process's own stdout and stderr, past `sys.stdout`; those point elsewhere meanwhile, in all
    threads. Where they are files already (a worker's log) they stay: what a converter printed before it aborted the
    process is the only trace of why.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stay_offline()
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _turn_away()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _turn_back()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def stay_offline() -> None:
    """Keep OpenVINO and NNCF from sending telemetry. Before either is imported: OpenVINO sends on import.

    Both treat a telemetry package that can't be imported as one that isn't installed, and None in `sys.modules` is
    how Python spells that.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def _turn_away() -> None:
    global _depth
    with _lock:
        _depth += 1
        if _depth > 1:
            return
        _flush()
        _kept.extend((number, os.dup(number)) for number in (1, 2) if _is_shown(number))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor, _ in _kept:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _turn_back() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth:
            return
        _flush()
        while _kept:
            descriptor, original = _kept.pop()
            os.dup2(original, descriptor)
            os.close(original)


def _is_shown(descriptor: int) -> bool:
    """Say whether somebody may see what is written to a descriptor: it is open, and no file."""
    try:
        return not stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
