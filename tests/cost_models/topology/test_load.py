"""Names, files, ranks and nodes; the description."""

import json
from io import StringIO
from pathlib import Path

import pytest

from cost_models.topology import PRESET_NAMES, describe_topology, load_topology, topology_tables
from traces.errors import InputError

DATA = Path(__file__).parents[2] / "data" / "topology"
PCIE_BOX = DATA / "pcie_4gpu_2socket.xml"


@pytest.mark.parametrize(
    ("n_ranks", "nodes", "expected"),
    [(None, None, (1, 8)), (None, 3, (3, 8)), (4, None, (1, 4)), (9, 3, (3, 3)), (16, None, (2, 8)), (16, 4, (4, 4))],
)
def test_ranks_and_nodes(n_ranks: int | None, nodes: int | None, expected: tuple[int, int]) -> None:
    topology = load_topology("dgx-h100", n_ranks, nodes)
    assert (topology.n_nodes, topology.ranks_per_node) == expected


@pytest.mark.parametrize(
    ("n_ranks", "nodes", "match"),
    [
        (9, None, "ranks do not fit"),
        (10, 3, "a multiple of 3"),
        (16, 1, "at most 8 per node"),
        (0, None, "ranks is out of range"),
        (8, 0, "nodes is out of range"),
        (10**12, None, "out of range"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(n_ranks: int, nodes: int | None, match: str) -> None:
    with pytest.raises(InputError, match=match):
        load_topology("dgx-h100", n_ranks, nodes)


@pytest.mark.parametrize("name", ["h200-nvlink-pair", "h200-shm-pair", "h200-socket-pair"])
def test_pairs_are_one_node(name: str) -> None:
    with pytest.raises(InputError, match="no network port"):
        load_topology(name, n_ranks=4)
    assert load_topology(name, n_ranks=1).n_ranks == 1


def test_wrong_gpu_for_a_preset_is_refused() -> None:
    with pytest.raises(InputError, match="dgx-h100 has other GPUs: got l20, expected h100-sxm"):
        load_topology("dgx-h100", gpu="l20")


@pytest.mark.parametrize("name", ["dgx-h200", "", "/no/such/file.xml", "x" * 5000, "nul\0byte", "/"])
def test_unknown_names_are_refused_with_the_presets(name: str) -> None:
    with pytest.raises(InputError, match="no such topology") as refusal:
        load_topology(name)
    assert all(preset in str(refusal.value) for preset in PRESET_NAMES)
    assert len(str(refusal.value)) < 400


def test_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.xml"
    path.write_bytes(b"<system>" + b" " * (4 * 2**20))
    with pytest.raises(InputError, match="too large"):
        load_topology(path)


@pytest.mark.parametrize("name", [*PRESET_NAMES, str(PCIE_BOX), str(DATA / "mesh_4gpu.txt")])
def test_description_is_json_and_complete(name: str) -> None:
    topology = load_topology(name)
    facts = json.loads(json.dumps(describe_topology(topology)))
    assert facts["ranks"] == topology.n_ranks
    assert len(facts["gpus"]) == len(facts["matrix"]) == topology.ranks_per_node
    assert all(gpu["pcie_gb_per_s"] > 0 for gpu in facts["gpus"])
    assert facts["matrix"][0][0]["path_type"] == "LOC"
    assert facts["fabric"] is None


def test_description_of_a_cluster() -> None:
    facts = describe_topology(load_topology("dgx-h100:oversubscription=2", n_ranks=32), node=1)
    assert facts["fabric"] == {
        "kind": "rail",
        "leaves": 8,
        "oversubscription": 2.0,
        "leaf_to_spine_gb_per_s": 100.0,
    }
    assert [gpu["rank"] for gpu in facts["gpus"]] == list(range(8, 16))
    assert facts["gpus"][0]["nics"] == [{"name": "mlx5_0", "path_type": "PIX"}]
    assert facts["nics"][3] == {
        "id": "nic:1.3",
        "name": "mlx5_3",
        "gb_per_s": 50.0,
        "transport": "rdma",
        "gpu_direct": True,
    }


def test_tables_hold_the_facts() -> None:
    from rich.console import Console

    output = StringIO()
    console = Console(width=160, file=output)
    for table in topology_tables(load_topology(PCIE_BOX, nodes=2)):
        console.print(table)
    text = output.getvalue()
    for expected in ("l40s", "8 = 2 x 4", "rail, leaf switches: 1, 1:1", "mlx5_0", "PIX 24", "SYS 22"):
        assert expected in text
