"""Inputs of a measured step, drawn by name from a seed: the same on every rank and for every length of the sequence."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from simulator.program.operations import Buffer
from validators.executors.shards import cut
from validators.executors.store import DTYPES
from validators.validation.step_configuration import StepConfiguration


class StepInputs:
    """Weights, optimizer states and tokens on one rank.

    Matrices are normal with variance 1 / in, gains about 1, moments 0, master weights the weights themselves.

    Parameters
    ----------
    configuration : the step.
    seed : of the draw.
    rank, device : of this process.
    """

    def __init__(self, configuration: StepConfiguration, seed: int, rank: int, device: torch.device) -> None:
        self._configuration, self._seed, self._rank, self._device = configuration, seed, rank, device

    def load(self, buffer: Buffer, dtype: torch.dtype) -> Tensor:
        """The rank's part of a buffer."""
        return cut(self._whole(buffer), buffer, self._rank).to(dtype)

    def whole(self, buffer: Buffer, dtype: torch.dtype) -> Tensor:
        """All tokens, or a weight."""
        return self._whole(buffer).to(dtype)

    def _whole(self, buffer: Buffer) -> Tensor:
        c, name = self._configuration, buffer.name
        if name in ("ids", "labels"):
            return torch.randint(c.vocab, (c.batch, 1, c.seq_len), generator=self._generator(name), device=self._device)
        if name in ("x", "dy"):
            return self._normal(name, (c.batch, c.seq_len, 1, c.hidden), 1.0)
        kind, _, weight = name.rpartition(" ")
        rows = buffer.tokens
        assert isinstance(rows, int) and not buffer.slices, "weights are whole on every rank"
        shape = buffer.batch, rows, 1, buffer.dim
        if kind in ("m", "v"):
            return torch.zeros(shape, device=self._device)
        if rows == 1:
            return 1 + self._normal(weight, shape, 0.25)
        return self._normal(weight, shape, buffer.dim**-0.5)

    def _normal(self, name: str, shape: tuple[int, ...], deviation: float) -> Tensor:
        """In the dtype of the weights, so that masters are equal to them."""
        drawn = torch.empty(shape, dtype=DTYPES[self._configuration.dtype], device=self._device)
        return drawn.normal_(std=deviation, generator=self._generator(name))

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(zlib.crc32(f"{self._seed} {name}".encode()))
