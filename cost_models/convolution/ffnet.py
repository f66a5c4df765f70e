"""FFNified attention: query-key-value kept, both interactions replaced by large depthwise convolutions.

    token mixer      X + DW_k2(GELU(DW_k1(W_q X)))            keys and values are weights: C k^2 each
    channel mixer    X + W_2 GELU(W_1 DW_k3(X))               W_1: C -> e C

Counts of the network as it is deployed: branches merged, batch normalisation folded into the convolutions. N positions:

    block            N (7 C^2 + C (k1^2 + k2^2 + k3^2)) multiply-adds for e = 3
    down-sampling    N' (49 C' + C'^2),  N' = N/4, C' = 2 C: depthwise 7x7 of stride 2, then 1x1
    stem             two 3x3 of stride 2: 3 -> 64 -> C_1

What the authors print as FLOPs are multiply-adds. Source: MetaMixer (arXiv 2406.02021) section 3; shapes from
models/ffnet.py of github ysj9909/FFNet (f3c3e4c).
"""

from __future__ import annotations

from dataclasses import dataclass

STEM = 64
CLASSES = 1000


@dataclass(frozen=True)
class FfnifiedBlock:
    """A token mixer and a channel mixer.

    Parameters
    ----------
    channels : C.
    token_kernel, channel_kernel : k1 = k2, and k3.
    expansion : e.
    layer_scale : a factor per channel on both residual branches.
    """

    channels: int
    token_kernel: int
    channel_kernel: int
    expansion: int = 3
    layer_scale: bool = False

    @property
    def taps(self) -> int:
        """Multiply-adds of the depthwise convolutions, per position and channel."""
        return 2 * self.token_kernel**2 + self.channel_kernel**2

    @property
    def n_parameters(self) -> int:
        """Weights and biases.

        >>> FfnifiedBlock(80, 3, 3).n_parameters
        47600
        """
        c, e = self.channels, self.expansion
        scales = 2 * c if self.layer_scale else 0
        return c * c * (1 + 2 * e) + c * self.taps + c * (5 + e) + scales

    def multiply_adds(self, positions: int) -> int:
        """Of one image of so many positions."""
        c = self.channels
        return positions * (c * c * (1 + 2 * self.expansion) + c * self.taps)

    def halo_rows(self) -> tuple[int, int, int]:
        """Rows that a strip of the image needs of each neighbour, before each of the three convolutions."""
        return self.token_kernel // 2, self.token_kernel // 2, self.channel_kernel // 2


@dataclass(frozen=True)
class FfNet:
    """Four stages of blocks, a stem before and down-sampling between."""

    depths: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    token_kernels: tuple[int, int, int, int] = (3, 3, 7, 7)
    channel_kernel: int = 7
    layer_scale: bool = False

    def block(self, stage: int) -> FfnifiedBlock:
        """A block of a stage."""
        return FfnifiedBlock(
            self.channels[stage], self.token_kernels[stage], self.channel_kernel, layer_scale=self.layer_scale
        )

    @property
    def n_parameters(self) -> int:
        """Weights of the deployed network."""
        first, last = self.channels[0], self.channels[-1]
        stem = 9 * 3 * STEM + STEM + 9 * STEM * first + first
        down = sum(49 * c + c + c * c + c for c in self.channels[1:])
        blocks = sum(depth * self.block(stage).n_parameters for stage, depth in enumerate(self.depths))
        return stem + blocks + down + 2 * last + last * CLASSES + CLASSES

    def multiply_adds(self, resolution: int) -> int:
        """Of one square image.

        >>> VARIANTS["ffnet-1"].multiply_adds(256)
        2984829952
        """
        positions = [(resolution // 4 >> stage) ** 2 for stage in range(4)]
        stem = (resolution // 2) ** 2 * 9 * 3 * STEM + positions[0] * 9 * STEM * self.channels[0]
        down = sum(n * (49 * c + c * c) for n, c in zip(positions[1:], self.channels[1:], strict=True))
        blocks = sum(
            depth * self.block(stage).multiply_adds(positions[stage]) for stage, depth in enumerate(self.depths)
        )
        return stem + blocks + down + self.channels[-1] * CLASSES


VARIANTS = {
    "ffnet-1": FfNet((2, 2, 8, 2), (80, 160, 320, 640), channel_kernel=3),
    "ffnet-2": FfNet((3, 3, 15, 3), (88, 176, 352, 704)),
    "ffnet-3": FfNet((4, 4, 22, 5), (96, 192, 384, 768), layer_scale=True),
    "ffnet-4": FfNet((4, 4, 27, 3), (128, 256, 512, 1024), layer_scale=True),
}
