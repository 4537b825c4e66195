"""Tasks for workers that do what engines do on a bad day."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from strop.core.errors import QuantizationError, UnknownNameError


def twice(number):
    return 2 * number


def process_id():
    return os.getpid()


def abort():
    os.write(2, b"Check failed: rank == 4\n")
    os.abort()


def leave():
    os._exit(7)


def hang():
    time.sleep(600)


def devour():
    held = []
    while True:
        held.append(np.ones(2**21))  # 16 MB, touched
        time.sleep(0.01)


def refuse():
    raise QuantizationError("no scale for 'conv'")


def not_known():
    raise UnknownNameError("pass", "prune.chanels", ["prune.channels"])


def library_fails():
    raise ZeroDivisionError("a library's own\nwith a second line")


def run_out():
    raise MemoryError


def speak():
    os.write(1, b"chatter that belongs in the log")
    sys.stdout.write("and more")
    return "said"


def told(*, progress):
    progress(0.25, "a quarter")
    progress(1.0, "all")


told.reports_progress = True
