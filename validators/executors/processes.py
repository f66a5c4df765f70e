"""Functions and Programs run by real processes of this machine, one per rank, over gloo or NCCL.

What torchrun does for scripts, for callers that go on afterwards: tests and notebooks. Functions must be importable,
as each process starts anew.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from simulator.program.program import Program
from validators.executors.distributed import RankExecutor, cut_input
from validators.executors.shards import Globals, assemble
from validators.executors.world import World
from validators.kernels.dense import DenseKernel

TIMEOUT_S = 120
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["validators.executors.processes"])


def run_ranks(n_ranks: int, function: Callable[..., Any], *arguments: object, backend: str = "gloo") -> list[Any]:
    """What ``function(world, *arguments)`` returns on each rank.

    Raises
    ------
    RuntimeError
        With the traceback of a rank that failed, or where one did not answer.
    """
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


def execute_on_processes(program: Program, inputs: Globals) -> Globals:
    """Run a Program over gloo in as many processes as it has ranks, in float64.

    Parameters
    ----------
    inputs : whole tensors by the name of the input buffer.

    Returns
    -------
    results : whole outputs by name, put together from all ranks.
    """
    shards = run_ranks(program.setup.n_ranks, _outputs, program, {name: each.numpy() for name, each in inputs.items()})
    buffers = {name: buffer for name, buffer in program.outputs.items() if buffer.layout is not None}
    return {
        name: assemble(buffer, [torch.from_numpy(each[name]) for each in shards], program.setup)
        for name, buffer in buffers.items()
    }


def _outputs(world: World, program: Program, inputs: dict[str, Any]) -> dict[str, Any]:
    """One rank's shards, as arrays: tensors in pipes would go through shared memory."""
    whole = {name: torch.from_numpy(each) for name, each in inputs.items()}
    executor = RankExecutor(
        world, program, DenseKernel(), cut_input(whole, world.rank), dtype=torch.float64, poison=True
    )
    executor.call()
    return {name: tensor.numpy().copy() for name, tensor in executor.outputs.items()}


def _receive(reader: Connection, rank: int) -> Any:
    if not reader.poll(TIMEOUT_S):
        raise RuntimeError(f"rank {rank} did not answer")
    failed, value = reader.recv()
    if failed:
        raise RuntimeError(f"rank {rank}:\n{value}")
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
