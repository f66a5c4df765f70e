"""FFNet-1 to 4: parameters and multiply-adds to the printed digit (README of ysj9909/FFNet, ImageNet table)."""

from __future__ import annotations

import pytest

from cost_models.convolution import VARIANTS, FfnifiedBlock


@pytest.mark.parametrize(
    ("name", "resolution", "parameters", "giga"),
    [
        ("ffnet-1", 256, "13.7", "3.0"),  # printed as 2.9; the released code has 2.985
        ("ffnet-2", 256, "26.9", "6.0"),
        ("ffnet-3", 256, "48.3", "10.1"),
        ("ffnet-3", 384, "48.3", "22.8"),
        ("ffnet-4", 384, "79.2", "43.1"),
    ],
)
def test_as_printed(name: str, resolution: int, parameters: str, giga: str) -> None:
    net = VARIANTS[name]
    assert f"{net.n_parameters / 1e6:.1f}" == parameters
    assert f"{net.multiply_adds(resolution) / 1e9:.1f}" == giga


@pytest.mark.parametrize(
    ("name", "parameters", "at_256", "at_384"),
    [
        ("ffnet-1", "13.660", "2.985", "6.715"),
        ("ffnet-2", "26.908", "6.003", "13.507"),
        ("ffnet-3", "48.331", "10.146", "22.828"),
        ("ffnet-4", "79.200", "19.166", "43.122"),
    ],
)
def test_as_the_released_code_has_them(name: str, parameters: str, at_256: str, at_384: str) -> None:
    net = VARIANTS[name]
    assert f"{net.n_parameters / 1e6:.3f}" == parameters
    assert (f"{net.multiply_adds(256) / 1e9:.3f}", f"{net.multiply_adds(384) / 1e9:.3f}") == (at_256, at_384)


def test_halos_of_a_block() -> None:
    assert sum(VARIANTS["ffnet-1"].block(0).halo_rows()) == 3
    assert sum(VARIANTS["ffnet-1"].block(3).halo_rows()) == 7
    assert [sum(VARIANTS["ffnet-2"].block(stage).halo_rows()) for stage in range(4)] == [5, 5, 9, 9]


def test_a_block_by_hand() -> None:
    block = FfnifiedBlock(channels=2, token_kernel=3, channel_kernel=5, expansion=3, layer_scale=True)
    assert block.n_parameters == 2 * 2 * 7 + 2 * (9 + 9 + 25) + 2 * 8 + 4
    assert block.multiply_adds(10) == 10 * (4 * 7 + 2 * 43)
