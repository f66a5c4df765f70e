"""What a schedule is: a frozen dataclass whose fields are its options, and two SPMD functions.

    saved = forward(recorder, q, k, v)        saved[0] is O, saved[1] its LSE; the rest is what backward needs
    dq, dk, dv = backward(recorder, q, k, v, saved, do)

The functions are called once, for all ranks; see `simulator.program.recorder`. What a schedule cannot run is refused
by ``check`` before anything is recorded, with the reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np

from cost_models.masks import Mask
from cost_models.units import format_count
from simulator.program.operations import Column
from simulator.program.partition import Layout, Partition
from simulator.program.partitioners import build_partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.chunk import Chunk
from traces.errors import InputError

Saved = tuple[Tensor, ...]
Shard = tuple[Layout, int]


@dataclass(frozen=True)
class Schedule(ABC):
    """A context-parallel algorithm with its options.

    Attributes
    ----------
    name : as users write it.
    exact : whether it computes dense attention under the workload's mask.
    source : paper and section, or code, that it follows.
    whole_prompt : why it cannot take a prompt in chunks; nothing where it can.
    asks_again : whether prefill ends with the query once more, exactly.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    source: ClassVar[str]
    whole_prompt: ClassVar[str] = ""
    asks_again: ClassVar[bool] = False

    @abstractmethod
    def resolve(self, setup: Setup) -> Self:
        """The schedule with every default filled in for this setup."""

    @abstractmethod
    def check(self, setup: Setup) -> None:
        """Refuse what cannot run, with the reason.

        Raises
        ------
        InputError
            Naming the condition that does not hold.
        """

    @abstractmethod
    def input_partition(self, setup: Setup) -> Partition:
        """Which tokens of Q, K, V (and dO) each rank holds at the start."""

    def input_shards(self, setup: Setup) -> dict[str, Shard]:
        """Layout and heads of Q, K, V and dO on each rank: all heads of the tokens in its part, but for `tp`."""
        home, w = Layout.home(self.input_partition(setup)), setup.workload
        return {"q": (home, w.heads), "k": (home, w.kv_heads), "v": (home, w.kv_heads), "do": (home, w.heads)}

    @abstractmethod
    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Record the forward pass; returns O, LSE and what else backward needs."""

    def scores(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """What is computed of Q, K and V before positions are put into them: nothing, with most."""
        return None

    def forward_scored(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, scores: Tensor | None) -> Saved:
        """Forward, where `scores` has been called before; of inference only."""
        return self.forward(r, q, k, v)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Record the backward pass; returns dQ, dK, dV."""
        raise InputError(f"{self.name} has no backward pass", remedy="ask for the forward pass")

    def repeated_rows(self, setup: Setup) -> Column:
        """Leading rows of each rank's part that other ranks have too (anchors): not kept for decoding."""
        partition = self.input_partition(setup)
        return np.maximum(partition.stop[:, 0] - partition.start[:, 0], 0) if partition.name == "anchored" else 0

    def cached_layout(self, chunk: Chunk, heads: int) -> Layout:
        """Which tokens, and which of so many heads, each rank keeps of a chunk's keys: as they come."""
        return Layout.home(chunk.shifted(self.input_partition(chunk.setup)))

    def cached_rows(self, r: Recorder, tensor: Tensor, chunk: Chunk) -> Tensor:
        """A chunk's keys or values as each rank keeps them."""
        return tensor

    def attend_cached(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, chunk: Chunk) -> Tensor:
        """O of a chunk's queries, from the keys and values kept of it and of all chunks before."""
        return self.forward(r, q, k, v)[0]

    @property
    def has_backward(self) -> bool:
        """Whether gradients can be computed."""
        return type(self).backward is not Schedule.backward

    def __str__(self) -> str:
        shown = [
            each for each in fields(self) if not each.metadata.get("detail") or getattr(self, each.name) != each.default
        ]
        options = {each.name.replace("_", "-"): getattr(self, each.name) for each in shown}
        text = ",".join(f"{key}={_text(value)}" for key, value in options.items() if value is not None)
        return f"{self.name}:{text}" if text else self.name


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return format_count(value).replace(",", "") if isinstance(value, int) else str(value)


def default_partition(mask: Mask) -> str:
    """Zigzag balances causal masks; others are balanced as they are."""
    return "zigzag" if mask.is_causal else "contiguous"


def split_sequence(name: str | None, setup: Setup, parts: int | None = None, *, multiple: int = 1) -> Partition:
    """The workload's sequence in ``parts`` (one per rank), by the partition named or the mask's default."""
    workload = setup.workload
    chosen = name or default_partition(workload.mask)
    return build_partition(chosen, workload.seq_len, parts or setup.n_ranks, workload.mask, multiple=multiple)


def check_choice(schedule: Schedule, option: str, choices: tuple[str, ...]) -> None:
    """Refuse an option's value that is none of ``choices`` (None: not chosen yet)."""
    value = getattr(schedule, option)
    if value is not None and value not in choices:
        raise InputError(f"{schedule.name}: unknown {option}", got=repr(value), expected="one of " + ", ".join(choices))


def detail(default: Any) -> Any:
    """An option that tells implementations apart; the schedule's text names it only where it is not the default."""
    return field(default=default, metadata={"detail": True})
