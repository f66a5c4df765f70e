"""Bandwidth constants, the path search and the choice of NIC, on machines small enough to check by hand."""

import pytest

from cost_models.topology.links import (
    LinkType,
    nvlink_bytes_per_s,
    pcie_bytes_per_s,
    pcie_generation_bytes_per_s,
    sys_bytes_per_s,
)
from cost_models.topology.machine import Machine, MachineBuilder, Net
from cost_models.topology.nics import bond_nets, local_nets, nets_of
from cost_models.topology.paths import DeviceKind, PathType


@pytest.mark.parametrize(
    ("speed", "width", "expected_gb_per_s"),
    [
        ("2.5 GT/s PCIe", 1, 0.1875),
        ("5.0 GT/s PCIe", 16, 6),
        ("8 GT/s", 16, 12),
        ("8.0 GT/s PCIe", 4, 3),
        ("16 GT/s", 16, 24),
        ("16.0 GT/s PCIe", 8, 12),
        ("16.0 GT/s", 16, 12),  # without " PCIe" NCCL does not know it
        ("32 GT/s PCIe/s", 16, 48),
        ("32.0 GT/s PCIe", 0, 48),
        ("64.0 GT/s PCIe", 16, 96),
        ("", 0, 12),
    ],
)
def test_pcie_speed_is_matched_by_prefix(speed: str, width: int, expected_gb_per_s: float) -> None:
    assert pcie_bytes_per_s(speed, width) == pytest.approx(expected_gb_per_s * 1e9)


def test_pcie_generations_double() -> None:
    assert [pcie_generation_bytes_per_s(generation) / 1e9 for generation in range(1, 7)] == [3, 6, 12, 24, 48, 96]


@pytest.mark.parametrize(
    ("sm", "links", "expected_gb_per_s"),
    [(60, 4, 72), (70, 6, 120), (80, 12, 240), (86, 4, 48), (90, 18, 370.8), (90, 8, 164.8), (100, 18, 721.8)],
)
def test_nvlink_rate_by_capability(sm: int, links: int, expected_gb_per_s: float) -> None:
    assert links * nvlink_bytes_per_s(sm) == pytest.approx(expected_gb_per_s * 1e9)


@pytest.mark.parametrize(
    ("cpu", "expected_gb_per_s"),
    [
        (("x86_64", "AuthenticAMD", 25, 17), 16),
        (("x86_64", "GenuineIntel", 6, 79), 6),
        (("x86_64", "GenuineIntel", 6, 85), 10),
        (("x86_64", "GenuineIntel", 6, 143), 22),
        (("x86_64", "GenuineIntel", 6, 207), 40),
        (("arm64", "", 0, 0), 6),
        (("ppc64", "", 0, 0), 32),
        (("x86_64", "", 0, 0), 6),
    ],
)
def test_numa_link_by_cpu(cpu: tuple[str, str, int, int], expected_gb_per_s: float) -> None:
    assert sys_bytes_per_s(*cpu) == expected_gb_per_s * 1e9


def _cpu_and_switches() -> tuple[MachineBuilder, int, int, int]:
    builder = MachineBuilder()
    cpu, upper, lower = (builder.add(kind, "0") for kind in (DeviceKind.CPU, DeviceKind.PCI, DeviceKind.PCI))
    builder.connect(upper, cpu, LinkType.PCI, 12e9)
    builder.connect(lower, upper, LinkType.PCI, 24e9)
    return builder, cpu, upper, lower


def _gpu(builder: MachineBuilder, parent: int) -> int:
    gpu = builder.add(DeviceKind.GPU, "gpu")
    builder.connect(gpu, parent, LinkType.PCI, 24e9)
    return gpu


def test_switches_and_cpu_make_the_path_type() -> None:
    builder, cpu, upper, lower = _cpu_and_switches()
    gpus = [_gpu(builder, parent) for parent in (lower, lower, upper, cpu)]
    paths = builder.build(gpus, [], False, None).paths_from(gpus[0])
    assert [paths[gpu].type for gpu in gpus] == [PathType.LOC, PathType.PIX, PathType.PXB, PathType.PHB]
    assert paths[gpus[3]].bytes_per_s == 12e9  # of the slowest link, switch to CPU
    assert len(paths[gpus[3]].links) == 4


def test_one_gpu_forwards_between_nvlinks_but_not_two() -> None:
    builder = MachineBuilder()
    gpus = [builder.add(DeviceKind.GPU, str(number)) for number in range(4)]
    for one, other in zip(gpus, gpus[1:], strict=False):
        builder.connect(one, other, LinkType.NVL, 20e9)
    paths = builder.build(gpus, [], False, None).paths_from(gpus[0])
    assert paths[1].type is PathType.NVL
    assert paths[2].type is PathType.NVB
    assert 3 not in paths


def test_lower_type_wins_over_bandwidth_over_hops() -> None:
    builder = MachineBuilder()
    one, other, slow, fast, direct = (
        builder.add(kind, str(number))
        for number, kind in enumerate([DeviceKind.GPU] * 2 + [DeviceKind.PCI] * 2 + [DeviceKind.CPU])
    )
    for gpu in (one, other):
        builder.connect(gpu, slow, LinkType.PCI, 6e9)
        builder.connect(gpu, fast, LinkType.PCI, 12e9)
        builder.connect(gpu, direct, LinkType.PCI, 96e9)
    path = builder.build([one, other], [], False, None).paths_from(one)[other]
    assert (path.type, path.bytes_per_s) == (PathType.PIX, 12e9)


def test_path_reversed_leads_back() -> None:
    builder, cpu, _, lower = _cpu_and_switches()
    gpu = _gpu(builder, lower)
    machine = builder.build([gpu], [], False, None)
    there = machine.paths_from(gpu)[cpu]
    back = there.reversed()
    assert machine.links[back.links[0]].source == cpu
    assert machine.links[back.links[-1]].target == gpu
    assert {link ^ 1 for link in back.links} == set(there.links)


def _one_switch(n_gpus: int, ports_gb_per_s: list[float]) -> Machine:
    builder, _, upper, _ = _cpu_and_switches()
    gpus = [_gpu(builder, upper) for _ in range(n_gpus)]
    nets = []
    for number, rate in enumerate(ports_gb_per_s):
        nic, port = builder.add(DeviceKind.NIC, str(number)), builder.add(DeviceKind.NET, str(number))
        builder.connect(nic, upper, LinkType.PCI, 24e9)
        builder.connect(port, nic, LinkType.LOC, rate * 1e9)
        nets.append(Net(port, f"mlx5_{number}", rate * 1e9, number))
    return builder.build(gpus, nets, False, None)


def test_gpus_spread_over_ports_bits_mirrored() -> None:
    machine = _one_switch(4, [12.5] * 4)
    assert [nets_of(machine, gpu) for gpu in range(4)] == [[0], [2], [1], [3]]


def test_gpus_spread_over_three_ports_in_order() -> None:
    machine = _one_switch(3, [12.5] * 3)
    assert [nets_of(machine, gpu) for gpu in range(3)] == [[0], [1], [2]]


def test_only_the_fastest_ports_are_local() -> None:
    assert local_nets(_one_switch(1, [5.0, 12.5, 12.5]), 0) == [1, 2]


def test_ports_of_one_gpu_are_bonded() -> None:
    machine = bond_nets(_one_switch(1, [12.5] * 2))
    assert [(net.name, net.bytes_per_s) for net in machine.nets] == [("mlx5_0+mlx5_1", 25e9)]
    assert nets_of(machine, 0) == [0]
    links = {(link.type, link.capacity_bytes_per_s) for link in machine.links}
    assert {(LinkType.LOC, 25e9), (LinkType.PCI, 48e9)} <= links


def test_ports_shared_in_part_are_not_bonded() -> None:
    machine = _one_switch(2, [12.5] * 3)  # two each of three
    assert bond_nets(machine) is machine


def test_machine_takes_its_first_gpus() -> None:
    machine = _one_switch(4, [12.5]).take(2)
    assert len(machine.gpus) == 2
    assert machine.kinds.count(DeviceKind.GPU) == 2
    assert machine.paths_from(machine.gpus[0])[machine.gpus[1]].type is PathType.PIX
