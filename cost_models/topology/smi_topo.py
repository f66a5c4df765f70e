"""``nvidia-smi topo -m`` to a host: the tree that explains the table.

Devices that are PIX to each other share a switch; those that are PXB share an upper switch; those that are PHB or NODE
share a NUMA node, as do GPUs of one affinity unless the table says SYS. NCCL knows no NODE and calls it PHB. NV# says
how many NVLinks but neither generation nor whether a switch is between: eight GPUs alike, or more links than the model
has, mean NVSwitch, otherwise the links are direct.

Not in the text, hence assumed with a warning: the model of GPU (``gpu=``, else from the number of NVLinks), PCIe
generation, speed of NICs, speed between NUMA nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from cost_models.topology.gpu_facts import model_of_name
from cost_models.topology.gpus import GpuModel, model_of_nvlinks
from cost_models.topology.links import nvlink_bytes_per_s, pcie_generation_bytes_per_s
from cost_models.topology.nccl_xml import SLOT_SHARE
from cost_models.topology.smi_matrix import SmiMatrix, parse_matrix
from cost_models.topology.tree import NVSWITCH, Cpu, Gpu, Host, PciDevice, Port

_ORDER = ("PIX", "PXB", "PHB", "NODE", "SYS")
_NO_PCIE_GENERATION = 4


def read_smi_topo(content: bytes, gpu: str | None = None) -> tuple[Host, list[str]]:
    """Host of a table and what to warn of.

    Parameters
    ----------
    content : output of ``nvidia-smi topo -m``.
    gpu : hardware name of the GPUs, where the user says it.
    """
    matrix = parse_matrix(content)
    warnings: list[str] = []
    cells = _symmetric(matrix, warnings)
    nvlinks = _nvlinks(matrix, cells)
    model = _model(gpu, nvlinks, warnings)
    host = _Tree(matrix, cells, model).host()
    _add_nvlinks(host, nvlinks, model)
    _warn_of_gaps(matrix, model, warnings)
    return host, warnings


def _symmetric(matrix: SmiMatrix, warnings: list[str]) -> dict[tuple[str, str], str]:
    """Cells both ways; where the two directions differ, the worse one."""
    cells: dict[tuple[str, str], str] = {}
    odd = []
    for i, one in enumerate(matrix.devices):
        for other in matrix.devices[:i]:
            both = [matrix.cells[pair] for pair in ((one, other), (other, one)) if pair in matrix.cells]
            if len(set(both)) > 1:
                odd.append(f"{other}-{one}")
            cells[one, other] = cells[other, one] = max(both, key=_badness, default="SYS")
    if odd:
        warnings.append(f"table is not symmetric at {', '.join(odd[:4])}: the worse connection of the two is used")
    return cells


def _badness(cell: str) -> tuple[int, int]:
    return (-1, -int(cell[2:])) if cell.startswith("NV") else (_ORDER.index(cell), 0) if cell in _ORDER else (9, 0)


def _nvlinks(matrix: SmiMatrix, cells: dict[tuple[str, str], str]) -> dict[str, dict[str, int]]:
    """For each GPU, the number of NVLinks to each GPU that has some."""
    return {
        one: {
            other: int(cells[one, other][2:])
            for other in matrix.gpus
            if other != one and cells[one, other].startswith("NV") and int(cells[one, other][2:])
        }
        for one in matrix.gpus
    }


def _model(gpu: str | None, nvlinks: dict[str, dict[str, int]], warnings: list[str]) -> GpuModel | None:
    if gpu is not None:
        return model_of_name(gpu, warnings)
    per_gpu = max((_links_per_gpu(peers) for peers in nvlinks.values()), default=0)
    model = model_of_nvlinks(per_gpu)
    if model is None or model.hardware is None:
        likely = f" (probably {model.name}, which has no hardware profile)" if model else ""
        warnings.append(f"model of GPU is not in the text{likely}: name it with gpu=")
    else:
        warnings.append(
            f"model of GPU is not in the text: {model.hardware} assumed from {per_gpu} NVLinks each; name it with gpu="
        )
    return model


def _links_per_gpu(peers: dict[str, int]) -> int:
    """Links of one GPU: with 8 or more to each peer they are the same links, through a switch."""
    most = max(peers.values(), default=0)
    return most if most >= 8 else sum(peers.values())


def _is_switched(nvlinks: dict[str, dict[str, int]], model: GpuModel | None) -> bool:
    linked = [peers for peers in nvlinks.values() if peers]
    counts = {count for peers in linked for count in peers.values()}
    if len(counts) != 1:
        return False
    count, peers = counts.pop(), max(map(len, linked))
    return len(linked) == 8 or count >= 8 or count * peers > (model.nvlinks if model and model.nvlinks else 18)


def _add_nvlinks(host: Host, nvlinks: dict[str, dict[str, int]], model: GpuModel | None) -> None:
    rate = nvlink_bytes_per_s(model.sm if model else 80)
    switched = _is_switched(nvlinks, model)
    for device in host.gpus():
        peers = nvlinks[device.busid]
        if device.gpu and switched and peers:
            device.gpu.nvlinks[NVSWITCH] = max(peers.values()) * rate
        elif device.gpu:
            device.gpu.nvlinks.update({peer: count * rate for peer, count in peers.items()})


def _warn_of_gaps(matrix: SmiMatrix, model: GpuModel | None, warnings: list[str]) -> None:
    generation = model.pcie_generation if model else _NO_PCIE_GENERATION
    assumed = [f"PCIe Gen{generation} x16", "NCCL's speed between NUMA nodes of an Intel CPU"]
    assumed += [f"NICs as fast as their slot ({_port_rate(model) * 8 / 1e9:.0f} Gb/s)"] if matrix.nics else []
    warnings.append("not in the text, assumed: " + "; ".join(assumed))
    if model and not model.pcie_p2p:
        warnings.append(f"{model.name} has no peer-to-peer over PCIe (its driver refuses it): through host memory")


def _pcie_rate(model: GpuModel | None) -> float:
    return pcie_generation_bytes_per_s(model.pcie_generation if model else _NO_PCIE_GENERATION)


def _port_rate(model: GpuModel | None) -> float:
    return _pcie_rate(model) / SLOT_SHARE


class _Tree:
    """Groups devices by ever looser cells."""

    def __init__(self, matrix: SmiMatrix, cells: dict[tuple[str, str], str], model: GpuModel | None) -> None:
        self.matrix, self.cells, self.model = matrix, cells, model

    def host(self) -> Host:
        groups = self._numa_groups()
        modern = self.model is not None and self.model.pcie_generation >= 5
        cpus = [
            Cpu(label, vendor="GenuineIntel", family=6, model=0x8F if modern else 0x55, children=self._branches(group))
            for label, group in zip(self._labels(groups), groups, strict=True)
        ]
        return Host(cpus, self.model)

    def _numa_groups(self) -> list[list[str]]:
        near = _groups(self.matrix.devices, lambda a, b: self.cells[a, b] in ("PIX", "PXB", "PHB", "NODE"))
        merged: list[list[str]] = []
        for group in near:
            home = next((known for known in merged if self._same_affinity(known, group)), None)
            if home is None:
                merged.append(list(group))
            else:
                home.extend(group)
        return merged

    def _same_affinity(self, known: list[str], group: list[str]) -> bool:
        if any(self.cells[a, b] == "SYS" for a in known for b in group):
            return False
        return bool(self._affinities(known) & self._affinities(group))

    def _affinities(self, group: Iterable[str]) -> set[str]:
        """NUMA nodes of the GPUs of a group, or where they have none their CPUs."""
        rows = [self.matrix.affinity.get(name, ("", "")) for name in group if name.startswith("GPU")]
        return {f"numa {numa}" if numa else f"cpus {cpus}" for cpus, numa in rows if numa or cpus}

    def _labels(self, groups: list[list[str]]) -> list[str]:
        """NUMA ids where the text has one for every group, otherwise counted."""
        ids = [{self.matrix.affinity.get(name, ("", ""))[1] for name in group} - {""} for group in groups]
        plain = [found.pop() if len(found) == 1 else "" for found in ids]
        unique = all(text.isdecimal() for text in plain) and len(set(plain)) == len(plain)
        return plain if unique else [str(number) for number in range(len(groups))]

    def _branches(self, group: list[str]) -> list[PciDevice]:
        return [
            self._upper(number, branch)
            for number, branch in enumerate(_groups(group, lambda a, b: self.cells[a, b] in ("PIX", "PXB")))
        ]

    def _upper(self, number: int, branch: list[str]) -> PciDevice:
        leaves = _groups(branch, lambda a, b: self.cells[a, b] == "PIX")
        if len(leaves) == 1:
            return self._device(branch[0]) if len(branch) == 1 else self._switch(branch)
        children = [self._switch(leaf) for leaf in leaves]
        return PciDevice(f"upper-{number}-of-{branch[0]}", _pcie_rate(self.model), children)

    def _switch(self, leaf: list[str]) -> PciDevice:
        return PciDevice(f"switch-of-{leaf[0]}", _pcie_rate(self.model), [self._device(name) for name in leaf])

    def _device(self, name: str) -> PciDevice:
        if name.startswith("GPU"):
            sm = self.model.sm if self.model else None
            return PciDevice(name, _pcie_rate(self.model), gpu=Gpu((self.matrix.gpus.index(name),), sm))
        port = Port(self.matrix.legend.get(name, name), _port_rate(self.model))
        return PciDevice(name, _pcie_rate(self.model), ports=[port])


def _groups(names: Sequence[str], together: Callable[[str, str], bool]) -> list[list[str]]:
    """Names joined wherever two are together; groups and their members in the order of ``names``."""
    groups: list[list[str]] = []
    for name in names:
        near = [group for group in groups if any(together(name, other) for other in group)]
        groups = [group for group in groups if group not in near] + [[*chain.from_iterable(near), name]]
    order = {name: number for number, name in enumerate(names)}
    return sorted((sorted(group, key=order.__getitem__) for group in groups), key=lambda group: order[group[0]])
