"""Much work at once: in processes of this machine, or on a Dask cluster. Results come as they are done.

Both run the same function on the same values, so that their outcomes are the same; whoever needs an order sorts by
the index that comes with each.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, get_context, resource_tracker
from typing import Any

from simulator.planning.points import Outcome, Point, run_point
from traces.errors import InputError


class Runner(ABC):
    """Does work on many items somewhere."""

    @abstractmethod
    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index, result) of each item, as they are done."""

    def run(
        self, points: Sequence[Point], stop_after_s: float | None = None, cache_folder: str | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """(index, outcome) of each point, as they are done."""
        yield from self.map(partial(run_point, stop_after_s=stop_after_s, cache_folder=cache_folder), points)


class Here(Runner):
    """One after the other, in this process."""

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index, result) of each item, in order."""
        for index, item in enumerate(items):
            yield index, work(item)


class Processes(Runner):
    """On the cores of this machine."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index, result) of each item, as they are done."""
        index_of = {self._pool.submit(work, item): index for index, item in enumerate(items)}
        try:
            for future in as_completed(index_of):
                yield index_of[future], future.result()
        finally:
            for future in index_of:
                future.cancel()


class Cluster(Runner):
    """On a Dask cluster, whose workers have this program installed."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index, result) of each item, as they are done."""
        from distributed import as_completed as dask_completed

        futures = self._client.map(work, list(items), pure=False)
        index_of = {future.key: index for index, future in enumerate(futures)}
        try:
            for future in dask_completed(futures, loop=self._client.loop):
                yield index_of[future.key], future.result()
        finally:
            self._client.cancel(futures)


@contextmanager
def open_runner(workers: int | None = None, scheduler: str | None = None) -> Iterator[Runner]:
    """A runner: on a Dask scheduler if one is named, else on ``workers`` processes (default one per core).

    Raises
    ------
    InputError
        Where the scheduler cannot be reached, or Dask is not installed.
    """
    if scheduler is not None:
        with _connect(scheduler) as client:
            client.run(_stop_profiler)
            yield Cluster(client)
        return
    count = workers if workers is not None else os.cpu_count() or 1
    if count < 1:
        raise InputError("workers is not a positive whole number", got=count)
    if count == 1:
        yield Here()
        return
    _start_server()
    pool = ProcessPoolExecutor(count, mp_context=get_context("forkserver"))
    try:
        yield Processes(pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start_server() -> None:
    """Start the process that workers are forked from, deaf to Ctrl-C as they: a terminal sends it to all of them.

    This process alone answers it, with what is done so far; theirs would be a traceback each.
    """
    resource_tracker.ensure_running()  # the server starts it too, and that would let the signal in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop_profiler(dask_worker: Any) -> None:
    """No samples of a worker's stack: they hold its frames, and buffers live as long as something holds them."""
    profiler = dask_worker.periodic_callbacks.get("profile")
    if profiler is not None:
        profiler.stop()


def _connect(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("a scheduler needs Dask, which is not installed", got=scheduler,
                         remedy="pip install 'attnsim[cluster]'") from None  # fmt: skip
    try:
        return Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError("the Dask scheduler cannot be reached", got=f"{scheduler} ({error})",
                         expected="an address as tcp://host:8786") from None  # fmt: skip
