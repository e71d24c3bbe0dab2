"""Tasks in several processes: results in order, progress as it is made, and nobody left behind.

Workers end with the process that started them, however that one ends; one that dies ends the stage.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clue_jax.errors import ClueError, LostPeerError

Advance = Callable[[float], None]
_ADVANCE, _DONE, _FAILED = range(3)
_JOIN_SECONDS = 10.0


class Workers:
    """Some processes that live as long as the context; one means this process itself."""

    def __init__(self, processes: int):
        self.processes = processes
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def _end(self) -> None:
        for worker in self._all:
            worker.process.terminate()
        for worker in self._all:
            worker.process.join(_JOIN_SECONDS)
            worker.connection.close()
        self._all, self._idle = [], []

    def map(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], advance: Advance
    ) -> Iterator[Any]:
        """Yields `function(*task, advance)` of every task, in order.

        Args:
            function: of a module; what it takes and gives can be pickled.
            tasks: done in this order, as workers become free.
            advance: takes the progress of all tasks.

        Raises:
            LostPeerError: a worker died; what a task raises is raised as it is.
        """
        if self.processes == 1:
            for task in tasks:
                yield function(*task, advance)
            return
        try:
            yield from self._shared(function, tasks, advance)
        except BaseException:
            self._end()  # whoever cleans up finds nobody at work
            raise

    def _shared(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], advance: Advance
    ) -> Iterator[Any]:
        self._start(min(self.processes, len(tasks)))
        waiting, busy = deque(enumerate(tasks)), dict[Any, tuple[int, _Worker]]()
        results: dict[int, Any] = {}
        for turn in range(len(tasks)):
            while turn not in results:
                while self._idle and waiting:
                    number, task = waiting.popleft()
                    worker = self._idle.pop()
                    worker.send(function, task)
                    busy[worker.connection] = number, worker
                for connection in multiprocessing.connection.wait(list(busy)):
                    number, worker = busy[connection]
                    kind, value = worker.receive()
                    if kind == _ADVANCE:
                        advance(value)
                        continue
                    if kind == _FAILED:
                        raise value
                    results[number] = value
                    self._idle.append(busy.pop(connection)[1])
            yield results.pop(turn)

    def _start(self, count: int) -> None:
        while len(self._all) < count:
            worker = _Worker()
            self._all.append(worker)
            self._idle.append(worker)


class _Worker:
    """A process and this end of its pipe."""

    def __init__(self) -> None:
        # Not forked: threads of Arrow and of tokenizers do not survive that.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, function: Callable[..., Any], task: tuple[Any, ...]) -> None:
        try:
            self.connection.send((function, task))
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> tuple[int, Any]:
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> LostPeerError:
        self.process.join(_JOIN_SECONDS)
        code = self.process.exitcode
        how = f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return LostPeerError(
            f"worker process {self.process.pid} {how}; run the same command again, where memory ran"
            " out with fewer --config.processes; a program that calls prepare needs the usual"
            " `if __name__ == '__main__':`"
        )


def _serve(connection: Any) -> None:
    """What a worker does: tasks from the pipe, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the parent as well, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["RAYON_NUM_THREADS"] = "1"  # of tokenizers: every core has a worker already

    def advance(count: float) -> None:
        connection.send((_ADVANCE, count))

    while True:
        try:
            function, task = connection.recv()
        except EOFError:
            return
        try:
            answer = _DONE, function(*task, advance)
        except ClueError as error:
            answer = _FAILED, error
        except Exception as error:
            traceback.print_exc()
            answer = _FAILED, RuntimeError(f"in a worker: {type(error).__name__}: {error}")
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
