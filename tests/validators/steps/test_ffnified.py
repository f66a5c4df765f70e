"""FFNified blocks on strips of an image equal torch's convolutions on the whole image, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, pad

from cost_models.convolution import FfnifiedBlock
from simulator.layers.ffnified import Strips, block_weights
from simulator.program.program import Program
from simulator.steps.mixers import mixer_setup, record_ffnified
from validators.executors.loopback import execute
from validators.transformer import draw_weights

CASES = [
    (ranks, FfnifiedBlock(6, token, channel), strips, rows)
    for ranks, token, channel, strips, rows in (
        (1, 3, 3, Strips(5), 8),
        (2, 3, 7, Strips(5), 8),
        (4, 7, 3, Strips(5), 12),
        (3, 5, 7, Strips(1, flat=True), 24),
        (4, 5, 3, Strips(1, causal=True, flat=True), 24),
    )
]


def reference(block: FfnifiedBlock, strips: Strips, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """[B, C, rows, width]."""

    def convolve(x: Tensor, name: str, kernel: int) -> Tensor:
        above, below = strips.reach(kernel)
        side = 0 if strips.flat else kernel // 2
        padded = pad(x, (side, side, above, below))
        return conv2d(padded, w[name].view(len(w[name]), 1, kernel, -1), w[f"{name}_bias"], groups=x.shape[1])

    def project(x: Tensor, name: str) -> Tensor:
        return conv2d(x, w[name][:, :, None, None], w[f"{name}_bias"])

    s = convolve(project(x, "query"), "keys", block.token_kernel)
    x = x + convolve(gelu(s), "values", block.token_kernel)
    return x + project(gelu(project(convolve(x, "local", block.channel_kernel), "up")), "down")


@pytest.mark.parametrize(("ranks", "block", "strips", "rows"), CASES)
def test_equals_whole_convolutions(ranks: int, block: FfnifiedBlock, strips: Strips, rows: int) -> None:
    positions, batch = rows * strips.width, 2
    program = Program(mixer_setup(positions, block.channels, ranks, ranks, batch))
    record_ffnified(program.setup, block, strips, program)
    parameters = block_weights(block, strips, "")
    shapes = {n: (p.rows, p.columns) if p.rows > 1 else (p.columns,) for n, p in parameters.items()}
    weights = {name: each.requires_grad_() for name, each in draw_weights(shapes).items()}
    generator = torch.Generator().manual_seed(5)
    size = (batch, positions, 1, block.channels)
    x, dy = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2))
    done = execute(program, {**{name: each.detach() for name, each in weights.items()}, "x": x, "dy": dy})
    image = x[:, :, 0].unflatten(1, (rows, strips.width)).permute(0, 3, 1, 2).clone().requires_grad_()
    y = reference(block, strips, weights, image)
    y.backward(dy[:, :, 0].unflatten(1, (rows, strips.width)).permute(0, 3, 1, 2))
    flat = y.permute(0, 2, 3, 1).flatten(1, 2)[:, :, None]
    assert (done.results["y"] - flat).abs().max() < 1e-12
    assert image.grad is not None
    assert (done.results["dx"] - image.grad.permute(0, 2, 3, 1).flatten(1, 2)[:, :, None]).abs().max() < 1e-11
    for name, weight in weights.items():
        assert weight.grad is not None
        total = torch.stack(done.shards[f"d {name}"]).sum(dim=0).view(weight.shape)
        assert (total - weight.grad).abs().max() < 1e-11, name
