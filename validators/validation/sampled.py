"""Are the results right at the very shape that is timed: 256 random query rows and 256 random keys, in float64.

Each rank hands over what it has of the sampled rows of O, LSE and dQ and of the sampled columns of dK and dV. The
reference of the columns needs LSE and delta of all rows: the run's own, which the sampled rows have shown to be right;
where a peer returns no LSE, that of dense attention. What was computed for one right schedule serves all others of a
configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simulator.program.operations import Buffer
from simulator.program.program import Program
from simulator.program.setup import Setup
from validators.executors.shards import Globals, assemble, first_head_of, token_index
from validators.executors.world import World
from validators.reference import reference_columns, reference_rows, relative_error
from validators.validation.inputs import SeededInputs

SAMPLES = 256
TOLERANCE = {
    "bf16": {"o": 1e-2, "lse": 2e-3, "dq": 2e-2, "dk": 2e-2, "dv": 2e-2},
    "fp32": {"o": 1e-5, "lse": 1e-5, "dq": 1e-4, "dk": 1e-4, "dv": 1e-4},
}
"""Largest relative error, by the least exact dtype in which a Program holds what it computes."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What one rank has of a sample: values at these places of it, from this head on."""

    places: Tensor
    first_head: int
    values: Tensor


class SampleCheck:
    """The check of every schedule on one configuration, against one reference.

    Parameters
    ----------
    seed : of what is sampled.
    """

    def __init__(self, world: World, setup: Setup, inputs: SeededInputs, seed: int) -> None:
        self._world, self._setup, self._inputs = world, setup, inputs
        generator = torch.Generator().manual_seed(seed)
        self._count = min(SAMPLES, setup.workload.seq_len)
        self._rows, self._columns = (
            torch.randperm(setup.workload.seq_len, generator=generator)[: self._count].sort().values for _ in range(2)
        )
        self._known: Globals = {}
        self._tried: Globals = {}

    def errors(self, outputs: Mapping[str, Tensor], buffers: Mapping[str, Buffer]) -> dict[str, float]:
        """Relative error of each output on what was sampled, on rank 0; nothing on the others."""
        chosen = {"o": self._rows, "lse": self._rows, "dq": self._rows, "dk": self._columns, "dv": self._columns}
        parts = {name: _part(tensor, buffers[name], self._world.rank, chosen[name]) for name, tensor in outputs.items()}
        lse = outputs["lse"].cpu() if "lse" in outputs else None
        gathered = self._world.collect((parts, lse, _delta(self._world, outputs, buffers, self._inputs)))
        if gathered is None:
            return {}
        got = {name: _join([each[0][name] for each in gathered], self._setup, self._count) for name in outputs}
        want = self._reference(buffers, [each[1] for each in gathered], [each[2] for each in gathered], "dk" in outputs)
        return {name: relative_error(got[name], want[name].cpu()) for name in outputs}

    def accept(self) -> None:
        """What was compared last was right: its LSE and delta serve the schedules after it."""
        self._known = self._tried

    def _reference(
        self, buffers: Mapping[str, Buffer], lse: Sequence[Tensor | None], delta: Sequence[Tensor], backward: bool
    ) -> Globals:
        mask, device = self._setup.workload.mask, self._world.device
        want, whole = dict(self._known), self._inputs.all()
        if "o" not in want:
            want |= reference_rows(whole, mask, self._rows.to(device))
        if backward and "dk" not in want:
            shards = [each for each in lse if each is not None]
            if shards:
                all_lse = assemble(buffers["lse"], shards, self._setup).to(device)
            else:
                every = torch.arange(self._setup.workload.seq_len, device=device)
                all_lse = reference_rows(whole, mask, every)["lse"]
            all_delta = assemble(_statistic(buffers["o"]), list(delta), self._setup).to(device)
            want |= reference_columns(whole, mask, self._columns.to(device), all_lse, all_delta)
        self._tried = want
        return want


def is_right(errors: Mapping[str, float], program: Program) -> bool:
    """Whether all errors are within the tolerance of the dtypes that the Program has."""
    dtypes = {subject.dtype for _, subject in program.events if isinstance(subject, Buffer)}
    limits = TOLERANCE["bf16" if dtypes & {"bf16", "fp16"} else "fp32"]
    return bool(errors) and all(error <= limits[name] for name, error in errors.items())


def _part(tensor: Tensor, buffer: Buffer, rank: int, sample: Tensor) -> _Part:
    assert buffer.layout is not None
    tokens = token_index(buffer.layout.ranges(rank))
    held, places = torch.isin(tokens, sample), torch.isin(sample, tokens)
    order = tokens[held].argsort()
    dim = 2 if buffer.dim == 1 else 1
    own = torch.nonzero(held).flatten()[order].to(tensor.device)
    values = tensor.index_select(dim, own).cpu()
    return _Part(torch.nonzero(places).flatten(), first_head_of(buffer.layout, rank), values)


def _join(parts: list[_Part], setup: Setup, count: int) -> Tensor:
    """The whole sample; NaN where no rank has anything."""
    first = parts[0].values
    statistic = first.dim() == 3
    heads = max(part.first_head + part.values.shape[1 if statistic else 2] for part in parts)
    shape = (first.shape[0], heads, count) if statistic else (first.shape[0], count, heads, first.shape[3])
    joined = torch.full(shape, torch.nan, dtype=first.dtype)
    for part in parts:
        if statistic:
            joined[:, part.first_head : part.first_head + part.values.shape[1], part.places] = part.values
        else:
            joined[:, part.places, part.first_head : part.first_head + part.values.shape[2]] = part.values
    return joined


def _delta(
    world: World, outputs: Mapping[str, Tensor], buffers: Mapping[str, Buffer], inputs: SeededInputs
) -> Tensor:  # fmt: skip
    """Rowsum(dO O) of this rank's rows of O."""
    o = buffers["o"]
    gradient = inputs.load(
        Buffer(-1, "do", o.batch, o.tokens, o.heads, o.dim, o.dtype, o.bytes, o.layout), outputs["o"].dtype
    )
    total: Tensor = (gradient.float() * outputs["o"].float()).sum(dim=-1).transpose(1, 2).contiguous().cpu()
    return total


def _statistic(o: Buffer) -> Buffer:
    """A row statistic with the layout of O."""
    return Buffer(-1, "delta", o.batch, o.tokens, o.heads, 1, "fp32", o.bytes, o.layout)
