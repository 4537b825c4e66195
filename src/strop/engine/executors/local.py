"""Worker processes on this machine, one a lane, kept as long as they are well."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import psutil

from strop.core.errors import StepTimeoutError, WorkerDiedError
from strop.engine.lanes import environment_of, starts_slowly
from strop.engine.worker import LOOK_SECONDS, Progress, Worker

_MOST_LANES = 8
_MEMORY_SHARE = 0.8
_SPARE_SHARE = 0.25


class LocalExecutor:
    """Carries tasks out in local worker processes.

    A *lane* is a name: tasks of one lane share a process, so that it pays once for what it imports (see
    `strop.engine.lanes`). Where lanes become too many or memory short, those that start in a moment are closed first,
    and of them the least used lately.

    Args:
        search_path: Folders that ``package.module:function`` is looked for in.
        memory_bytes: Resident memory above which a worker is ended; 80 % of what is free now where None.
    """

    def __init__(self, search_path: tuple[str, ...] = (), memory_bytes: int | None = None) -> None:
        self._search_path = search_path
        # Else the system would end what it chooses once all memory is eaten: the study itself, perhaps.
        free = psutil.virtual_memory().available
        self._memory_bytes = memory_bytes or int(_MEMORY_SHARE * free)
        self._spare_bytes = int(_SPARE_SHARE * free)
        self._lanes: dict[str, Worker] = {}

    def call(
        self,
        lane: str,
        task: str,
        *args: object,
        timeout_seconds: float | None = None,
        progress: Progress | None = None,
        look_seconds: float = LOOK_SECONDS,
        **kwargs: object,
    ) -> Any:
        """Return what the function ``module:name`` returns in the lane's process; raises as `Worker.call`."""
        worker = self._worker(lane)
        try:
            return worker.call(
                task,
                *args,
                timeout_seconds=timeout_seconds,
                progress=progress,
                look_seconds=look_seconds,
                **kwargs,
            )
        except (WorkerDiedError, StepTimeoutError):
            self.close_lane(lane)
            raise

    def close_lane(self, lane: str) -> None:
        """End the lane's process, if there is one."""
        worker = self._lanes.pop(lane, None)
        if worker:
            worker.close()

    def _worker(self, lane: str) -> Worker:
        worker = self._lanes.pop(lane, None)
        if worker and not worker.is_alive():
            worker.close()
            worker = None
        if worker is None:
            self._make_room()
        # Put back last: the dictionary's order is the order of use.
        self._lanes[lane] = worker or self._started(environment_of(lane))
        return self._lanes[lane]

    def _make_room(self) -> None:
        """Close lanes until another process has room."""
        while self._lanes and (
            len(self._lanes) >= _MOST_LANES
            or psutil.virtual_memory().available < self._spare_bytes
        ):
            # The sort is stable, and those least used lately come first.
            self.close_lane(min(self._lanes, key=starts_slowly))

    def own_worker(self) -> Worker:
        """Return a worker of no lane, which whoever asked for it closes."""
        return self._started({})

    def _started(self, environment: dict[str, str]) -> Worker:
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
        return Worker({**quiet, **environment}, self._search_path, self._memory_bytes)

    def close(self) -> None:
        """End every process."""
        for lane in list(self._lanes):
            self.close_lane(lane)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
