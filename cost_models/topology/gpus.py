"""GPU models by PCI device id and by hardware name: what a topology file does not say about its GPUs.

Assumptions: NVLinks of a model are those of its SXM boards, all on NVSwitches where there are eight GPUs. GeForce and
their like have no peer-to-peer over PCIe: the driver refuses it and NCCL asks the driver (NVML P2P status).

Sources: pci.ids (vendor 10de) for device ids; NVIDIA datasheets for links and PCIe generation: A100 12 NVLink3, H100
and H200 18 NVLink4, A800 and H800 8 (400 GB/s), B200 18 NVLink5, V100 6 NVLink2.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuModel:
    """A model of GPU; ``hardware`` is the name of its profile, None where there is none."""

    name: str
    hardware: str | None
    sm: int
    pcie_generation: int
    nvlinks: int = 0
    nvswitch: bool = False
    pcie_p2p: bool = True


_A100_SXM_40 = GpuModel("A100 SXM 40GB", "a100-40", 80, 4, 12, True)
_A100_SXM_80 = GpuModel("A100 SXM 80GB", "a100-80", 80, 4, 12, True)
_A800_SXM = GpuModel("A800 SXM", "a800", 80, 4, 8, True)
_H100_SXM = GpuModel("H100 SXM", "h100-sxm", 90, 5, 18, True)
_H800_SXM = GpuModel("H800 SXM", "h800", 90, 5, 8, True)
_H200_SXM = GpuModel("H200 SXM", "h200-sxm", 90, 5, 18, True)
_B200_SXM = GpuModel("B200 SXM", "b200", 100, 5, 18, True)
_L20 = GpuModel("L20", "l20", 89, 4)
_L40S = GpuModel("L40S", "l40s", 89, 4)
_RTX_4090 = GpuModel("RTX 4090", "rtx4090", 89, 4, pcie_p2p=False)
_V100_SXM = GpuModel("V100 SXM", None, 70, 3, 6)
_V100_PCIE = GpuModel("V100 PCIe", None, 70, 3)

_BY_DEVICE = {
    "0x20b0": _A100_SXM_40,
    "0x20b2": _A100_SXM_80,
    "0x20b5": GpuModel("A100 PCIe 80GB", "a100-80", 80, 4, 12),
    "0x20f1": GpuModel("A100 PCIe 40GB", "a100-40", 80, 4, 12),
    "0x20bd": _A800_SXM,
    "0x20f3": _A800_SXM,
    "0x20f5": GpuModel("A800 PCIe", "a800", 80, 4, 8),
    "0x2330": _H100_SXM,
    "0x2331": GpuModel("H100 PCIe", None, 90, 5, 12),
    "0x2321": GpuModel("H100 NVL", None, 90, 5, 12),
    "0x2324": _H800_SXM,
    "0x2335": _H200_SXM,
    "0x233b": GpuModel("H200 NVL", None, 90, 5, 18),
    "0x2901": _B200_SXM,
    "0x2941": GpuModel("GB200", "b200", 100, 5, 18),
    "0x26ba": _L20,
    "0x26b9": _L40S,
    "0x26b5": GpuModel("L40", None, 89, 4),
    "0x27b8": GpuModel("L4", None, 89, 4),
    "0x2684": _RTX_4090,
    "0x2b85": GpuModel("RTX 5090", None, 120, 5, pcie_p2p=False),
    "0x2204": GpuModel("RTX 3090", None, 86, 4, pcie_p2p=False),
    "0x2230": GpuModel("RTX A6000", None, 86, 4),
    "0x2237": GpuModel("A10G", None, 86, 4),
    "0x2236": GpuModel("A10", None, 86, 4),
    "0x20b7": GpuModel("A30", None, 80, 4),
    "0x1eb8": GpuModel("T4", None, 75, 3),
    "0x1db1": _V100_SXM,
    "0x1db3": _V100_SXM,
    "0x1db5": _V100_SXM,
    "0x1db8": _V100_SXM,
    "0x1db4": _V100_PCIE,
    "0x1db6": _V100_PCIE,
}

_SXM = (_A100_SXM_40, _A100_SXM_80, _A800_SXM, _H100_SXM, _H800_SXM, _H200_SXM, _B200_SXM, _L20, _L40S, _RTX_4090)
_BY_HARDWARE = {str(model.hardware): model for model in _SXM}

_BY_NVLINKS = {6: _V100_SXM, 8: _H800_SXM, 12: _A100_SXM_80, 18: _H100_SXM}
_BY_SM = {90: _H100_SXM, 100: _B200_SXM}


def model_of_device(device: str) -> GpuModel | None:
    """Model of a PCI device id of vendor 0x10de, None if it is not in the table.

    >>> model_of_device("0x2335").hardware
    'h200-sxm'
    """
    return _BY_DEVICE.get(device.lower())


def model_of_hardware(hardware: str) -> GpuModel | None:
    """Model behind a hardware name (the SXM board where there are several).

    >>> model_of_hardware("h800").nvlinks
    8
    """
    return _BY_HARDWARE.get(hardware)


def model_of_nvlinks(nvlinks: int) -> GpuModel | None:
    """Most usual model with so many NVLinks: 6 V100, 8 H800, 12 A100, 18 H100."""
    return _BY_NVLINKS.get(nvlinks)


def model_of_sm(sm: int) -> GpuModel | None:
    """Most usual NVSwitch model of a compute capability that only data-centre GPUs have: 90 H100, 100 B200."""
    return _BY_SM.get(sm)
