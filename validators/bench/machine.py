"""What a measurement was taken on, and clocks, power and temperature while it was.

The card is read, never set. NVML is asked by a thread; a machine without it has no conditions.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from types import TracebackType
from typing import Any

import torch

ENVIRONMENT = ("CUDA_", "NCCL_", "TORCH_", "PYTORCH_", "OMP_NUM_THREADS", "GLOO_")
"""Variables (by the start of their names) that change what is measured."""
PERIOD_S = 0.005


def describe_machine(device: torch.device) -> dict[str, Any]:
    """GPU or CPU, driver, libraries and the environment variables that matter."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(ENVIRONMENT)},
    }
    if device.type == "cuda":
        found |= _describe_gpu(device)
    return found


def _describe_gpu(device: torch.device) -> dict[str, Any]:
    import triton

    properties = torch.cuda.get_device_properties(device)
    cudnn, nccl = torch.backends.cudnn.version(), torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return {
        "gpu": properties.name,
        "gpus": torch.cuda.device_count(),
        "sm_count": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "nccl": ".".join(map(str, nccl)),
        "triton": triton.__version__,
        **_describe_driver(device.index or 0),
    }


def _describe_driver(index: int) -> dict[str, Any]:
    nvml = _nvml()
    if nvml is None:
        return {}
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "driver": _text(nvml.nvmlSystemGetDriverVersion()),
        "power_limit_w": nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
        "max_sm_clock_mhz": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "max_memory_clock_mhz": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM),
    }


class Monitor:
    """Clocks, power and temperature of a GPU between entering and leaving."""

    def __init__(self, device: torch.device) -> None:
        self._nvml = _nvml() if device.type == "cuda" else None
        self._handle = self._nvml.nvmlDeviceGetHandleByIndex(device.index or 0) if self._nvml else None
        self._seen: list[tuple[float, float, float]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Monitor:
        """Start reading."""
        if self._nvml:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading."""
        if self._thread:
            self._stop.set()
            self._thread.join()

    def forget(self) -> None:
        """Leave out what was seen so far."""
        self._seen.clear()

    @property
    def conditions(self) -> dict[str, float]:
        """Means of what was seen, and the lowest clock."""
        if not self._seen:
            return {}
        clocks, powers, temperatures = zip(*self._seen, strict=True)
        count = len(self._seen)
        return {
            "sm_clock_mhz": round(sum(clocks) / count, 1),
            "min_sm_clock_mhz": min(clocks),
            "power_w": round(sum(powers) / count, 1),
            "temperature_c": round(sum(temperatures) / count, 1),
        }

    def _watch(self) -> None:
        nvml, handle = self._nvml, self._handle
        while not self._stop.is_set():
            self._seen.append(
                (
                    float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
                    nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                    float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
                )
            )
            time.sleep(PERIOD_S)


def _nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"
