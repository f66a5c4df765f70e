"""Files of real machines, kept outside the repository (``../shared/fixtures``): what we read in each.

Every figure can be worked out by hand from the file and NCCL's constants (``cost_models/topology/links.py``).
"""

from pathlib import Path

import pytest

from cost_models.topology import ClusterTopology, describe_topology, load_topology
from traces.errors import InputError

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"
XML, SMI = FIXTURES / "nccl_topo", FIXTURES / "nvidia_smi_topo"

pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="shared fixtures are not here")

# file: GPU, GPUs, (path type, kind, GB/s) from GPU 0 to GPU 1 and to the last
NCCL = {
    "aws_g5.48xl_topo": (None, 8, ("PHB", "shm", 12), ("SYS", "shm", 6)),
    "aws_p4d-24xl_topo": ("a100-40", 8, ("NVL", "nvlink", 240), ("NVL", "nvlink", 240)),
    "aws_p4de-24xl_topo": ("a100-80", 8, ("NVL", "nvlink", 240), ("NVL", "nvlink", 240)),
    "aws_p5.48xl_topo_v1": (None, 8, ("PHB", "shm", 48), ("SYS", "shm", 6)),
    "aws_p5.48xl_topo_v2": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "azure_ncv4_topo": ("a100-80", 4, ("SYS", "shm", 12), ("SYS", "shm", 12)),
    "azure_ndv2_topo": (None, 8, ("PHB", "shm", 24), ("SYS", "shm", 10)),
    "azure_ndv4_topo": (None, 8, ("PIX", "pcie", 24), ("SYS", "shm", 16)),
    "azure_ndv5_topo": (None, 8, ("PHB", "shm", 48), ("SYS", "shm", 22)),
    "h200x2_vm_topo": ("h200-sxm", 2, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "ibm_vpc_h100_gx3_topo": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "modal_b200_vm_topo": ("b200", 8, ("NVL", "nvlink", 721.8), ("NVL", "nvlink", 721.8)),
    "nebius_h100_v1_topo": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "oci_H100-topology": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "oci_H100-topology-kubernetes": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "oci_topo-flattened": (None, 8, ("PIX", "pcie", 24), ("SYS", "shm", 16)),
    "oci_topo-flattened-b4": (None, 8, ("PIX", "pcie", 24), ("SYS", "shm", 16)),
    "panlichen_8x3090_pcie_topo": (None, 8, ("PIX", "shm", 24), ("SYS", "shm", 10)),
    "rwkv_2x4090_amd_pcie_topo": ("rtx4090", 2, ("SYS", "shm", 16), ("SYS", "shm", 16)),
    "sugarlxn_4x4090_epyc_nps4_virtualnics_topo": ("rtx4090", 4, ("SYS", "shm", 16), ("SYS", "shm", 16)),
    "yccl_4xA6000_2socket_topo": (None, 4, ("PHB", "shm", 12), ("SYS", "shm", 10)),
    "yccl_topo_h800": ("h800", 8, ("NVL", "nvlink", 164.8), ("NVL", "nvlink", 164.8)),
    "yccl_topo_l20": ("l20", 16, ("PIX", "pcie", 24), ("SYS", "shm", 22)),
}

WARNED = {
    "aws_g5.48xl_topo": ["names no device class", "gpu=", "unknown speed", "NICs without speed"],
    "aws_p4d-24xl_topo": ["NVLinks in the file: 12 per GPU"],
    "aws_p5.48xl_topo_v1": ["names no GPU", "gpu="],
    "aws_p5.48xl_topo_v2": ["h100-sxm assumed from sm 90", "added"],
    "azure_ncv4_topo": ["unknown speed", "to themselves"],
    "azure_ndv5_topo": ["gpu=", "NICs without speed in the file (8)"],
    "ibm_vpc_h100_gx3_topo": ["0.188 GB/s"],
    "modal_b200_vm_topo": ["unknown speed (3", "ports of 200 GB/s behind a PCI link of 12 GB/s"],
    "nebius_h100_v1_topo": ["NVLinks in the file: 18 per GPU"],
    "oci_H100-topology": ["link of 6 GB/s"],
    "panlichen_8x3090_pcie_topo": ["RTX 3090"],
    "rwkv_2x4090_amd_pcie_topo": ["peer-to-peer"],
    "sugarlxn_4x4090_epyc_nps4_virtualnics_topo": ["virtual network interfaces ignored: 15"],
    "yccl_4xA6000_2socket_topo": ["RTX A6000", "virtual network interfaces ignored: 8"],
}

SMI_TABLES = {
    "a100_4gpu_nv4_2nic_meluxina": ("a100-80", 4, ("NVL", "nvlink", 80), ("NVL", "nvlink", 80)),
    "a100_4gpu_nv4_4nic_leonardo": ("a100-80", 4, ("NVL", "nvlink", 80), ("NVL", "nvlink", 80)),
    "a100_8gpu_10nic_nps4": ("a100-80", 8, ("NVL", "nvlink", 240), ("NVL", "nvlink", 240)),
    "a100_8gpu_4nic": ("a100-80", 8, ("NVL", "nvlink", 240), ("NVL", "nvlink", 240)),
    "h100_2gpu_nv18_kvm_vm": ("h100-sxm", 2, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "h200_2gpu_nv18_vm": ("h100-sxm", 2, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "h200_8gpu_12nic_dgx_hgx": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "h200_8gpu_8nic_epyc9534": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "h_4gpu_nv18_container_blank_affinity": ("h100-sxm", 4, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "pcie_2gpu_pix": (None, 2, ("PIX", "pcie", 24), ("PIX", "pcie", 24)),
    "pcie_2x_rtx5090_phb": (None, 2, ("PHB", "shm", 24), ("PHB", "shm", 24)),
    "pcie_6gpu_2socket_node": (None, 6, ("PIX", "pcie", 24), ("SYS", "shm", 10)),
    "pcie_8x_p40_legacy_soc": (None, 8, ("PIX", "pcie", 24), ("PXB", "pcie", 24)),
    "pcie_8x_titanv_2socket": (None, 8, ("PIX", "pcie", 24), ("SYS", "shm", 10)),
    "stas00_2gpu_nv2": (None, 2, ("NVL", "nvlink", 40), ("NVL", "nvlink", 40)),
    "stas00_2gpu_phb": (None, 2, ("PHB", "shm", 24), ("PHB", "shm", 24)),
    "stas00_8xa100": ("a100-80", 8, ("NVL", "nvlink", 240), ("NVL", "nvlink", 240)),
    "stas00_8xh100": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "stas00_8xh100_104core": ("h100-sxm", 8, ("NVL", "nvlink", 370.8), ("NVL", "nvlink", 370.8)),
    "v100_4gpu_nv2_dell_c4140": (None, 4, ("NVL", "nvlink", 40), ("NVL", "nvlink", 40)),
}

Facts = tuple[str | None, int, tuple[str, str, float], tuple[str, str, float]]


def _facts(topology: ClusterTopology) -> Facts:
    ends = [topology.route(0, rank) for rank in (1, topology.n_ranks - 1)]
    near, far = ((end.path_type.name, end.kind, round(end.bytes_per_s / 1e9, 6)) for end in ends)
    return topology.gpu, topology.n_ranks, near, far


@pytest.mark.parametrize("name", NCCL)
def test_nccl_xml(name: str) -> None:
    topology = load_topology(XML / f"{name}.xml")
    assert _facts(topology) == NCCL[name]
    text = "\n".join(topology.warnings)
    for expected in WARNED.get(name, []):
        assert expected in text


@pytest.mark.parametrize("name", SMI_TABLES)
def test_nvidia_smi(name: str) -> None:
    topology = load_topology(SMI / f"{name}.txt")
    assert _facts(topology) == SMI_TABLES[name]
    assert any("gpu=" in text for text in topology.warnings)


def test_every_file_is_expected() -> None:
    assert {path.stem for path in XML.glob("*.xml")} == {*NCCL, "rccl_8p_940_version2_xgmi_topo"}
    assert {path.stem for path in SMI.glob("*.txt")} == set(SMI_TABLES)


def test_rccl_is_refused() -> None:
    with pytest.raises(InputError, match="another version: got '2', expected '1'; files of RCCL"):
        load_topology(XML / "rccl_8p_940_version2_xgmi_topo.xml")


@pytest.mark.parametrize("path", sorted((FIXTURES / "nccl_graph").glob("*.xml")), ids=lambda path: path.stem)
def test_graph_files_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match="graph file"):
        load_topology(path)


@pytest.mark.parametrize(
    ("name", "gpu", "gb_per_s"),
    [
        ("azure_ndv4_topo", "a100-40", 240),
        ("azure_ndv5_topo", "h100-sxm", 370.8),
        ("aws_p5.48xl_topo_v1", "h100-sxm", 370.8),
        ("oci_topo-flattened-b4", "a800", 160),
    ],
)
def test_named_gpu_brings_its_nvlinks(name: str, gpu: str, gb_per_s: float) -> None:
    topology = load_topology(XML / f"{name}.xml", gpu=gpu)
    assert topology.gpu == gpu
    assert topology.route(0, 7).bytes_per_s == pytest.approx(gb_per_s * 1e9)
    assert any("added" in text for text in topology.warnings)


@pytest.mark.parametrize(
    ("name", "rank", "nic", "path_type", "between_gb_per_s"),
    [
        ("aws_p4d-24xl_topo", 0, "nic-0000:10:1b.0", "PIX", 12.0),
        ("aws_p5.48xl_topo_v2", 0, "rdmap79s0+rdmap80s0+rdmap81s0+rdmap82s0", "PIX", 48.0),
        ("azure_ndv4_topo", 1, "nic-0102:00:00.0", "PIX", 24.0),
        ("ibm_vpc_h100_gx3_topo", 0, "mlx5_7", "PIX", 25.0),
        ("oci_H100-topology", 0, "mlx5_0+mlx5_1", "PIX", 45.0),
        ("yccl_topo_h800", 0, "mlx5_0", "PIX", 48.0),
        ("panlichen_8x3090_pcie_topo", 7, "mlx5_0", "PIX", 7.0),
        ("h200x2_vm_topo", 1, "eth0", "PHB", 1.25),
    ],
)
def test_nic_of_a_gpu(name: str, rank: int, nic: str, path_type: str, between_gb_per_s: float) -> None:
    topology = load_topology(XML / f"{name}.xml", nodes=2)
    gpu = describe_topology(topology)["gpus"][rank]
    assert gpu["nics"] == [{"name": nic, "path_type": path_type}]
    route = topology.route(rank, topology.ranks_per_node + rank)
    assert route.bytes_per_s == pytest.approx(between_gb_per_s * 1e9)


@pytest.mark.parametrize(
    ("name", "path_types"),
    [
        ("a100_8gpu_10nic_nps4", ["PXB"] * 8),
        ("h200_8gpu_12nic_dgx_hgx", ["PXB"] * 8),
        ("h200_8gpu_8nic_epyc9534", ["PIX"] * 8),
        ("a100_8gpu_4nic", ["PXB"] * 4 + ["SYS"] * 4),
        ("a100_4gpu_nv4_4nic_leonardo", ["PXB"] * 4),
        ("v100_4gpu_nv2_dell_c4140", ["PHB"] * 4),
        ("pcie_8x_p40_legacy_soc", ["SYS"] * 8),
    ],
)
def test_nearest_nics_of_a_table(name: str, path_types: list[str]) -> None:
    gpus = describe_topology(load_topology(SMI / f"{name}.txt"))["gpus"]
    assert [gpu["nics"][0]["path_type"] for gpu in gpus] == path_types


def test_each_gpu_of_a_table_has_the_nic_beside_it() -> None:
    gpus = describe_topology(load_topology(SMI / "h200_8gpu_12nic_dgx_hgx.txt", gpu="h200-sxm"))["gpus"]
    assert [gpu["nics"][0]["name"] for gpu in gpus] == [f"mlx5_{nic}" for nic in (0, 3, 4, 5, 6, 9, 10, 11)]


def test_numa_nodes_of_tables() -> None:
    found = {
        name: describe_topology(load_topology(SMI / f"{name}.txt"))["numa_nodes"]
        for name in ("stas00_8xh100", "pcie_6gpu_2socket_node", "h_4gpu_nv18_container_blank_affinity")
    }
    assert set(map(tuple, found.values())) == {("0", "1")}


def test_pcie_rows_equal_the_table() -> None:
    """Every path type that the machine has is the one that the table prints."""
    topology = load_topology(SMI / "pcie_6gpu_2socket_node.txt")
    rows = (SMI / "pcie_6gpu_2socket_node.txt").read_text().splitlines()[1:7]
    for src, row in enumerate(rows):
        cells = [cell.replace("NODE", "PHB") for cell in row.split()[1:7]]
        for dst, cell in enumerate(cells):
            assert src == dst or topology.route(src, dst).path_type.name == cell
