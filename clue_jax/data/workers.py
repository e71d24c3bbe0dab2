"""Tasks in several processes: results in order, progress as it is made, and nobody left behind.

Workers end with the process that started them, however that one ends; one that dies ends the stage.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clue_jax.errors import ClueError, LostPeerError

Advance = Callable[[float], None]
_ADVANCE, _DONE, _FAILED = range(3)


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
            worker.process.kill()  # what they write has no name yet
        for worker in self._all:
            worker.process.wait()
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
        # Not forked, which threads of Arrow and of tokenizers do not survive; nor spawned by
        # multiprocessing, which would run the program that calls us once more.
        self.connection, theirs = multiprocessing.Pipe()
        warnings = [f"-W{option}" for option in sys.warnoptions]
        program = f"from {__name__} import serve; serve({theirs.fileno()})"
        self.process = subprocess.Popen(
            [sys.executable, *warnings, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for us to answer
        )
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
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return LostPeerError(
            f"worker process {self.process.pid} {how}; run the same command again, where memory ran"
            " out with fewer --config.processes"
        )


def serve(descriptor: int) -> None:
    """What a worker does: tasks from its end of the pipe, as long as there is another."""
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    connection = multiprocessing.connection.Connection(descriptor)
    os.environ["RAYON_NUM_THREADS"] = "1"  # of tokenizers: every core has a worker already

    def advance(count: float) -> None:
        connection.send((_ADVANCE, count))

    with contextlib.suppress(EOFError, OSError):  # nobody is there any more
        while True:
            function, task = connection.recv()
            try:
                answer = _DONE, function(*task, advance)
            except ClueError as error:
                answer = _FAILED, error
            except Exception as error:
                traceback.print_exc()
                answer = _FAILED, RuntimeError(f"in a worker: {type(error).__name__}: {error}")
            connection.send(answer)


def _end_with_parent(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # tells only that the other end is gone
    poll.poll()
    os._exit(1)
