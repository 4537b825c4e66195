"""Costs of a model under a runtime: time, memory, cold start, size."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from strop.core import registry
from strop.core.errors import ExecutionError, StropError
from strop.core.evaluation import Measurement
from strop.core.model import Model
from strop.core.parameters import Value
from strop.core.predictor import Predictor
from strop.core.signature import Arrays, Signature
from strop.engine.worker import process_environment
from strop.numerics.statistics import median_interval

_NS_PER_MS = 1e6
_MOST_CALLS = 5000
_LEAST_CALLS, _FEWEST_CALLS = 5, 2
_CHILD_SECONDS = 300


def one_batch(signature: Signature, size: int, *, seed: int = 0) -> Arrays:
    """Return a batch of made-up inputs; dimensions besides the batch that are still open are 16."""
    random = np.random.default_rng(seed)
    arrays: Arrays = {}
    for spec in signature.inputs:
        shape = [size, *(16 if n is None else n for n in spec.shape[1:])]
        if np.dtype(spec.dtype).kind == "f":
            arrays[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            arrays[spec.name] = random.integers(0, 2, shape).astype(spec.dtype)
    return arrays


def warm_up(predictor: Predictor, inputs: Arrays, *, seconds: float = 0.2) -> float:
    """Call until `seconds` have passed; return the seconds of the fastest call.

    There are three calls at least, unless they take so long that they would be the whole cost.
    """
    deadline, calls, fastest = time.perf_counter() + seconds, 0, math.inf
    given = _as_given(inputs)
    while calls < 3 or time.perf_counter() < deadline:
        start = time.perf_counter()
        predictor.run(given, copy=False)
        fastest, calls = min(fastest, time.perf_counter() - start), calls + 1
        if fastest > seconds * 5:
            break
    return fastest


def latency(
    predictor: Predictor, inputs: Arrays, *, seconds: float = 0.5, least: int = _LEAST_CALLS
) -> NDArray[np.int64]:
    """Return the durations of single calls in nanoseconds, for about `seconds`; `least` calls at the least."""
    durations: list[int] = []
    clock, run, given = time.perf_counter_ns, predictor.run, _as_given(inputs)
    deadline = clock() + int(seconds * 1e9)
    while len(durations) < _MOST_CALLS and (len(durations) < least or clock() < deadline):
        start = clock()
        run(given, copy=False)
        durations.append(clock() - start)
    return np.asarray(durations, np.int64)


def least_calls(seconds: float) -> int:
    """Return how many calls of about `seconds` to time at the least: long ones differ little from each other."""
    return min(max(math.ceil(1 / seconds), _FEWEST_CALLS), _LEAST_CALLS)


def _as_given(inputs: Arrays) -> Arrays | NDArray[Any]:
    """Return inputs as those give them who call a million times: one array alone, which needs no looking up by name."""
    return next(iter(inputs.values())) if len(inputs) == 1 else inputs


def summarize(durations_ns: NDArray[np.int64], batch: int) -> dict[str, Measurement]:
    """Return percentiles of latency in ms and the throughput in samples a second."""
    milliseconds = durations_ns / _NS_PER_MS
    count = len(milliseconds)
    middle = median_interval(milliseconds)
    found = {
        f"latency_p50@{batch}": Measurement(middle.value, "ms", middle.low, middle.high, count)
    }
    for percent in (90, 99):
        value = float(np.percentile(milliseconds, percent))
        found[f"latency_p{percent}@{batch}"] = Measurement(value, "ms", value, value, count)
    rates = [batch * 1e3 / figure for figure in (middle.value, middle.high, middle.low)]
    found[f"throughput@{batch}"] = Measurement(rates[0], "1/s", rates[1], rates[2], count)
    return found


def time_round(predictor: Predictor, inputs: Arrays, seconds: float) -> tuple[int, float]:
    """Call for about `seconds`, once at least; return how many calls there were and the median seconds of one."""
    durations = latency(predictor, inputs, seconds=seconds, least=1)
    return len(durations), float(np.median(durations)) / 1e9


def size(model: Model) -> dict[str, Measurement]:
    """Return bytes on disk."""
    return {"size": Measurement.exact(model.size_bytes, "bytes")}


def zipped_size(model: Model) -> dict[str, Measurement]:
    """Return bytes zipped (deflate, as small as it gets them), which takes seconds where there are 100 MB."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in model.files:
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.is_file():
                    archive.write(file, file.name)
    return {"zipped_size": Measurement.exact(len(packed.getvalue()), "bytes")}


def process_costs(
    model: Model,
    runtime: str,
    settings: Mapping[str, Value],
    *,
    batch: int = 1,
    repeats: int = 3,
) -> dict[str, Measurement]:
    """Return cold start and memory, each repeat in a process of its own.

    Args:
        model: What to open.
        runtime: The runtime's name.
        settings: Its settings.
        batch: Batch size of the first answer.
        repeats: How many processes.

    Returns:
        ``cold_start``: ms from the process's start to its first answer; ``peak_memory``: bytes above what
        the process held before it loaded the engine; ``resident_memory``: bytes held after the answer.

    Raises:
        ExecutionError: If the process fails.
    """
    runs = [_one_process(model, runtime, settings, batch) for _ in range(repeats)]
    units = {"cold_start": "ms", "peak_memory": "bytes", "resident_memory": "bytes"}
    found = {}
    for name, unit in units.items():
        figures = [run[name] for run in runs]
        middle = float(np.median(figures))
        found[name] = Measurement(middle, unit, min(figures), max(figures), repeats)
    return found


def _one_process(
    model: Model,
    runtime: str,
    settings: Mapping[str, Value],
    batch: int,
) -> dict[str, float]:
    request = {
        "model": model.to_json(),
        "runtime": runtime,
        "settings": dict(settings),
        "batch": batch,
    }
    started = time.time()
    try:
        child = subprocess.run(
            [sys.executable, "-m", "strop.engine.measure"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_CHILD_SECONDS,
            env={**process_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExecutionError(f"gave no first answer within {_CHILD_SECONDS} s") from None
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines() or [f"status {child.returncode}"]
        raise ExecutionError(f"a fresh process could not run the model: {lines[-1][:300]}")
    answer = json.loads(child.stdout.strip().splitlines()[-1])
    return {
        "cold_start": (answer["answered"] - started) * 1e3,
        "peak_memory": answer["peak"],
        "resident_memory": answer["resident"],
    }


def _child() -> None:
    """Open a model in this fresh process, answer once, and tell when that was and what it took."""
    request = json.loads(sys.stdin.read())
    me = psutil.Process()
    baseline = me.memory_info().rss
    model = Model.from_json(request["model"])
    runtime = registry.runtimes.get(request["runtime"]).from_settings(request["settings"])
    predictor = runtime.open(model)
    predictor.run(one_batch(model.sized, predictor.batch_for(request["batch"])))
    answered = time.time()
    resident = me.memory_info().rss
    found = {
        "answered": answered,
        "peak": max(_peak_bytes(), resident) - baseline,
        "resident": resident,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # engines' finalizers are not what is measured


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main() -> None:
    try:
        _child()
    except StropError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
