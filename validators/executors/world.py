"""The processes of a run, started by torchrun: who they are, their groups, and how they start together.

Data goes through the backend that is measured (nccl or gloo), control (barriers, agreed starts, results) through gloo.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from traces.errors import InputError
from validators.executors.cuda_lanes import CudaLanes
from validators.executors.lanes import Lanes, ThreadLanes

BACKENDS = ("gloo", "nccl")
TIMEOUT = timedelta(seconds=120)
DATA_TIMEOUT = timedelta(seconds=60)
"""Of what is measured: of an operation whose peer has failed. Long checks on one rank are control's, not data's."""
START_DELAY_NS = 5_000_000
"""Time in which every process on a host has heard of the agreed start."""


class World:
    """A process among all.

    Parameters
    ----------
    backend : ``gloo`` for CPUs, ``nccl`` for GPUs.
    prioritised : whether NCCL's streams have a priority (`communication_first`).

    Attributes
    ----------
    rank, size : of this process, and how many there are.
    device : where its tensors are.
    lanes : where its operations run.

    Raises
    ------
    InputError
        Where the backend cannot run here, or the process was not started by torchrun.
    """

    def __init__(self, backend: str, *, prioritised: bool = True) -> None:
        _check(backend)
        self.backend, self._prioritised = backend, prioritised
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.device = own_gpu() if backend == "nccl" else torch.device("cpu")
        if backend == "nccl":
            torch.cuda.set_device(self.device)
        dist.init_process_group("gloo", timeout=TIMEOUT)
        self.lanes: Lanes = CudaLanes(self.device) if backend == "nccl" else ThreadLanes()
        self._groups: dict[tuple[str, tuple[tuple[int, ...], ...]], dist.ProcessGroup | None] = {}
        self._one_host = len(set(self.gather(socket.gethostname()))) == 1

    def group(self, lane: str, members: tuple[tuple[int, ...], ...], *, first: bool = True) -> dist.ProcessGroup | None:
        """The communicator of a lane that this rank is in, if any; all ranks ask for the same, in one order.

        ``first`` gives NCCL's streams a priority (`communication_first`).
        """
        key = lane, members
        if key not in self._groups:
            options = communication_first() if first and self._prioritised and self.backend == "nccl" else None
            made = [
                dist.new_group(list(ranks), timeout=DATA_TIMEOUT, backend=self.backend, pg_options=options)
                for ranks in members
            ]
            mine = [group for group, ranks in zip(made, members, strict=True) if self.rank in ranks]
            self._groups[key] = mine[0] if mine else None
            if mine and self.backend == "nccl":
                self._connect(mine[0])
        return self._groups[key]

    def _connect(self, group: dist.ProcessGroup) -> None:
        """Have NCCL make the communicator, for which it needs all members: not all take part in every exchange."""
        dist.all_reduce(torch.zeros(1, device=self.device), group=group)
        torch.cuda.synchronize(self.device)

    def gather(self, value: Any) -> list[Any]:
        """A value of every rank, on every rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def collect(self, value: Any) -> list[Any] | None:
        """A value of every rank, on rank 0; None on the others."""
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, values)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def synchronise(self) -> None:
        """All devices are idle and all processes are here."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        dist.barrier()

    def agree_on_start(self) -> int:
        """A moment, in nanoseconds of the monotonic clock, at which all ranks of a host are here.

        Between hosts, whose clocks differ, it is the end of a barrier.
        """
        self.synchronise()
        if not self._one_host:
            return time.monotonic_ns()
        moment: int = self.share(time.monotonic_ns() + START_DELAY_NS)
        while time.monotonic_ns() < moment:
            pass
        return moment

    def leave(self) -> None:
        """End the run; every rank must call it."""
        self.lanes.close()
        dist.barrier()
        dist.destroy_process_group()


def _check(backend: str) -> None:
    if backend not in BACKENDS:
        raise InputError("unknown backend", got=repr(backend), expected="one of " + ", ".join(BACKENDS))
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise InputError("this process has no rank", remedy="start it with torchrun")
    if backend == "nccl" and not torch.cuda.is_available():
        raise InputError("backend nccl needs a GPU, and PyTorch sees none")


def own_gpu(backend: str = "nccl") -> torch.device:
    """The GPU of this process: its own, or, over gloo or where NCCL allows it, one that several ranks share.

    Since version 2.30 NCCL lets ranks share a GPU if ``NCCL_MULTI_RANK_GPU_ENABLE=1`` says so. What is computed and
    sent is then right, and traces have all their kernels; times are those of ranks that take turns.

    Raises
    ------
    InputError
        Where this host has fewer GPUs than ranks and nothing allows sharing.
    """
    local, present = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))), torch.cuda.device_count()
    if local >= present and backend == "nccl" and os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") != "1":
        raise InputError(
            f"rank {local} of this host has no GPU", got=f"{present} GPUs", expected="one for each rank",
            remedy="start fewer ranks, or let them share with NCCL 2.30 and NCCL_MULTI_RANK_GPU_ENABLE=1",
        )  # fmt: skip
    return torch.device("cuda", local % present)


def communication_first() -> Any:
    """NCCL's kernels on streams of high priority.

    A kernel of attention has many times more blocks than fit, and blocks are handed out kernel by kernel: on a stream
    of its own priority NCCL's few blocks come when the last wave of that kernel leaves room, which makes a hop late
    that is to run beside it. With a higher one they are next when any block ends (nothing that runs is interrupted).
    PyTorch's default is no priority; predictions of our runs are those of `HardwareProfile.with_communication_first`.
    Source: CUDA Runtime API, cudaStreamCreateWithPriority; PyTorch pull requests 43796 and 122830.
    """
    options = dist.ProcessGroupNCCL.Options()
    options.is_high_priority_stream = True
    return options


def group_members(groups: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Ranks of each group, from the number of the group of each rank; below 0, of none.

    >>> group_members([0, 1, 0, -1])
    ((0, 2), (1,))
    """
    members: dict[int, list[int]] = {}
    for rank, group in enumerate(groups):
        members.setdefault(group, []).append(rank)
    return tuple(tuple(members[group]) for group in sorted(members) if group >= 0)
