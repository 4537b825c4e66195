"""Batches cut into parts, each a call of its own, as many at once as there are sessions."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ExecutionError
from strop.core.predictor import Session, filled

MICRO_BATCH = (
    "samples of a batch that a thread takes through the model at once, while others take others; 0: all at once, with "
    "the threads sharing each operation; a model made for batches of one size takes that many"
)


def streams_of(threads: int) -> int:
    """Return how many parts to run at once: `threads`, or as many as the process has processors where that is 0."""
    if threads:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@final
class SlicedSession(Session):
    """A session for any number of samples, which asks others for a few at a time.

    An engine shares the work of one call out to its threads operation by operation: at the end of each they wait for
    the last, and between two the activations of a large batch leave the cache. A thread that takes a few samples
    from the first operation to the last does neither.

    Args:
        sessions: Of one model, each to be run by a thread of its own.
        size: Samples a call, from 1 up; all of them are always full, the last by samples that another has had.
    """

    def __init__(self, sessions: Sequence[Session], size: int) -> None:
        self._sessions, self._size = list(sessions), size
        # The caller's own thread works too.
        self._pool = ThreadPoolExecutor(len(sessions) - 1) if len(sessions) > 1 else None
        self._shapes: list[tuple[int, ...]] = []
        self._outputs: list[NDArray[Any]] = []
        self._starts: list[int] = []

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """Return the outputs for any number of samples; see `Session.run`."""
        count = len(feeds[0])
        if count < self._size:
            answers = self._sessions[0].run([filled(feed, self._size) for feed in feeds])
            return [answer[:count] for answer in answers]
        if [feed.shape for feed in feeds] != self._shapes:
            self._prepare(feeds)
        starts = deque(self._starts)
        others = self._sessions[1 : len(starts)]
        running = [self._pool.submit(self._work, o, feeds, starts) for o in others if self._pool]
        try:
            self._work(self._sessions[0], feeds, starts)
        finally:
            wait(running)  # they read the caller's arrays
        for work in running:
            work.result()
        return self._outputs

    def _work(self, session: Session, feeds: Sequence[NDArray[Any]], starts: deque[int]) -> None:
        """Take parts until none is left."""
        while True:
            try:
                start = starts.popleft()
            except IndexError:
                return
            end = start + self._size
            answers = session.run([feed[start:end] for feed in feeds])
            for output, answer in zip(self._outputs, answers, strict=True):
                output[start:end] = answer

    def _prepare(self, feeds: Sequence[NDArray[Any]]) -> None:
        """Let each session see the shape once, one after another, and make room for the outputs."""
        count, part = len(feeds[0]), [feed[: self._size] for feed in feeds]
        for session in self._sessions:
            answers = session.run(part)
        if any(answer.shape[:1] != (self._size,) for answer in answers):
            raise ExecutionError(
                f"an output has not one row a sample, so a batch can't be cut into parts of {self._size}"
            )
        self._outputs = [np.empty((count, *a.shape[1:]), a.dtype) for a in answers]
        self._starts = [min(n, count - self._size) for n in range(0, count, self._size)]
        self._shapes = [feed.shape for feed in feeds]

    def clone(self) -> Session:
        """Return another with sessions of its own."""
        return SlicedSession([session.clone() for session in self._sessions], self._size)

    def reset(self) -> None:
        """Forget the state of all sessions."""
        for session in self._sessions:
            session.reset()

    def close(self) -> None:
        """Close all sessions and end the threads."""
        if self._pool:
            self._pool.shutdown()
            self._pool = None
        for session in self._sessions:
            session.close()
