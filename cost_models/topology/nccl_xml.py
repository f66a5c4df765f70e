"""NCCL topology XML (``NCCL_TOPO_DUMP_FILE``, or what cloud providers ship for ``NCCL_TOPO_FILE``) to hosts.

Follows NCCL where it reads a file: unknown PCI speed is Gen3, width 0 is 16 lanes, NVLinks to switches are one switch,
Broadcom two-level switches are flattened, a GPU without rank is not in use. Where NCCL would probe the machine the
model of GPU decides (see :mod:`gpu_facts`). Whatever was assumed or looks wrong is a warning.

Source: NVIDIA/nccl 2.30.7 src/graph/xml.cc, topo.cc (ncclTopoAddPci, ncclTopoAddNvLinks, ncclTopoFlattenBcmSwitches).
"""

from __future__ import annotations

import re
from collections import Counter
from xml.etree.ElementTree import Element

from cost_models.topology.gpu_facts import complete_hosts, model_of_elements
from cost_models.topology.gpus import GpuModel
from cost_models.topology.links import GB_PER_S, nvlink_bytes_per_s, pcie_bytes_per_s, pcie_speed_is_known
from cost_models.topology.tree import NVSWITCH, OWN_CPU, Cpu, Gpu, Host, PciDevice, Port
from cost_models.topology.unclassified import classify
from cost_models.topology.xml_safe import integer, number, parse_xml
from traces.errors import InputError

VIRTUAL_INTERFACE = re.compile(r"(br-|veth|cali|tunl|docker|virbr|vxlan|flannel|cni|cilium|lxc|kube|dummy|lo$)")
MAX_CPUS, MAX_PCI_DEVICES = 256, 1024
SLOT_SHARE = 0.96  # PCIe Gen4 x16 is 24 GB/s and feeds 25 GB/s, 200 Gb/s; likewise Gen3 and Gen5


def read_nccl_xml(content: bytes, gpu: str | None = None) -> tuple[tuple[Host, ...], list[str]]:
    """Hosts of a file and what to warn of.

    Parameters
    ----------
    content : the file, without leading white space.
    gpu : hardware name of the GPUs, where the user says it.
    """
    root = parse_xml(content)
    _check_root(root)
    warnings = classify(root)
    model = model_of_elements(root, gpu, warnings)
    reader = _Reader(root, model)
    hosts = reader.hosts()
    warnings += reader.warnings()
    complete_hosts(hosts, model, warnings, root.find(".//nvlink") is not None)
    return hosts, warnings


def _check_root(root: Element) -> None:
    if root.tag == "graphs":
        raise InputError("this is a NCCL graph file, not a topology", remedy="dump one with NCCL_TOPO_DUMP_FILE")
    if root.tag != "system":
        raise InputError("not a NCCL topology", got=f"<{root.tag}>", expected='<system version="1">')
    if root.get("version") != "1":
        raise InputError(
            "NCCL topology of another version",
            got=repr(root.get("version")),
            expected="'1'",
            remedy="files of RCCL (AMD GPUs, version 2) cannot be used",
        )
    if not root.findall("cpu"):
        raise InputError("NCCL topology has no cpu element")


class _Reader:
    """One pass over the elements; collects what to warn of."""

    def __init__(self, root: Element, model: GpuModel | None) -> None:
        self.root, self.model = root, model
        self.lists_gpus = root.find(".//gpu") is not None
        self.lists_ranks = any(gpu.get("rank") for gpu in root.iter("gpu"))
        self.unknown_speeds: Counter[str] = Counter()
        self.virtual: set[str] = set()
        self.guessed_nics: list[str] = []
        self.own_nvlinks = 0
        self.host = ""
        self.seen: set[tuple[str, ...]] = set()

    def hosts(self) -> tuple[Host, ...]:
        """Hosts by first appearance, those without GPUs left out, in the order of their first rank."""
        groups: dict[str, Host] = {}
        for element in self.root.findall("cpu"):
            self.host = element.get("host_hash", "")
            host = groups.setdefault(self.host, Host([], self.model))
            host.cpus.append(self._cpu(element, len(host.cpus)))
        links = [
            (element.get("busid", ""), link.get("target", ""))
            for element in self.root.iter("pci")
            for link in element.findall("pcilink")
        ]
        for host in groups.values():
            host.switch_links.extend(links)
            _check_size(host)
        found = [host for host in groups.values() if host.gpus()]
        if not found:
            raise InputError(
                "NCCL topology names no GPU in use", remedy="dump it on the machine with NCCL_TOPO_DUMP_FILE"
            )
        found.sort(key=lambda host: min(device.gpu.order for device in host.gpus() if device.gpu))
        return tuple(found)

    def warnings(self) -> list[str]:
        """What looked wrong in this pass."""
        found = []
        if self.unknown_speeds:
            texts = ", ".join(repr(text) for text in self.unknown_speeds)
            count = self.unknown_speeds.total()
            found.append(f"PCI links of unknown speed ({count}, {texts}): Gen3 assumed, as NCCL does")
        if self.guessed_nics:
            found.append(
                f"NICs without speed in the file ({len(self.guessed_nics)}): as fast as their PCI link assumed"
            )
        if self.virtual:
            found.append(f"virtual network interfaces ignored: {len(self.virtual)}, as {min(self.virtual)}")
        if self.own_nvlinks:
            found.append(
                f"NVLinks of GPUs to themselves ignored, as NCCL does ({self.own_nvlinks}): peers are over PCIe"
            )
        return found

    def _cpu(self, element: Element, position: int) -> Cpu:
        numa = integer(element, "numaid", -1)
        children = [device for child in element.findall("pci") if (device := self._pci(child)) is not None]
        ports = [port for nic in element.findall("nic") for port in self._ports(nic, "")]
        return Cpu(
            label=str(numa if numa >= 0 else position),
            arch=element.get("arch", "x86_64"),
            vendor=element.get("vendor", ""),
            family=integer(element, "familyid", 0),
            model=integer(element, "modelid", 0),
            children=children,
            ports=ports,
        )

    def _pci(self, element: Element) -> PciDevice | None:
        """Device with what is below it; None for a branch without GPU and NIC (NCCL trims it) and for NVSwitches."""
        pci_class, busid = element.get("class", ""), element.get("busid", "")
        if pci_class.startswith("0x0680"):
            return None
        children = [device for child in _flattened(element) if (device := self._pci(child)) is not None]
        gpu, nic = self._gpu(element), element.find("nic")
        ports = self._ports(nic, busid) if nic is not None else []
        if nic is None and pci_class.startswith("0x02"):
            self.guessed_nics.append(busid)
            ports = [Port(f"nic-{busid}", self._pci_rate(element) / SLOT_SHARE)]
        if gpu is None and not children and not ports:
            return None
        self._note_speed(element)
        return PciDevice(busid, self._pci_rate(element), children, gpu, ports)

    def _gpu(self, element: Element) -> Gpu | None:
        child = element.find("gpu")
        if child is None:
            is_gpu = not self.lists_gpus and is_gpu_class(element)
            return Gpu(_address(element.get("busid", "")), self.model.sm if self.model else None) if is_gpu else None
        if self.lists_ranks and not child.get("rank"):
            return None
        sm = integer(child, "sm", self.model.sm if self.model else 80)
        order = (integer(child, "rank", integer(child, "dev", 0)),)
        c2c = sum(number(link, "bw", 0) * integer(link, "count", 1) for link in child.findall("c2c"))
        return Gpu(order, sm, self._nvlinks(child, sm, element.get("busid", "")), c2c / 1000 * GB_PER_S)

    def _nvlinks(self, gpu: Element, sm: int, busid: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for link in gpu.findall("nvlink"):
            target = _nvlink_target(link)
            if target == busid:
                self.own_nvlinks += 1
                continue
            found[target] = found.get(target, 0.0) + max(integer(link, "count", 1), 0) * nvlink_bytes_per_s(sm)
        return {target: rate for target, rate in found.items() if rate}

    def _ports(self, nic: Element, where: str) -> list[Port]:
        ports = []
        for net in nic.findall("net"):
            name, dev = net.get("name", ""), net.get("dev", "")
            key = (self.host, where, name, dev)
            if not dev or key in self.seen:  # container interfaces repeat under every NUMA node
                continue
            self.seen.add(key)
            if VIRTUAL_INTERFACE.match(name):
                self.virtual.add(name)
            else:
                ports.append(_port(net, name or f"net{dev}"))
        return ports

    def _pci_rate(self, element: Element) -> float:
        return pcie_bytes_per_s(element.get("link_speed", ""), max(integer(element, "link_width", 0), 0))

    def _note_speed(self, element: Element) -> None:
        if not pcie_speed_is_known(element.get("link_speed", "")):
            self.unknown_speeds[element.get("link_speed", "")] += 1


def _check_size(host: Host) -> None:
    addresses = [device.busid for device in host.pci_devices()]
    if len(host.cpus) > MAX_CPUS or len(addresses) > MAX_PCI_DEVICES:
        raise InputError(
            "a host of the NCCL topology is too large",
            got=f"{len(host.cpus)} NUMA nodes, {len(addresses)} PCI devices",
            expected=f"at most {MAX_CPUS} and {MAX_PCI_DEVICES}",
        )
    if len(set(addresses)) < len(addresses):
        raise InputError("a PCI address occurs twice in one host", remedy="give each host its own host_hash")


def is_gpu_class(element: Element) -> bool:
    """Whether a PCI device without ``gpu`` element is a GPU: a 3D controller, or a display of NVIDIA's."""
    pci_class = element.get("class", "")
    return pci_class.startswith("0x0302") or (pci_class.startswith("0x03") and element.get("vendor") == "0x10de")


def _port(net: Element, name: str) -> Port:
    """Ports of RDMA devices are numbered from 1; NCCL's own socket transport writes 0."""
    speed = number(net, "speed", 0.0)
    rate = (speed if speed > 0 else 10_000) / 8000 * GB_PER_S
    socket = net.get("port", "1") == "0" and net.get("coll", "0") == "0"
    latency_s = max(number(net, "latency", 0.0), 0.0) * 1e-6
    return Port(name, rate, net.get("gdr", "0" if socket else "1") == "1", socket, latency_s)


def _nvlink_target(link: Element) -> str:
    target_class = link.get("tclass", "")
    if target_class.startswith("0x068001"):
        return OWN_CPU
    return link.get("target", "") if target_class.startswith("0x03") else NVSWITCH


def _flattened(switch: Element) -> list[Element]:
    """Children of a PCI device; those of the lower half of a Broadcom two-level switch are the upper half's own."""
    generation = _broadcom_generation(switch, 0)
    children = []
    for child in switch.findall("pci"):
        lower_half = generation and _broadcom_generation(child, 1) == generation
        children.extend(child.findall("pci") if lower_half else [child])
    return children


def _broadcom_generation(element: Element, level: int) -> int:
    parts = [integer(element, key, 0) for key in ("vendor", "device", "subsystem_vendor", "subsystem_device")]
    vendor, device, sub_vendor, sub_device = parts
    if (vendor, sub_vendor) != (0x1000, 0x1000):
        return 0
    if device == 0xC010 and sub_device & 0xF000 == 0xA000:
        return 4
    return 5 if device == 0xC030 and sub_device & 0xF000 == level * 0x1000 else 0


def _address(busid: str) -> tuple[int, ...]:
    """Bus id as numbers, for CUDA's order."""
    return tuple(int(part, 16) for part in re.findall(r"[0-9a-fA-F]+", busid.partition("+")[0]))
