"""Machines known by name, and pairs of GPUs that were measured.

A preset is a builder of one node; the fabric is chosen by its options. Every number has its source beside it; what NCCL
itself assumes (NVLink per link, PCIe by generation, links between NUMA nodes) comes from ``links``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cost_models.spec import Spec
from cost_models.topology.fabric import Fabric
from cost_models.topology.gpus import GpuModel, model_of_hardware
from cost_models.topology.links import GB_PER_S, nvlink_bytes_per_s, pcie_generation_bytes_per_s
from cost_models.topology.tree import NVSWITCH, Cpu, Gpu, Host, PciDevice, Port
from cost_models.units import parse_count
from traces.errors import InputError

HDR_BYTES_PER_S = 200 / 8 * GB_PER_S
NDR_BYTES_PER_S = 400 / 8 * GB_PER_S


FABRIC_OPTIONS = ("fabric", "oversubscription", "nodes-per-leaf", "spines", "ecmp-seed")


@dataclass(frozen=True)
class Preset:
    """A named machine: its builder (of the GPU model), GPU, options and where its shape comes from."""

    build: Callable[[GpuModel, Spec], Host]
    gpu: str
    source: str
    options: tuple[str, ...] = FABRIC_OPTIONS
    other_gpus: tuple[str, ...] = ()


def fabric_of(spec: Spec) -> Fabric:
    """The fabric that the options of a preset ask for.

    >>> from cost_models.spec import parse_spec
    >>> fabric_of(parse_spec("dgx-h100:fabric=fat-tree,oversubscription=2")).oversubscription
    2.0
    """
    text = spec.options.get("oversubscription", "1")
    try:
        oversubscription = float(text)
    except ValueError:
        raise InputError("oversubscription is not a number", got=repr(text), expected="as oversubscription=2") from None
    nodes_per_leaf = parse_count(spec.options.get("nodes-per-leaf", "4"), "nodes-per-leaf")
    seed = spec.options.get("ecmp-seed", "0")
    if not seed.isdecimal():
        raise InputError("ecmp-seed is not a whole number", got=seed)
    spines = parse_count(spec.options.get("spines", "4" if "ecmp-seed" in spec.options else "1"), "spines")
    return Fabric(spec.options.get("fabric", "rail"), oversubscription, nodes_per_leaf, spines, int(seed))


def _gpu(busid: str, order: int, model: GpuModel, nvlinks: bool = True) -> PciDevice:
    rate = model.nvlinks * nvlink_bytes_per_s(model.sm)
    links = {NVSWITCH: rate} if nvlinks and rate else {}
    return PciDevice(busid, pcie_generation_bytes_per_s(model.pcie_generation), gpu=Gpu((order,), model.sm, links))


def _nic(busid: str, port: Port, generation: int) -> PciDevice:
    return PciDevice(busid, pcie_generation_bytes_per_s(generation), ports=[port])


def _dgx_a100(model: GpuModel, spec: Spec) -> Host:
    """8 GPUs and 8 (or 4) HDR ports; 4 switches, each with 2 GPUs and 2 (1), on odd NUMA nodes of 2 EPYC Rome."""
    ports = spec.options.get("ports", "8")
    if ports not in ("4", "8"):
        raise InputError("ports of a node", got=ports, expected="8 or 4")
    per_switch = int(ports) // 4
    cpus = []
    for group, numa in enumerate((3, 1, 7, 5)):
        gpus = [_gpu(f"0000:{group}0:0{i}.0", 2 * group + i, model) for i in range(2)]
        nics = [
            _nic(f"0000:{group}0:1{i}.0", Port(f"mlx5_{port}", HDR_BYTES_PER_S, rail=port), 4)
            for i, port in enumerate(range(per_switch * group, per_switch * (group + 1)))
        ]
        switch = PciDevice(f"0000:{group}0:00.0", pcie_generation_bytes_per_s(4), [*gpus, *nics])
        cpus.append(Cpu(str(numa), vendor="AuthenticAMD", family=23, model=49, children=[switch]))
    return Host(cpus, model)


def _hgx_8x(model: GpuModel, _spec: Spec) -> Host:
    """8 GPUs and 8 NDR ports, each pair behind its own switch; 4 pairs on each of 2 Sapphire Rapids."""
    cpus = [Cpu(str(socket), vendor="GenuineIntel", family=6, model=0x8F) for socket in range(2)]
    for rank in range(8):
        nic = _nic(f"0000:{rank}1:00.0", Port(f"mlx5_{rank}", NDR_BYTES_PER_S, rail=rank), 5)
        gpu = _gpu(f"0000:{rank}2:00.0", rank, model)
        switch = PciDevice(f"0000:{rank}0:00.0", pcie_generation_bytes_per_s(5), [nic, gpu])
        cpus[rank // 4].children.append(switch)
    return Host(cpus, model)


def _nvl72(model: GpuModel, _spec: Spec) -> Host:
    """18 trays of 2 Grace and 4 Blackwell in one NVLink domain; one NDR port per GPU, on its Grace's PCIe."""
    cpus = []
    for board in range(18):
        for socket in range(2):
            devices = []
            for k in range(2):
                rank = board * 4 + socket * 2 + k
                gpu = _gpu(f"{board:04x}:{socket}{k}:00.0", rank, model)
                if gpu.gpu:
                    gpu.gpu.c2c_bytes_per_s = 225 * GB_PER_S  # 900 GB/s, both directions, of a Grace with 2 GPUs
                port = Port(f"mlx5_{rank}", NDR_BYTES_PER_S, rail=socket * 2 + k)
                devices += [gpu, _nic(f"{board:04x}:{socket}{k}:10.0", port, 5)]
            cpus.append(Cpu(f"{board * 2 + socket}", arch="arm64", board=board, children=devices))
    return Host(cpus, model)


def _pcie_8x(model: GpuModel, _spec: Spec) -> Host:
    """8 GPUs without NVLink, 2 behind a switch, 2 switches and one HDR port on each of 2 Sapphire Rapids."""
    cpus = []
    for socket in range(2):
        switches = []
        for pair in range(2):
            first = socket * 4 + pair * 2
            gpus = [_gpu(f"0000:{first + i}1:00.0", first + i, model, nvlinks=False) for i in range(2)]
            switches.append(PciDevice(f"0000:{first}0:00.0", pcie_generation_bytes_per_s(4), gpus))
        port = Port(f"mlx5_{socket}", HDR_BYTES_PER_S, rail=socket)
        switches[0].children.append(_nic(f"0000:{socket}f:00.0", port, 4))
        cpus.append(Cpu(str(socket), vendor="GenuineIntel", family=6, model=0x8F, children=[*switches]))
    return Host(cpus, model)


# Wires of two H200 of one VM, GB/s per direction. NCCL's sends reach 24 through host memory and 2.6 over sockets: the
# shares of these links in the profile are taken out here. Over NVLink they reach 300, or 20, 41 and 80 over 1, 2 and 4
# channels, which follows from the links and the rate of a channel.
_PAIR_SHM_GB_PER_S = 24.0 / 0.8
_PAIR_SOCKET_GB_PER_S = 2.6 / 0.9


def _pair(
    model: GpuModel, link_bytes_per_s: float, nvlink_bytes_per_s: float = 0.0, socket_bytes_per_s: float = 0.0
) -> Host:
    links = {NVSWITCH: nvlink_bytes_per_s} if nvlink_bytes_per_s else {}
    gpus = [PciDevice(f"0000:00:0{6 + i}.0", link_bytes_per_s, gpu=Gpu((i,), 90, dict(links))) for i in range(2)]
    cpus = [Cpu("0", vendor="GenuineIntel", family=6, model=0xCF, children=gpus)]
    if socket_bytes_per_s:  # apart, so that only the network joins them
        cpus = [Cpu(str(i), vendor="GenuineIntel", family=6, model=0xCF, board=i, children=[gpus[i]]) for i in range(2)]
    return Host(cpus, model, loopback_bytes_per_s=socket_bytes_per_s)


def _nvlink_pair(model: GpuModel, _spec: Spec) -> Host:
    return _pair(model, pcie_generation_bytes_per_s(5), model.nvlinks * nvlink_bytes_per_s(model.sm))


def channels_of(spec: Spec) -> int | None:
    """Channels to which a preset's option limits NCCL; None where it does not."""
    text = spec.options.get("channels")
    if text is None:
        return None
    if text not in ("1", "2", "4"):
        raise InputError("channels was not measured", got=text, expected="1, 2 or 4", remedy="leave it out for all")
    return int(text)


def _shm_pair(model: GpuModel, _spec: Spec) -> Host:
    return _pair(model, _PAIR_SHM_GB_PER_S * GB_PER_S)


def _socket_pair(model: GpuModel, _spec: Spec) -> Host:
    return _pair(model, pcie_generation_bytes_per_s(5), socket_bytes_per_s=_PAIR_SOCKET_GB_PER_S * GB_PER_S)


_MEASURED = "measured: NCCL send and receive between 2x H200 of one VM"
_OF_H100 = ("h100-sxm",)

PRESETS = {
    "dgx-a100": Preset(
        _dgx_a100,
        "a100-80",
        "NVIDIA DGX A100 user guide: 8x A100, NVSwitch, PCIe Gen4, 8x 200 Gb/s HDR; ports=4 as many clouds have",
        (*FABRIC_OPTIONS, "ports"),
        other_gpus=("a100-40", "a800"),
    ),
    "dgx-h100": Preset(
        _hgx_8x,
        "h100-sxm",
        "NVIDIA DGX H100 user guide: 8x H100, NVSwitch, PCIe Gen5, 8x 400 Gb/s ConnectX-7",
        other_gpus=("h800",),
    ),
    "hgx-h200": Preset(
        _hgx_8x, "h200-sxm", "NVIDIA HGX H200 datasheet: 8x H200, NVSwitch, PCIe Gen5; 8x 400 Gb/s as DGX H200"
    ),
    "hgx-b200": Preset(
        _hgx_8x, "b200", "NVIDIA DGX B200 user guide: 8x B200, NVSwitch, PCIe Gen5, 8x 400 Gb/s ConnectX-7"
    ),
    "gb200-nvl72": Preset(
        _nvl72, "b200", "NVIDIA GB200 NVL72 datasheet: 72 GPUs in one NVLink domain, 18 trays of 4, 400 Gb/s per GPU"
    ),
    "pcie-8x": Preset(
        _pcie_8x,
        "l40s",
        "a usual 8-GPU PCIe Gen4 server: 2 sockets, 4 switches, 2x 200 Gb/s",
        other_gpus=("l20", "rtx4090"),
    ),
    "h200-nvlink-pair": Preset(_nvlink_pair, "h200-sxm", _MEASURED, ("channels",), ("h100-sxm",)),
    "h200-shm-pair": Preset(_shm_pair, "h200-sxm", _MEASURED + ", peer-to-peer disabled", (), ("h100-sxm",)),
    "h200-socket-pair": Preset(
        _socket_pair, "h200-sxm", _MEASURED + ", peer-to-peer and shared memory disabled", (), ("h100-sxm",)
    ),
}


def preset_host(spec: Spec, gpu: str | None = None) -> tuple[Host, Preset, str]:
    """One node of a preset, the preset, and its GPU (``gpu`` if the preset may hold that one)."""
    preset = PRESETS[spec.name]
    spec.only(preset.options)
    allowed = (preset.gpu, *preset.other_gpus)
    if gpu is not None and gpu not in allowed:
        raise InputError(f"{spec.name} has other GPUs", got=gpu, expected=" or ".join(allowed))
    chosen = gpu or preset.gpu
    model = model_of_hardware(chosen)
    assert model is not None
    return preset.build(model, spec), preset, chosen
