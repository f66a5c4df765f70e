"""``nvidia-smi topo -m``: our samples, variants of the text, and text that is something else."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.topology import PathType, describe_topology, load_topology
from traces.errors import InputError

DATA = Path(__file__).parents[2] / "data" / "topology"


def _write(folder: Path, text: str | bytes) -> Path:
    path = folder / "topo.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _table(count: int, cell: str) -> str:
    """Matrix of GPUs that are all alike."""
    names = [f"GPU{number}" for number in range(count)]
    rows = [" ".join([one, *("X" if one == other else cell for other in names), "0-7 0"]) for one in names]
    return "\n".join(["  " + " ".join(names) + " CPU Affinity NUMA Affinity", *rows])


def test_direct_mesh() -> None:
    topology = load_topology(DATA / "mesh_4gpu.txt", gpu="a100-40")
    assert topology.gpu == "a100-40"
    route = topology.route(0, 3)
    assert (route.kind, route.path_type, len(route.links)) == ("nvlink", PathType.NVL, 1)
    assert route.bytes_per_s == pytest.approx(80e9)
    assert not any(link.target.startswith("nvs") for link in topology.links)
    facts = describe_topology(topology)
    assert [gpu["nics"][0]["path_type"] for gpu in facts["gpus"]] == ["PIX", "PHB", "PXB", "PXB"]
    assert {nic["name"] for nic in facts["nics"]} == {"mlx5_0", "mlx5_3"}  # by the legend
    assert facts["numa_nodes"] == ["0", "1"]


def test_terminal_codes_blank_cells_and_old_nic_names() -> None:
    topology = load_topology(DATA / "pcie_ansi.txt")
    assert topology.gpu is None
    routes = [topology.route(0, rank) for rank in (1, 2, 3)]
    assert [route.kind for route in routes] == ["pcie", "shm", "shm"]
    assert [route.path_type.name for route in routes] == ["PIX", "PHB", "SYS"]  # NODE is PHB to NCCL
    facts = describe_topology(topology)
    assert [gpu["nics"][0]["path_type"] for gpu in facts["gpus"]] == ["SYS", "SYS", "SYS", "PHB"]


def test_worse_direction_counts_with_a_warning() -> None:
    topology = load_topology(DATA / "asymmetric.txt", gpu="h200-sxm")
    assert topology.route(0, 1).path_type is PathType.SYS
    assert any("GPU0-GPU1" in text for text in topology.warnings)


@pytest.mark.parametrize(
    ("count", "cell", "gpu", "gb_per_s", "switched"),
    [
        (8, "NV18", "h100-sxm", 370.8, True),
        (8, "NV12", "a100-80", 240.0, True),
        (8, "NV8", "h800", 164.8, True),
        (4, "NV4", "a100-80", 80.0, False),
        (4, "NV2", None, 40.0, False),
        (2, "NV2", None, 40.0, False),
    ],
)
def test_gpu_from_the_number_of_nvlinks(
    tmp_path: Path, count: int, cell: str, gpu: str | None, gb_per_s: float, switched: bool
) -> None:
    topology = load_topology(_write(tmp_path, _table(count, cell)))
    assert topology.gpu == gpu
    assert topology.route(0, count - 1).bytes_per_s == pytest.approx(gb_per_s * 1e9)
    assert any(link.target == "nvs:0" for link in topology.links) is switched
    assert any("gpu=" in text for text in topology.warnings)


def test_named_gpu_gives_the_rate(tmp_path: Path) -> None:
    path = _write(tmp_path, _table(8, "NV18"))
    assert load_topology(path, gpu="b200").route(0, 1).bytes_per_s == pytest.approx(721.8e9)


def test_one_gpu_with_broken_nvlinks(tmp_path: Path) -> None:
    lines = _table(4, "NV18").splitlines()
    lines[4] = "GPU3 NODE NODE NODE X 0-7 0"
    for row in (1, 2, 3):
        cells = lines[row].split()
        cells[4] = "NODE"
        lines[row] = " ".join(cells)
    topology = load_topology(_write(tmp_path, "\n".join(lines)))
    assert topology.route(0, 2).kind == "nvlink"
    assert (topology.route(0, 3).kind, topology.route(0, 3).path_type) == ("shm", PathType.PHB)


def test_geforce_goes_through_host_memory(tmp_path: Path) -> None:
    topology = load_topology(_write(tmp_path, _table(2, "PIX")), gpu="rtx4090")
    assert topology.route(0, 1).kind == "shm"
    assert any("peer-to-peer" in text for text in topology.warnings)


def test_nic_rows_may_be_missing(tmp_path: Path) -> None:
    text = "GPU0 NIC0 CPU Affinity\nGPU0 X PIX 0-7"
    topology = load_topology(_write(tmp_path, text), nodes=2)
    assert topology.route(0, 1).kind == "net"


def test_several_nodes_need_a_nic(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no network port"):
        load_topology(_write(tmp_path, _table(2, "NV18")), n_ranks=4)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "neither"),
        (b"\x00\xff\xfe\x80 junk", "not text"),
        (b"PK\x03\x04" + bytes(range(128)) * 20, "neither"),
        (b"GPU0 GPU1\nGPU0 X PIX", "lacks rows: got no row GPU1"),
        (b"GPU0 GPU1\nGPU0 X", "cut or malformed"),
        (b"GPU0 GPU1\nGPU0 X FAR\nGPU1 FAR X", "cut or malformed"),
        (b"GPU0 GPU0\nGPU0 X PIX", "names a device twice"),
        (" ".join(f"GPU{number}" for number in range(400)).encode(), "too many"),
        (b"\n" * 10 + b"x\n" * 6000, "too long"),
        (b'{"gpus": 8}', "neither"),
    ],
    ids=range(10),
)
def test_other_text_is_refused(tmp_path: Path, content: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match):
        load_topology(_write(tmp_path, content))


@settings(max_examples=60)
@given(data=st.data())
def test_any_matrix_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever the cells, even contradictory ones, every route exists."""
    count = data.draw(st.integers(1, 5))
    cells = st.sampled_from(["PIX", "PXB", "PHB", "NODE", "SYS", "NV1", "NV12"])
    names = [f"GPU{number}" for number in range(count)] + ["NIC0"]
    rows = [" ".join([one, *("X" if one == other else data.draw(cells) for other in names)]) for one in names]
    text = "\n".join([" ".join(names), *rows]).replace("NIC0 NV1", "NIC0 SYS")
    topology = load_topology(_write(tmp_path_factory.mktemp("any"), text))
    assert topology.n_ranks == count
    describe_topology(topology)
