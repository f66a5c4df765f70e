"""NCCL topology XML: our samples, and input that nobody should trust."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.topology import PathType, describe_topology, load_topology
from traces.errors import InputError

DATA = Path(__file__).parents[2] / "data" / "topology"
PCIE_BOX = DATA / "pcie_4gpu_2socket.xml"


def _write(folder: Path, text: str | bytes) -> Path:
    path = folder / "topology.xml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _system(pci: str, cpu: str = 'numaid="0"') -> str:
    return f'<system version="1"><cpu {cpu}>{pci}</cpu></system>'


def _gpus(count: int, attributes: str = 'link_speed="32.0 GT/s PCIe" link_width="16"') -> str:
    return "".join(f'<pci busid="0000:{number:02x}:00.0" class="0x030200" {attributes}/>' for number in range(count))


def test_pcie_box() -> None:
    topology = load_topology(PCIE_BOX)
    assert (topology.gpu, topology.n_ranks, topology.warnings) == ("l40s", 4, ())
    assert topology.source.startswith("NCCL topology XML")
    routes = {pair: topology.route(*pair) for pair in ((0, 1), (0, 2), (2, 3), (0, 3))}
    assert [route.kind for route in routes.values()] == ["pcie", "shm", "shm", "shm"]
    assert [route.path_type.name for route in routes.values()] == ["PIX", "SYS", "PHB", "SYS"]
    assert [route.bytes_per_s / 1e9 for route in routes.values()] == [24, 22, 12, 12]


def test_one_host_is_repeated_through_its_nic() -> None:
    topology = load_topology(PCIE_BOX, n_ranks=8)
    route = topology.route(1, 5)
    names = [topology.links[link].name for link in route.links]
    assert "nic:0.0->leaf:0" in names
    assert "leaf:0->nic:1.0" in names
    assert route.kind == "net"
    assert topology.links[route.links[3]].latency_s == pytest.approx(2.35e-6)  # the file's latency added


def test_far_gpu_reaches_the_nic_through_its_cpu() -> None:
    topology = load_topology(PCIE_BOX, nodes=2)
    names = [topology.links[link].target for link in topology.route(2, 4).links]
    assert names[:4] == ["cpu:0.1", "mem:0.1", "cpu:0.1", "cpu:0.0"]


def test_hosts_by_hash_in_order_of_rank() -> None:
    topology = load_topology(DATA / "nvlink_2hosts.xml")
    assert (topology.n_nodes, topology.n_ranks, topology.gpu) == (2, 4, "h100-sxm")
    assert topology.route(0, 1).bytes_per_s == pytest.approx(370.8e9)
    assert topology.route(0, 2).kind == "net"
    assert "spine" not in [topology.links[link].target for link in topology.route(1, 3).links]
    assert load_topology(DATA / "nvlink_2hosts.xml", n_ranks=2).n_nodes == 1
    with pytest.raises(InputError, match="describes 2 hosts"):
        load_topology(DATA / "nvlink_2hosts.xml", n_ranks=6)


def test_wrong_virtual_switch_and_gaps_are_warned_of() -> None:
    topology = load_topology(DATA / "slow_switch.xml")
    text = "\n".join(topology.warnings)
    assert "0.188 GB/s" in text
    assert "Gen3" in text
    assert "virtual network interfaces" in text
    assert "no NVLinks" in text
    assert topology.n_ranks == 2  # the third GPU has no rank
    assert topology.route(0, 1).bytes_per_s == pytest.approx(0.1875e9)


def test_no_usable_nic_is_refused_for_several_nodes() -> None:
    with pytest.raises(InputError, match="no network port.*ask for one node"):
        load_topology(DATA / "slow_switch.xml", nodes=2)


def test_two_gpus_on_amd_talk_directly() -> None:
    route = load_topology(DATA / "amd_pair.xml").route(0, 1)
    assert (route.kind, route.path_type, route.bytes_per_s) == ("pcie", PathType.SYS, 16e9)
    between = load_topology(DATA / "amd_pair.xml", nodes=2).route(0, 2)
    assert (between.kind, between.bytes_per_s) == ("socket", 3.125e9)


def test_c2c_reaches_the_nic_of_its_own_cpu() -> None:
    gpus = describe_topology(load_topology(DATA / "grace_pair.xml"))["gpus"]
    assert [gpu["nics"][0]["path_type"] for gpu in gpus] == ["P2C", "SYS"]
    topology = load_topology(DATA / "grace_pair.xml", nodes=2)
    first = topology.links[topology.route(0, 2).links[0]]
    assert (first.type, first.capacity_bytes_per_s) == ("C2C", 225e9)
    assert topology.route(0, 1).bytes_per_s == pytest.approx(160.4e9)


def test_pci_tree_gets_the_nvlinks_of_the_named_gpu(tmp_path: Path) -> None:
    path = _write(tmp_path, _system(_gpus(8)))
    unknown = load_topology(path)
    assert unknown.gpu is None
    assert unknown.route(0, 1).kind == "shm"
    assert any("gpu=" in text for text in unknown.warnings)
    named = load_topology(path, gpu="h800")
    assert named.route(0, 1).bytes_per_s == pytest.approx(164.8e9)
    assert any("added" in text for text in named.warnings)
    assert load_topology(path, gpu="my-gpu").route(0, 1).kind == "shm"


def test_order_of_a_pci_tree_is_that_of_addresses(tmp_path: Path) -> None:
    gpus = '<pci busid="0000:b0:00.0" class="0x030200"/><pci busid="0000:0a:00.0" class="0x030200"/>'
    facts = describe_topology(load_topology(_write(tmp_path, _system(gpus))))
    assert [gpu["address"] for gpu in facts["gpus"]] == ["0000:0a:00.0", "0000:b0:00.0"]


def test_broadcom_two_level_switch_is_one(tmp_path: Path) -> None:
    ids = 'vendor="0x1000" device="0xc030" subsystem_vendor="0x1000" subsystem_device="{}" link_speed="32.0 GT/s PCIe"'
    halves = [
        f'<pci busid="0000:{number}0:00.0" class="0x060400" {ids.format("0x1003")}>'
        f'<pci busid="0000:{number}1:00.0" class="0x030200" link_speed="32.0 GT/s PCIe"/></pci>'
        for number in range(2)
    ]
    for top, expected in (("0x0072", PathType.PIX), ("0x100b", PathType.PXB)):
        switch = f'<pci busid="0000:ff:00.0" class="0x060400" {ids.format(top)}>{"".join(halves)}</pci>'
        assert load_topology(_write(tmp_path, _system(switch))).route(0, 1).path_type is expected


def test_pcilink_joins_switches(tmp_path: Path) -> None:
    switches = "".join(
        f'<pci busid="0000:{one}0:00.0" class="0x060400"><pcilink target="0000:{other}0:00.0"/>'
        f'<pci busid="0000:{one}1:00.0" class="0x030200"/></pci>'
        for one, other in ((1, 2), (2, 1))
    )
    assert load_topology(_write(tmp_path, _system(switches))).route(0, 1).path_type is PathType.PXB


def test_gpu_against_the_file_is_refused() -> None:
    with pytest.raises(InputError, match="has other GPUs: got gpu h100-sxm, expected l40s"):
        load_topology(PCIE_BOX, gpu="h100-sxm")
    assert load_topology(PCIE_BOX, gpu="l40s").gpu == "l40s"


BOMB = '<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><system version="1"><cpu numaid="&b;"/></system>'


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (PCIE_BOX.read_text()[:900], "malformed"),
        (BOMB, "DTD or entities"),
        ('<!DOCTYPE s SYSTEM "file:///etc/passwd"><system version="1"/>', "DTD or entities"),
        ("<a>" * 5000, "too deep"),
        ("<a>" + "<b/>" * 200_000 + "</a>", "too long"),
        ("<graphs version='1'/>", "graph file"),
        ("<topology/>", "not a NCCL topology"),
        ("<system version='2'><cpu/></system>", "RCCL"),
        ("<system><cpu/></system>", "another version"),
        ("<system version='1'/>", "no cpu"),
        ("<system version='1'><cpu numaid='0'/></system>", "no GPU"),
        (_system(_gpus(1) + _gpus(1)), "PCI address occurs twice"),
        (_system(_gpus(2), "numaid='zero'"), "numaid of <cpu> is not a whole number"),
        (_system(_gpus(1, "link_width='wide'")), "link_width"),
        ('<system version="1">' + "<cpu/>" * 300 + f"<cpu>{_gpus(1)}</cpu></system>", "too large"),
        ("<system version='1'><cpu>\x00</cpu></system>", "malformed"),
        ("<?xml version='1.0' encoding='no-such'?><system/>", "malformed"),
    ],
    ids=range(17),
)
def test_malformed_xml_is_refused(tmp_path: Path, content: str, match: str) -> None:
    with pytest.raises(InputError, match=re.compile(match, re.IGNORECASE)):
        load_topology(_write(tmp_path, content))


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = _write(tmp_path, b"\xef\xbb\xbf" + PCIE_BOX.read_bytes().strip())
    assert load_topology(path).n_ranks == 4


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray((DATA / data.draw(st.sampled_from(["pcie_4gpu_2socket.xml", "grace_pair.xml"]))).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=8))
    path = _write(tmp_path_factory.mktemp("damaged"), bytes(content))
    try:
        facts = describe_topology(load_topology(path))
    except InputError:
        return
    assert facts["ranks"] >= 1
