"""What runs in the processes of a batch, and how they are started. Imported only where dask.distributed is there."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster, WorkerPlugin, get_worker

from . import batch_case
from .errors import UserError
from .job import Report

_PLUGIN = "mambaseg"
_START_S = 180
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 2,  # deaths of workers over one case before it counts as failed
    "distributed.scheduler.worker-saturation": 1.0,  # no case waits at a worker that may die
}


class Keeper(WorkerPlugin):
    """What a worker process keeps between cases: the warm models, and its share of the processors.

    Args:
        threads: of torch; None takes as many as dask gave the worker.
    """

    name = _PLUGIN

    def __init__(self, threads: int | None):
        self.threads = threads

    def setup(self, worker) -> None:
        import torch

        self.warm: dict = {}
        self.one_at_a_time = threading.Lock()  # a worker with several threads still has one warm model
        # More threads than processors only wait for each other.
        torch.set_num_threads(self.threads or worker.state.nthreads)


def process(task: dict) -> dict:
    """One case: returns its receipt, or {"error": text}; see `batch_case.process`."""
    keeper = get_worker().plugins[_PLUGIN]
    with keeper.one_at_a_time:
        try:
            return batch_case.process(task, Report(), keeper.warm)
        except UserError as error:  # no case can be done here; another worker may have what is missing
            return {"error": str(error)}


@contextmanager
def cluster(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A client of the scheduler at this address, or of `workers` new processes on this machine, which end with it.

    Raises:
        UserError: nobody answers at the address, or no worker comes up.
    """
    with dask.config.set(_SETTINGS):
        own = None if scheduler else _local(workers)
        try:
            with _client(own or scheduler) as client:
                processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
                client.register_plugin(Keeper(max(1, processors // workers) if own else None))
                try:
                    client.wait_for_workers(1, timeout=_START_S)
                except TimeoutError as error:
                    raise UserError(
                        f"A worker was expected within {_START_S} s, but none came up.", "Look at the workers' log."
                    ) from error
                yield client
        finally:
            if own:
                own.close()


def _local(workers: int) -> LocalCluster:
    # Without a memory limit of dask's own: it would pause a worker whose model is large, for ever.
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # any free port, seen from here only
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    )


def _client(where) -> Client:
    try:
        return Client(where, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise UserError(
            f"A dask scheduler was expected at '{where}', but nobody answers there ({error}).",
            "Start it with 'dask scheduler' and its workers with 'dask worker ADDRESS', or leave --scheduler out.",
        ) from error
