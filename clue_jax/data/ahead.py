"""A thread that makes things before they are asked for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def made_ahead(
    source: Iterable[T], ahead: int, name: str
) -> Generator[tuple[T, float], None, None]:
    """Yields what a source gives, and the seconds the caller waited for each.

    A thread goes through the source, at most `ahead` things in advance; its errors are raised here.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(value: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for value in source:
                if not put(value):
                    return
            put(None)
        except BaseException as error:
            put(error)

    producer = threading.Thread(target=produce, name=name, daemon=True)
    producer.start()
    try:
        asked = time.perf_counter()
        while (value := ready.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            yield value, time.perf_counter() - asked
            asked = time.perf_counter()
    finally:
        stop.set()
        producer.join()
