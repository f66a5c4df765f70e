"""What parts of a layer are recorded on: operations forward, and with each what its backward will emit.

    y = part(net, x, weight)        emits forward; hangs ``backward`` on the net, which holds what it needs and no more
    net.backward()                  calls them, last first; gradients gather in slots, those of weights in parameters

A tensor that no backward holds and no part refers to is released, so that what is saved for backward is what memory
shows. A slot is None where no gradient is wanted: nothing below is trained. Parts whose inputs and weights want none
hang nothing on the net and save nothing.

Gradients of a tensor used twice are added: in place where the first is nobody else's, else into a new tensor, as
autograd does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from simulator.layers.fp8 import Cast
from simulator.layers.offload import Stash
from simulator.layers.parameter import Parameter
from simulator.program.operations import Elementwise, Work
from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor

Backward = Callable[[], None]


class Slot:
    """Where the gradient of a tensor gathers.

    Attributes
    ----------
    grad : what has arrived so far.
    shared : whether something else refers to the same memory, so that nothing may be added in place.
    """

    __slots__ = ("grad", "shared")

    def __init__(self) -> None:
        self.grad: Tensor | None = None
        self.shared = False

    def take(self) -> Tensor:
        """The whole gradient; the slot is empty then."""
        grad, self.grad = self.grad, None
        assert grad is not None
        return grad


class Var(NamedTuple):
    """A tensor, and the slot of its gradient."""

    tensor: Tensor
    slot: Slot | None


class Net:
    """Records parts of layers.

    Parameters
    ----------
    r : the recorder.
    training : whether backwards are kept.

    Attributes
    ----------
    stash : where checkpointed layers leave what is kept of them; None on the GPU.
    last_cast : what was cast to FP8 last, for products of the same tensor.
    """

    def __init__(self, r: Recorder, *, training: bool) -> None:
        self.r, self.training = r, training
        self._backwards: list[Backward] = []
        self._drop = False
        self.stash: Stash | None = None
        self.last_cast: tuple[tuple[int, str, bool], Cast] | None = None

    def wants(self, *inputs: Var | Parameter) -> bool:
        """Whether any gradient of these is wanted."""
        if not self.training:
            return False
        return any(each.trainable if isinstance(each, Parameter) else each.slot is not None for each in inputs)

    def var(self, tensor: Tensor, *inputs: Var | Parameter) -> Var:
        """An output: with a slot where a gradient of an input is wanted."""
        return Var(tensor, Slot() if self.wants(*inputs) else None)

    def push(self, backward: Backward) -> None:
        """Hang a backward on the net."""
        if not self._drop:
            self._backwards.append(backward)

    def give(self, slot: Slot | None, grad: Tensor, *, shared: bool = False) -> None:
        """A contribution to a gradient."""
        if slot is None:
            return
        if slot.grad is None:
            slot.grad, slot.shared = grad, shared
        elif slot.shared:
            total = self.r.like(grad, grad.buffer.name)
            size = grad.buffer.bytes
            self.r.emit("add", Elementwise("accumulate", 2 * size, size), (slot.grad, grad), (total,))
            slot.grad, slot.shared = total, False
        else:
            self.r.add((slot.grad,), (grad,))

    def mark(self) -> int:
        """How many backwards hang on the net."""
        return len(self._backwards)

    def backward(self, mark: int = 0) -> None:
        """Call the backwards hung on since ``mark``, last first; each is dropped, and what it held, once it is done."""
        while len(self._backwards) > mark:
            self._backwards.pop()()

    @contextmanager
    def without_backward(self) -> Iterator[None]:
        """What is recorded inside saves nothing (it is recorded again in backward)."""
        before, self._drop = self._drop, True
        try:
            yield
        finally:
            self._drop = before

    @property
    def saves(self) -> bool:
        """Whether backwards hold on to tensors now."""
        return not self._drop

    def weight_grad(self, weight: Parameter, reads: Iterable[Tensor], kind: str, work: Work, **options: Any) -> None:
        """Emit the operation that computes a weight's gradient, or adds to what microbatches before left."""
        fresh = weight.grad is None
        grad = weight.grad = weight.grad or weight.new_grad(self.r)
        before = () if fresh else (grad,)
        self.r.emit(kind, work, (*reads, *before), (grad,), accumulate=not fresh, **options)
