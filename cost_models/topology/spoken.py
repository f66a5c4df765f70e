"""Devices and links as people call them: the graph's names (`Numbering.device_name`) are for options and files."""

from __future__ import annotations

WORDS = {"nvs": "NVSwitch of node {}", "leaf": "leaf switch {}", "spine": "spine switch {}", "gpu": "GPU {}"}
PARTS = {"nic": "NIC {1} of node {0}", "cpu": "CPU {1} of node {0}", "mem": "memory of CPU {1} of node {0}"}
"""Of devices whose name has node and number."""
SHORT = {"gpu": "GPU", "cpu": "CPU", "nic": "NIC"}
PCIE = {"switch": "PCIe switch", "nic": "PCIe card"}
"""What lies at a PCIe address, by its kind in a drawing."""


def spoken_device(name: str, kind: str = "") -> str:
    """A device in words.

    Parameters
    ----------
    name : in the graph.
    kind : of a PCIe address, ``switch`` or ``nic``; empty where it is not known.

    >>> spoken_device("nic:0.3"), spoken_device("leaf:3"), spoken_device("gpu:11"), spoken_device("spine")
    ('NIC 3 of node 0', 'leaf switch 3', 'GPU 11', 'spine switch')
    >>> spoken_device("pci:0000:a1:00.0@0", "switch")
    'PCIe switch a1:00 of node 0'
    """
    head, _, rest = name.partition(":")
    if head in WORDS:
        return WORDS[head].format(rest).strip()
    if head in PARTS:
        return PARTS[head].format(*rest.partition(".")[::2])
    if head == "pci":
        address, _, node = rest.rpartition("@")
        return f"{PCIE.get(kind, 'PCIe device')} {address.removeprefix('0000:').removesuffix('.0')} of node {node}"
    return name


def short_device(name: str) -> str:
    """A device in a few characters, for a drawing of its node that says which marker is which kind.

    >>> short_device("pci:0000:a1:00.0@0"), short_device("nic:0.3"), short_device("nvs:0"), short_device("leaf:3")
    ('a1:00', 'NIC 3', '', 'leaf 3')
    """
    head, _, rest = name.partition(":")
    if head == "pci":
        return rest.partition("@")[0].removeprefix("0000:").removesuffix(".0")
    if head in ("nvs", "mem"):
        return ""
    return f"{SHORT.get(head, head)} {rest.rpartition('.')[2]}".strip()


def spoken_link(name: str) -> str:
    """A link, one direction of a connection, in words; of devices in one node, the node is named once.

    >>> spoken_link("nic:0.3->leaf:3"), spoken_link("cpu:0.0->cpu:0.1")
    ('NIC 3 of node 0 → leaf switch 3', 'CPU 0 → CPU 1 of node 0')
    >>> spoken_link("pci:0000:a1:00.0@0->nic:0.5"), spoken_link("cpu:0.1->mem:0.1")
    ('PCIe card a1:00 → NIC 5 of node 0', 'CPU 1 → memory of CPU 1 of node 0')
    """
    source, arrow, target = name.partition("->")
    if not arrow:
        return name
    card = {"kind": "nic"} if "nic:" in name else {}
    one, other = spoken_device(source, **card), spoken_device(target, **card)
    place = other[other.find(" of node ") :] if " of node " in other else None
    return f"{one.removesuffix(place) if place and one.endswith(place) else one} → {other}"
