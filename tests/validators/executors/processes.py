"""Functions run by real processes, one per rank, over gloo or NCCL."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from validators.executors.world import World

TIMEOUT_S = 120
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.validators.executors.processes", "validators.executors.distributed"])


def run_ranks(n_ranks: int, function: Callable[..., Any], *arguments: object, backend: str = "gloo") -> list[Any]:
    """What ``function(world, *arguments)`` returns on each rank; what it raises on any is raised here."""
    port = _free_port()
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(n_ranks)]
    processes = [
        _CONTEXT.Process(target=_rank, args=(rank, n_ranks, port, pipe, backend, function, arguments))
        for rank, (_, pipe) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        results = [_receive(reader, rank) for rank, (reader, _) in enumerate(pipes)]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    return results


def _receive(reader: Connection, rank: int) -> Any:
    assert reader.poll(TIMEOUT_S), f"rank {rank} did not answer"
    failed, value = reader.recv()
    assert not failed, f"rank {rank}:\n{value}"
    return value


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _rank(
    rank: int, n_ranks: int, port: int, pipe: Connection, backend: str, function: Callable[..., Any], arguments: Any
) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        world = World(backend)
        value = function(world, *arguments)
        world.leave()
        pipe.send((False, value))
    except BaseException:
        pipe.send((True, traceback.format_exc()))
