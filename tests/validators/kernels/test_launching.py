"""A launch that is like an earlier one gets its compiled kernel, any other goes Triton's own way."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from validators.kernels.launching import Launcher


class Tensor:
    """Stands for a tensor on a GPU."""

    is_cuda = True

    def __init__(self, address: int, dtype: torch.dtype = torch.float32) -> None:
        self._address, self.dtype = address, dtype

    def data_ptr(self) -> int:
        return self._address

    def get_device(self) -> int:
        return 0


class Compiled:
    function, packed_metadata = "function", "packed"

    def __init__(self, launches: list[tuple[Any, ...]]) -> None:
        self._launches = launches

    def run(self, *args: Any) -> None:
        self._launches.append(args)


class Kernel:
    """Stands for a function of triton.jit."""

    def __init__(self) -> None:
        self.ordinary: list[tuple[Any, ...]] = []
        self.direct: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **options: int) -> Compiled:
            self.ordinary.append((grid, *args, options))
            return Compiled(self.direct)

        return launch


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 7, raising=False)
    return Kernel()


def test_the_second_launch_is_direct(kernel: Kernel) -> None:
    launch: Any = Launcher(kernel)
    first, second = Tensor(256), Tensor(4096)
    launch((3,), (first, second), (5, 0.5), (64,), num_warps=8)
    launch((2, 4), (second, first), (5, 0.5), (64,), num_warps=8)
    assert kernel.ordinary == [((3,), first, second, 5, 0.5, 64, {"num_warps": 8})]
    assert kernel.direct == [(2, 4, 1, 7, "function", "packed", None, None, None, 4096, 256, 5, 0.5, 64)]


@pytest.mark.parametrize(
    ("tensors", "numbers", "constants"),
    [
        ((Tensor(256), Tensor(264)), (5,), (64,)),  # not aligned
        ((Tensor(256), Tensor(512, torch.bfloat16)), (5,), (64,)),
        ((Tensor(256), Tensor(512)), (6,), (64,)),
        ((Tensor(256), Tensor(512)), (5,), (128,)),
    ],
)
def test_what_differs_is_not(kernel: Kernel, tensors: Any, numbers: Any, constants: Any) -> None:
    launch: Any = Launcher(kernel)
    launch((1,), (Tensor(256), Tensor(512)), (5,), (64,))
    launch((1,), tensors, numbers, constants)
    assert len(kernel.ordinary) == 2 and not kernel.direct


def test_what_is_not_aligned_never_is(kernel: Kernel) -> None:
    launch: Any = Launcher(kernel)
    for _ in range(2):
        launch((1,), (Tensor(8),), (), ())
    assert len(kernel.ordinary) == 2 and not kernel.direct
