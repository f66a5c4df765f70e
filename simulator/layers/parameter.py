"""A weight: its shape on one rank, which part of the whole that is, and the tensors that hold it now.

[planes, rows, 1, columns]: a matrix has one plane, ``rows`` output and ``columns`` input features; a vector one row; a
stack of experts one plane each.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.layers.fp8 import Cast
from simulator.program.operations import Slices
from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor


@dataclass(eq=False)
class Parameter:
    """A weight of one rank.

    Attributes
    ----------
    name : unique in the model.
    rows, columns, planes : shape of the rank's part (of the whole under tensor or expert parallelism).
    slices : which part of the whole weight each rank has.
    replicas : axes along which ranks hold equal parts and see different tokens, besides context and data.
    experts_over : neighbouring data parallel ranks over which experts are spread: only every so many-th has the same.
    trainable : whether it has a gradient.
    fp8 : whether its products have operands in FP8.
    bits : of a stored element, where the weight is quantised and has to be dequantised for use.
    tensor : the weight, ready for use; None while it is sharded or stored elsewhere.
    grad : its gradient, or what microbatches have left of it so far.
    cast : the weight in FP8, while that is kept.
    """

    name: str
    rows: int
    columns: int
    planes: int = 1
    slices: tuple[Slices, ...] = ()
    replicas: tuple[str, ...] = ()
    experts_over: int = 1
    trainable: bool = True
    fp8: bool = False
    bits: float | None = None
    dtype: str = "bf16"
    grad_dtype: str = "bf16"
    tensor: Tensor | None = None
    grad: Tensor | None = None
    cast: Cast | None = None

    @property
    def size(self) -> int:
        """Elements."""
        return self.planes * self.rows * self.columns

    @property
    def held(self) -> Tensor:
        """The weight; an error if it has not been gathered."""
        assert self.tensor is not None, f"{self.name} is not gathered"
        return self.tensor

    def new_tensor(self, r: Recorder, *, is_input: bool = False) -> Tensor:
        """Memory for the whole part of this rank."""
        return r.tensor(
            self.name, None, 1, self.columns, self.dtype, tokens=self.rows, batch=self.planes, is_input=is_input,
            slices=self.slices, bits=self.bits,
        )  # fmt: skip

    def new_grad(self, r: Recorder) -> Tensor:
        """Memory for its gradient."""
        return r.tensor(
            f"d {self.name}", None, 1, self.columns, self.grad_dtype, tokens=self.rows, batch=self.planes,
            slices=self.slices,
        )  # fmt: skip
