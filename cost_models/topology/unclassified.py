"""PCI trees that name no device class: which leaves are GPUs.

Some providers ship files with bus ids alone; NCCL reads the classes from the running system, we cannot. Where there
are switches, the leaves are taken for NICs and each switch is given one GPU (the AWS p5 file lists NICs only). Where
there are none, hosts are taken for symmetric: every NUMA node has as many GPUs as the one with the fewest leaves, the
rest are NICs (the AWS g5 file). Both are guesses and are said as warnings.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

GPU_CLASS = "0x030200"
NIC_CLASS = "0x020000"


def classify(root: Element) -> list[str]:
    """Write the missing classes into a tree without any; the warnings that say so."""
    devices = list(root.iter("pci"))
    if not devices or any(device.get("class") for device in devices) or root.find(".//gpu") is not None:
        return []
    switches = [device for device in devices if device.find("pci") is not None]
    return _switched(switches) if switches else _flat(root)


def _switched(switches: list[Element]) -> list[str]:
    for switch in switches:
        leaves = [child for child in switch.findall("pci") if child.find("pci") is None]
        for leaf in leaves:
            leaf.set("class", NIC_CLASS)
        for attribute in ("link_speed", "link_width"):
            if leaves and not switch.get(attribute):
                switch.set(attribute, leaves[0].get(attribute, ""))
        if leaves:
            gpu = SubElement(switch, "pci", {**leaves[0].attrib, "class": GPU_CLASS})
            gpu.set("busid", switch.get("busid", "") + "+gpu")
    return [
        "the file names no GPU and no device class: its PCI devices are taken for NICs, one GPU per switch is assumed, "
        "and switches as fast as their NICs"
    ]


def _flat(root: Element) -> list[str]:
    per_cpu = [cpu.findall("pci") for cpu in root.findall("cpu")]
    gpus = min(map(len, per_cpu))
    for leaves in per_cpu:
        for number, leaf in enumerate(leaves):
            leaf.set("class", GPU_CLASS if number < gpus else NIC_CLASS)
    return [
        f"the file names no device class: the first {gpus} PCI devices of each NUMA node are taken for GPUs, the rest "
        "for NICs"
    ]
