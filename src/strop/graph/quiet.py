"""Keeping libraries' banners, progress bars and warnings away from the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import os
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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Raise the log levels of known noisy libraries, and drop their warnings, while in here."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
