"""One rank's tensors, by the Program's plan: memory is taken after a buffer is allocated and dropped at its release.

A buffer is [batch, tokens, heads, dim]; row statistics (dim 1: LSE, delta, scores) are [batch, heads, tokens], as
kernels have them. Its tensor is made by whoever first writes it: an operation that fills memory asks for the `whole`,
an attention kernel that makes its own results gives them as `pieces`, each the rows start <= i < stop. Pieces are used
where they lie, so that a partial result is never copied only to be merged from the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from simulator.program.operations import Buffer
from validators.executors.shards import place_of_view, shape_of

DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int32": torch.int32,
    "int64": torch.int64,
    "packed-int8": torch.uint8,
    "packed-int4": torch.uint8,
    "packed-fp8": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows ``start <= i < stop`` of a buffer, as a tensor of their own."""

    start: int
    stop: int
    tensor: Tensor


class Store:
    """Tensors of one rank.

    Parameters
    ----------
    rank : whose.
    device : where.
    load_input : the shard of an input buffer, in the dtype given to it.
    dtype : of everything, instead of what the Program says.
    poison : fill what is new with NaN, so that what is read before it is written shows.
    """

    def __init__(
        self,
        rank: int,
        device: torch.device,
        load_input: Callable[[Buffer, torch.dtype], Tensor],
        *,
        dtype: torch.dtype | None = None,
        poison: bool = False,
    ) -> None:
        self.rank, self.device = rank, device
        self._load_input, self._dtype, self._poison = load_input, dtype, poison
        self._held: dict[int, Tensor | list[Piece] | None] = {}

    def clear(self) -> None:
        """Forget everything, before a Program runs again."""
        self._held.clear()

    def begin(self, held: Mapping[int, Tensor | None]) -> None:
        """Hold these tensors and no others, by the number of their buffer; None: nobody has written it yet."""
        self._held.clear()
        self._held.update(held)

    def allocate(self, buffer: Buffer) -> None:
        """The buffer exists from now on; an input has its data."""
        self._held[buffer.id] = self._load_input(buffer, self.dtype_of(buffer)) if buffer.is_input else None

    def release(self, buffer: Buffer) -> Tensor | list[Piece] | None:
        """Forget the buffer; what it held is handed back to whoever must keep it a little longer."""
        return self._held.pop(buffer.id)

    def forget(self, numbers: Sequence[int]) -> None:
        """Forget several buffers."""
        for number in numbers:
            del self._held[number]

    def dtype_of(self, buffer: Buffer) -> torch.dtype:
        """The dtype in which the buffer is held."""
        return self._dtype or DTYPES[buffer.dtype]

    def whole(self, buffer: Buffer) -> Tensor:
        """All rows, in one tensor to read or to write; made where there is none yet."""
        return self.reader(buffer)()

    def reader(self, buffer: Buffer) -> Callable[[], Tensor]:
        """What gives the `whole` of a buffer, its shape and place worked out beforehand, as often as it is called."""
        if buffer.base is not None:
            base, place = self.reader(buffer.base), place_of_view(buffer, self.rank)
            return lambda: base()[place]
        held, number = self._held, buffer.id
        make = partial(self._make, buffer, shape_of(buffer, self.rank), self.dtype_of(buffer), self.place_of(buffer))

        def read() -> Tensor:
            tensor = held[number]
            return tensor if type(tensor) is Tensor else make(tensor)

        return read

    def _make(
        self, buffer: Buffer, shape: tuple[int, ...], dtype: torch.dtype, place: torch.device, held: list[Piece] | None
    ) -> Tensor:
        """A tensor of the whole: the one piece that is it, or new memory with what pieces there are."""
        if held and len(held) == 1 and held[0].tensor.shape == shape:
            made = held[0].tensor
        else:
            made = self._empty(shape, dtype, place)
            self._fill(made, buffer, held or [])
        self._held[buffer.id] = made
        return made

    def adopt(self, buffer: Buffer, pieces: list[Piece]) -> None:
        """The buffer's rows are these tensors from now on."""
        if buffer.base is not None:
            self._fill(self.whole(buffer), buffer, pieces)
            return
        self._held[buffer.id] = pieces

    def pieces(self, buffer: Buffer, covered: Sequence[tuple[int, int]]) -> list[Piece]:
        """The covered rows: as the kernels left them, or as views of the whole."""
        held = self._held[buffer.id]
        if isinstance(held, list) and buffer.base is None:
            return held
        whole, dim = self.whole(buffer), token_dim(buffer)
        return [Piece(start, stop, whole.narrow(dim, start, stop - start)) for start, stop in covered]

    def _fill(self, whole: Tensor, buffer: Buffer, pieces: list[Piece]) -> None:
        for piece in pieces:
            whole.narrow(token_dim(buffer), piece.start, piece.stop - piece.start).copy_(piece.tensor)

    def place_of(self, buffer: Buffer) -> torch.device:
        """Where the buffer is held."""
        return torch.device("cpu") if buffer.on_host else self.device

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype, place: torch.device) -> Tensor:
        """Memory of the host is pinned where a GPU's copy engines are to reach it."""
        if place.type == "cpu" and self.device.type == "cuda":
            made = torch.empty(shape, dtype=dtype, pin_memory=True)
        else:
            made = torch.empty(shape, dtype=dtype, device=place)
        return made.fill_(torch.nan) if self._poison and dtype.is_floating_point else made


def token_dim(buffer: Buffer) -> int:
    """Which dim of a buffer's tensor runs over tokens."""
    return 2 if buffer.dim == 1 else 1
