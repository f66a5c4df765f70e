"""Whether an executed step is right: against autograd on a plain model in fp32, from the same weights and tokens.

    loss          of every token
    gradients     of every trained weight; of a model read off the first moment, m = (1 - beta1) g from m = 0
    optimizer     updated weights, against torch.optim.AdamW given the executed step's gradients

The working dtype rounds. How much is allowed is what the same plain model loses in that dtype under autograd: an error
may be twice as large and ``FLOOR``. Updated weights differ at most by ``EXACT``: fp32 arithmetic that rounds a few of
them to the next bf16. Without the update it would be a hundred times that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from simulator.program.operations import Buffer
from simulator.program.program import Program
from simulator.steps.parameters import ADAMW
from validators.executors.shards import token_index
from validators.executors.store import DTYPES
from validators.executors.world import World
from validators.transformer import dense_layer, model_loss
from validators.validation.step_configuration import StepConfiguration
from validators.validation.step_inputs import StepInputs

FLOOR, EXACT = 2e-3, 1e-4
PART = 1 << 25
TOKEN_DIM = {"loss": 2, "y": 1, "d x": 1}
"""Of what ranks have for their own tokens only."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class StepErrors:
    """Relative errors of a step, and those of the plain model in the working dtype."""

    executed: Mapping[str, float]
    plain: Mapping[str, float]
    optimizer: float

    @property
    def right(self) -> bool:
        """Whether no error is too large."""
        within = [error <= 2 * self.plain[name] + FLOOR for name, error in self.executed.items()]
        return bool(within) and all(within) and self.optimizer <= EXACT

    @property
    def summary(self) -> dict[str, float]:
        """For the record: the loss (or a layer's output), the worst gradient, the optimizer."""
        grads = {kind: [each for name, each in errors.items() if name.startswith("d ")]
                 for kind, errors in (("gradients", self.executed), ("plain gradients", self.plain))}  # fmt: skip
        first = next(iter(self.executed))
        return {
            first: self.executed[first], f"plain {first}": self.plain[first],
            **{kind: max(errors) for kind, errors in grads.items()}, "optimizer": self.optimizer,
        }  # fmt: skip


def check_step(
    world: World, configuration: StepConfiguration, program: Program, inputs: StepInputs, outputs: Mapping[str, Tensor]
) -> StepErrors:  # fmt: skip
    """Errors of an executed step: of all ranks' tokens, and of this rank's weights. All ranks call it."""
    buffers = {each.name: each for verb, each in program.events if verb == "allocate" and isinstance(each, Buffer)
               and each.is_input}  # fmt: skip
    found = _executed(configuration, outputs)
    for name, dim in TOKEN_DIM.items():
        if name in found:
            found[name] = _of_all_ranks(
                world, found[name], dim, buffers["x" if configuration.what == "layer" else "ids"]
            )
    if configuration.what == "layer":
        found |= {name: _sum_of_ranks(world, each) for name, each in found.items() if name not in TOKEN_DIM}
    trained = {name[2:] for name in found if name.startswith("d ") and name != "d x"}
    errors = {}
    wanted = _autograd(configuration, buffers, inputs, trained, torch.float32)
    for dtype in ("executed", configuration.dtype):
        got = found if dtype == "executed" else _autograd(configuration, buffers, inputs, trained, DTYPES[dtype])
        errors[dtype] = {name: _error(got[name].reshape(want.shape), want) for name, want in wanted.items()}
    optimizer = _optimizer_error(buffers, inputs, outputs, found) if configuration.what == "model" else 0.0
    return StepErrors(errors["executed"], errors[configuration.dtype], optimizer)


def _sum_of_ranks(world: World, own: Tensor) -> Tensor:
    """A layer's gradients are of each rank's tokens; only a step adds them up."""
    if world.size == 1:
        return own
    total = own.float()
    dist.all_reduce(total, group=world.group("check", (tuple(range(world.size)),), first=False))
    return total


def _of_all_ranks(world: World, own: Tensor, dim: int, tokens: Buffer) -> Tensor:
    """Every rank's tokens, in their order."""
    assert tokens.layout is not None
    if world.size == 1:
        return own
    shards, order = world.gather(own.cpu()), [token_index(tokens.layout.ranges(rank)) for rank in range(world.size)]
    return torch.cat(shards, dim=dim).index_select(dim, torch.cat(order).argsort()).to(own.device)


def _executed(configuration: StepConfiguration, outputs: Mapping[str, Tensor]) -> Tensors:
    """Loss by token and gradients, or y, dx and gradients of a layer."""
    if configuration.what == "layer":
        return {"d x" if name == "dx" else name: each for name, each in outputs.items()}
    parts = sorted((name for name in outputs if name.startswith("lse ")), key=lambda name: int(name[4:]))
    losses = [outputs[name] - outputs[name.replace("lse", "target")] for name in parts]
    grads = {f"d {name[2:]}": each / (1 - ADAMW["beta1"]) for name, each in outputs.items() if name.startswith("m ")}
    return {"loss": torch.cat(losses, dim=-1), **grads}


def _autograd(
    c: StepConfiguration, buffers: Mapping[str, Buffer], inputs: StepInputs, trained: set[str], dtype: torch.dtype
) -> Tensors:
    """Of the plain model."""
    named = {name: buffer for name, buffer in buffers.items() if " " not in name}
    loaded = {name: inputs.whole(buffer, torch.int64 if "int" in buffer.dtype else DTYPES[c.dtype])
              for name, buffer in named.items()}  # fmt: skip
    weights = {name: (each.reshape(-1, each.shape[-1]).squeeze(0)).to(dtype).requires_grad_(name in trained)
               for name, each in loaded.items() if name not in ("ids", "labels", "x", "dy")}  # fmt: skip
    device = next(iter(weights.values())).device
    allowed = torch.ones(c.seq_len, c.seq_len, dtype=torch.bool, device=device).tril()
    with torch.enable_grad():
        if c.what == "layer":
            x = loaded["x"][:, :, 0].to(dtype).requires_grad_()
            y = dense_layer(c.shape, weights, "layers.0.", x, allowed)
            y.backward(loaded["dy"][:, :, 0].to(dtype))
            assert x.grad is not None
            found = {"y": y.detach(), "d x": x.grad}
        else:
            loss = model_loss(c.shape, weights, loaded["ids"][:, 0], loaded["labels"][:, 0], allowed)
            loss.mean().backward()
            found = {"loss": loss.detach()[:, None]}
    return found | {f"d {name}": each.grad for name, each in weights.items() if each.grad is not None}


def _optimizer_error(
    buffers: Mapping[str, Buffer], inputs: StepInputs, outputs: Mapping[str, Tensor], found: Tensors
) -> float:  # fmt: skip
    """Largest relative error of the updates of trained weights, in the dtype they are rounded to."""
    worst, o = 0.0, ADAMW
    for name in (each[2:] for each in found if each.startswith("d ")):
        weight = inputs.load(buffers[f"master {name}"], torch.float32).requires_grad_()
        weight.grad = found[f"d {name}"].view_as(weight).clone()
        optimizer = torch.optim.AdamW(
            [weight], o["learning_rate"], (o["beta1"], o["beta2"]), o["epsilon"], o["weight_decay"]
        )
        zeros = {kind: torch.zeros_like(weight) for kind in ("exp_avg", "exp_avg_sq")}
        optimizer.state[weight] = {"step": torch.tensor(o["step"] - 1.0), **zeros}
        optimizer.step()
        got = outputs[name]
        worst = max(worst, _error(got.view_as(weight), weight.detach().to(got.dtype)))
    return worst


def _error(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want||, part by part: a gradient of a large vocabulary is not copied in float64 as a whole."""
    parts = zip(got.reshape(-1).split(PART), want.reshape(-1).split(PART), strict=True)
    squares = [((a.double() - b.double()).square().sum(), b.double().square().sum()) for a, b in parts]
    apart, size = (float(sum(each[i] for each in squares)) for i in (0, 1))
    return float(np.sqrt(apart / size)) if np.isfinite(apart) and size else float("inf")
