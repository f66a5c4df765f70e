"""What recorded steps do: real kernels and real collectives, each workload a function that makes a step.

| workload | a step |
|---|---|
| kernels | projections, attention forward and backward, elementwise, on one process |
| collectives | every kind of communication once, with a GEMM beside it |
| ring | ring attention's forward hops (grouped send and receive) beside attention, written with plain PyTorch |
| context-parallel | PyTorch's own context parallelism (`torch.distributed.tensor.experimental`) |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from torch import Tensor
from torch.profiler import record_function

from traces.errors import InputError

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Where and how large: ``seq_len`` tokens on each rank."""

    device: torch.device
    rank: int
    world_size: int
    seq_len: int
    heads: int
    head_dim: int

    @property
    def dtype(self) -> torch.dtype:
        """bf16 on GPUs, fp32 on CPUs."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def draw(self, *shape: int, grad: bool = False) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, device=self.device, dtype=self.dtype, requires_grad=grad)

    def check_distributed(self, workload: str) -> None:
        """Refuse a workload that communicates where nobody is there."""
        if not dist.is_initialized():
            raise InputError(f"workload {workload} needs several processes", remedy="start it with torchrun")


def kernels(case: Case) -> Step:
    """A layer's forward and backward, without communication."""
    width = case.heads * case.head_dim
    x, w_in = case.draw(1, case.seq_len, width), case.draw(3 * width, width, grad=True)
    w_out = case.draw(width, width, grad=True)

    def step() -> float:
        with record_function("forward"):
            q, k, v = nnf.linear(x, w_in).view(1, case.seq_len, 3, case.heads, case.head_dim).permute(2, 0, 3, 1, 4)
            o = nnf.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = nnf.gelu(nnf.linear(o.transpose(1, 2).reshape(1, case.seq_len, width), w_out)) + x
        with record_function("backward"):
            y.backward(torch.ones_like(y))
        with record_function("optimizer"), torch.no_grad():
            for weight in (w_in, w_out):
                assert weight.grad is not None
                weight.sub_(weight.grad, alpha=1e-6)
                weight.grad = None
        return float(y.detach()[0, 0, 0])

    return step


def collectives(case: Case) -> Step:
    """All-reduce, all-gather, reduce-scatter, all-to-all and a ring hop, each beside a GEMM."""
    case.check_distributed("collectives")
    width, ranks = case.heads * case.head_dim, case.world_size
    a, weight = case.draw(case.seq_len, width), case.draw(width, width)
    shard, whole = case.draw(case.seq_len, width), case.draw(ranks * case.seq_len, width)
    received = torch.empty_like(shard)
    inputs, outputs = list(whole.chunk(ranks)), [torch.empty_like(shard) for _ in range(ranks)]

    def beside(start: Callable[[], list[dist.Work]]) -> None:
        works = start()
        torch.mm(a, weight)
        for work in works:
            work.wait()
        shard.mul_(0.5)

    def step() -> None:
        beside(lambda: [_work(dist.all_reduce(shard, async_op=True))])
        beside(lambda: [_work(dist.all_gather_into_tensor(whole, shard, async_op=True))])
        beside(lambda: [_work(dist.reduce_scatter_tensor(shard, whole, async_op=True))])
        if case.device.type == "cuda":
            beside(lambda: [_work(dist.all_to_all(outputs, inputs, async_op=True))])
        else:
            beside(lambda: [_work(dist.all_to_all_single(whole, whole.clone(), async_op=True))])
        beside(lambda: _hop(case, [shard], [received]))
        beside(lambda: [_work(dist.broadcast(shard, 0, async_op=True))])

    return step


def ring(case: Case) -> Step:
    """P steps of attention; keys and values arrive meanwhile."""
    case.check_distributed("ring")
    shape = (1, case.heads, case.seq_len, case.head_dim)
    q, first = case.draw(*shape), [case.draw(*shape), case.draw(*shape)]

    def step() -> Tensor:
        held, total = first, torch.zeros_like(q)
        with record_function("forward"):
            for hop in range(case.world_size):
                works, arriving = [], held
                if hop < case.world_size - 1:
                    arriving = [torch.empty_like(each) for each in held]
                    works = _hop(case, held, arriving)
                total += nnf.scaled_dot_product_attention(q, *held)
                for work in works:
                    work.wait()
                held = arriving
        return total

    return step


def context_parallel(case: Case) -> Step:
    """PyTorch's context parallelism, forward and backward; what is beneath its context manager where that knows none.

    On GPUs it is the public context manager around scaled dot product attention, with flash kernels. It does not know
    the CPU's kernels; there the templates that it dispatches to are called with them.
    """
    case.check_distributed("context-parallel")
    return _managed(case) if case.device.type == "cuda" else _templated(case)


def _managed(case: Case) -> Step:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.experimental import context_parallel as sharded
    from torch.nn.attention import SDPBackend, sdpa_kernel

    mesh = init_device_mesh(case.device.type, (case.world_size,))
    shape = (1, case.heads, case.world_size * case.seq_len, case.head_dim)
    whole = [case.draw(*shape) for _ in range(3)]

    def step() -> None:
        q, k, v = (each.clone() for each in whole)
        managed = sharded(mesh, buffers=[q, k, v], buffer_seq_dims=[2, 2, 2], no_restore_buffers={q, k, v})
        with managed, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            for each in (q, k, v):
                each.requires_grad_()
            with record_function("forward"):
                o = nnf.scaled_dot_product_attention(q, k, v, is_causal=True)
            with record_function("backward"):
                o.backward(torch.ones_like(o))

    return step


def _templated(case: Case) -> Step:
    from simulator.schedules.peers import TorchCp
    from validators.peers.adapters import torch_cp

    attend = torch_cp(dist.group.WORLD, TorchCp(), causal=True)
    q, k, v, do = (case.draw(1, case.seq_len, case.heads, case.head_dim) for _ in range(4))
    return lambda: attend(q, k, v, do)


def _hop(case: Case, sent: list[Tensor], received: list[Tensor]) -> list[dist.Work]:
    """Send to the next rank and receive from the one before, as one group."""
    successor, source = (case.rank + 1) % case.world_size, (case.rank - 1) % case.world_size
    operations = [dist.P2POp(dist.isend, each, successor) for each in sent]
    operations += [dist.P2POp(dist.irecv, each, source) for each in received]
    return dist.batch_isend_irecv(operations)


def _work(work: dist.Work | None) -> dist.Work:
    assert work is not None
    return work


WORKLOADS: dict[str, Callable[[Case], Step]] = {
    "kernels": kernels,
    "collectives": collectives,
    "ring": ring,
    "context-parallel": context_parallel,
}
