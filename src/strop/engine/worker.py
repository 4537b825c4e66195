"""Worker processes: where converters and engines may abort, leak and hang without taking us along.

A worker is a fresh Python that connects back, then answers one call at a time. What it prints goes to a log file,
never to the user's terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import psutil

from strop.core import registry
from strop.core.errors import (
    Cancelled,
    StepTimeoutError,
    StropError,
    WorkerDiedError,
    message,
)

Progress = Callable[[float, str], None]

_START_SECONDS = 60.0
LOOK_SECONDS = 0.2
QUIET_SECONDS = 2.0
"""How often to look after a worker that times something.

Whoever looks needs a processor for a moment. An engine's thread that was about to run there is put beside the one that
waits for it, and stays: a small network then took twice as long for seconds.
"""
_LOG_TAIL = 2000


def process_environment() -> dict[str, str]:
    """Return this process's variables for another, with those that engines read once, at its start."""
    environment = dict(os.environ)
    for runtime in registry.runtimes:
        environment.update(runtime.environment())
    return environment


class Worker:
    """One worker process.

    Args:
        environment: Variables laid over this process's own (thread counts, log levels).
        search_path: Folders put before `sys.path` there, so that ``package.module:function`` resolves.
        memory_bytes: Resident memory above which it is ended; None for no limit.
    """

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        search_path: tuple[str, ...] = (),
        memory_bytes: int | None = None,
    ) -> None:
        self._memory_bytes = memory_bytes
        # Without a name, so that nothing is left of it however this process ends; and appended to, since the
        # worker writes at the place that reading here would move.
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - open as long as the worker
        try:
            self._connection, self._process = self._start(
                {**process_environment(), **(environment or {})}, search_path
            )
        except BaseException:
            self._log.close()
            raise

    def _start(
        self, environment: dict[str, str], search_path: tuple[str, ...]
    ) -> tuple[Connection, subprocess.Popen[bytes]]:
        key = secrets.token_bytes(32)
        with Listener(_address(), authkey=key) as listener:
            process = subprocess.Popen(
                [sys.executable, "-m", "strop.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={
                    **environment,
                    "PYTHONPATH": os.pathsep.join([*search_path, *sys.path]),
                },
                # A group of its own: Ctrl-C reaches us alone, and we decide what becomes of it.
                start_new_session=True,
            )
            try:
                _introduce(listener, key, process)
                connection = _accept(listener, process)
                if connection is None:
                    raise WorkerDiedError(self._epitaph(process))
            except BaseException:
                _end(process)
                raise
        return connection, process

    @property
    def process_id(self) -> int:
        """The operating system's number of the process."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Say whether the process is still there."""
        return self._process.poll() is None

    def call(
        self,
        task: str,
        /,
        *args: object,
        timeout_seconds: float | None = None,
        progress: Progress | None = None,
        look_seconds: float = LOOK_SECONDS,
        **kwargs: object,
    ) -> Any:
        """Return what the function ``module:name`` called `task` returns there.

        Args:
            task: ``module:name``.
            *args: Its arguments; they and the result are pickled.
            timeout_seconds: After which the worker is ended.
            progress: Told of the task's own progress; may raise, which ends the worker.
            look_seconds: How often to look after the worker's time and memory; see `QUIET_SECONDS`.
            **kwargs: Its keyword arguments.

        Raises:
            WorkerDiedError: If the process ends by itself or outgrows its memory.
            StepTimeoutError: If it takes too long.
            StropError: Whatever the function raised of the tree.
        """
        try:
            self._connection.send((task, args, kwargs))
            return self._await(timeout_seconds, progress, look_seconds)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.wait()
            raise WorkerDiedError(self._epitaph(self._process)) from None
        except (KeyboardInterrupt, Cancelled, StepTimeoutError, WorkerDiedError):
            self.close()
            raise

    def _await(
        self, timeout_seconds: float | None, progress: Progress | None, look_seconds: float
    ) -> Any:
        deadline = time.monotonic() + timeout_seconds if timeout_seconds else None
        while True:
            while not self._connection.poll(look_seconds):
                if deadline and time.monotonic() > deadline:
                    raise StepTimeoutError(
                        f"ran past its limit of {timeout_seconds:.0f} s and was ended"
                    )
                if self._memory_bytes and self._resident_bytes() > self._memory_bytes:
                    raise WorkerDiedError(
                        f"outgrew its limit of {self._memory_bytes / 2**30:.1f} GiB of memory and was ended"
                    )
                if progress:
                    progress(-1.0, "")
            kind, content = self._connection.recv()
            if kind == "result":
                return content
            if kind == "error":
                raise content
            if progress:
                progress(*content)

    def _resident_bytes(self) -> int:
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def _epitaph(self, process: subprocess.Popen[bytes]) -> str:
        code = process.poll()
        if code is None:
            how = "did not start"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (out of memory, perhaps)"
        else:
            how = f"ended by itself with status {code}"
        return message(f"the process that carried out the step {how}", self._last_line())

    def _last_line(self) -> str:
        """Return the last telling line of the worker's log: not a stack frame, not an I-line of absl."""
        self._log.seek(max(self._log.seek(0, os.SEEK_END) - _LOG_TAIL, 0))
        lines = self._log.read().decode(errors="replace").splitlines()
        telling = [
            line.strip() for line in lines if line.strip() and not line.lstrip().startswith("@")
        ]
        return telling[-1][:300] if telling else ""

    def close(self) -> None:
        """End the process and everything it started."""
        self._connection.close()
        _end(self._process)
        self._log.close()


def _address() -> str | None:
    """Return where to listen: on Linux a socket without a file, which none killed leaves behind."""
    return f"\0strop-{secrets.token_hex(8)}" if sys.platform == "linux" else None


def _introduce(listener: Listener, key: bytes, process: subprocess.Popen[bytes]) -> None:
    """Tell the worker where we listen, and what it must know to be let in."""
    assert process.stdin is not None  # noqa: S101 - it was asked for
    address: Any = listener.address
    if isinstance(address, bytes):  # how the system tells of a socket without a file
        address = address.decode()
    place = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    # stdin stays open: when this process goes, however, the worker reads its end and goes too.
    with contextlib.suppress(
        BrokenPipeError
    ):  # it has ended already, which shows when it does not come
        process.stdin.write(f"{place}\n{key.hex()}\n".encode())
        process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything it started."""
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):  # what was not read yet has no reader any more
            process.stdin.close()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _accept(listener: Listener, process: subprocess.Popen[bytes]) -> Connection | None:
    """Wait for the worker to connect; None where it ended or did not come in time."""
    import threading

    found: list[Connection] = []

    def wait() -> None:
        # The listener is closed while it waits where no worker comes.
        with contextlib.suppress(OSError):
            found.append(listener.accept())

    # Accepting has no time limit of its own, and a worker that died at its start never connects.
    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    deadline = time.monotonic() + _START_SECONDS
    while waiter.is_alive() and process.poll() is None and time.monotonic() < deadline:
        waiter.join(0.05)
    return found[0] if found else None


def _serve(connection: Connection) -> None:
    """Answer calls until the other side hangs up."""

    def report(fraction: float, note: str = "") -> None:
        connection.send(("progress", (fraction, note)))

    while True:
        try:
            task, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            module, _, name = task.partition(":")
            function = getattr(importlib.import_module(module), name)
            if getattr(function, "reports_progress", False):
                kwargs = {**kwargs, "progress": report}
            answer: tuple[str, object] = ("result", function(*args, **kwargs))
        except StropError as error:
            answer = ("error", error)
        except MemoryError:
            answer = ("error", WorkerDiedError("ran out of memory"))
        except Exception as error:  # noqa: BLE001 - an engine's own error must reach the other side as text
            answer = ("error", _foreign(task, error))
        connection.send(answer)


def _foreign(task: str, error: Exception) -> StropError:
    """Return an error of ours for one that a library let escape; its traceback goes to the log."""
    import traceback

    from strop.core.errors import ExecutionError

    traceback.print_exception(error)
    gist = (str(error).strip().splitlines() or [""])[0][:400]
    return ExecutionError(f"{type(error).__name__}: {gist}" if gist else type(error).__name__)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: then its end of our stdin closes."""
    import threading

    def watch() -> None:
        sys.stdin.buffer.read()
        os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Connect to the process that started us and serve it."""
    place = sys.stdin.buffer.readline().decode().strip()
    key = bytes.fromhex(sys.stdin.buffer.readline().decode().strip())
    host, _, port = place.rpartition(":")
    address = (host, int(port)) if host and port.isdigit() else place
    with Client(address, authkey=key) as connection:
        _end_with_parent()
        _serve(connection)
    # Engines' own threads and finalizers may hang or abort on the way out; nothing here needs them.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
