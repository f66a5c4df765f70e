"""NCCL's variables: how they are read, and which way data then go."""

import pytest

from cost_models.topology import NcclSettings, PathType, load_topology, parse_nccl_assignments, parse_nccl_settings
from traces.errors import InputError


def kinds(pairs, name="pcie-8x", **variables):
    settings = parse_nccl_settings({f"NCCL_{key}": value for key, value in variables.items()})
    topology = load_topology(name, nccl=settings)
    return [topology.route(*pair).kind for pair in pairs]


SWITCH, SOCKET, OTHER = (0, 1), (0, 2), (0, 4)


def test_p2p_level():
    assert kinds([SWITCH, SOCKET, OTHER]) == ["pcie", "shm", "shm"]
    assert kinds([SWITCH, SOCKET, OTHER], P2P_LEVEL="PHB") == ["pcie", "pcie", "shm"]
    assert kinds([SWITCH, SOCKET, OTHER], P2P_LEVEL="SYS") == ["pcie", "pcie", "pcie"]
    assert kinds([SWITCH], P2P_LEVEL="NVL") == kinds([SWITCH], P2P_LEVEL="0") == ["shm"]


def test_p2p_and_shm_disabled():
    assert kinds([SWITCH], P2P_DISABLE="1") == ["shm"]
    assert kinds([(0, 1)], "dgx-h100", P2P_DISABLE="1") == ["shm"]
    assert kinds([SWITCH, OTHER], SHM_DISABLE="1") == ["pcie", "net"]
    with pytest.raises(InputError, match="no NIC"):
        load_topology("h200-shm-pair", nccl=NcclSettings(shm_disable=True)).route(0, 1)


def test_gdr_level_stages_in_host_memory():
    def through_host(**variables):
        settings = parse_nccl_settings({f"NCCL_{key}": value for key, value in variables.items()})
        topology = load_topology("dgx-h100", 16, nccl=settings)
        return any(topology.links[link].target.startswith("cpu") for link in topology.route(0, 8).links)

    assert not through_host()
    assert through_host(NET_GDR_LEVEL="LOC")


def test_values():
    settings = parse_nccl_settings({"NCCL_PROTO": "ll,Simple", "NCCL_ALGO": "^nvls", "NCCL_NET_GDR_LEVEL": "PXB"})
    assert settings.proto == ("LL", "Simple")
    assert settings.algo == ("Ring", "Tree", "CollNetDirect", "CollNetChain", "NVLSTree", "PAT")
    assert settings.net_gdr_level is PathType.PXB
    assert parse_nccl_settings({"NCCL_VERSION": "2.18.5"}).version == (2, 18)
    assert parse_nccl_settings({}) == NcclSettings()


def test_assignments():
    assert parse_nccl_assignments(["NCCL_ALGO=Ring,Tree"]).algo == ("Ring", "Tree")
    with pytest.raises(InputError, match="no value"):
        parse_nccl_assignments(["NCCL_ALGO"])


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NCCL_FOO", "1"), ("NCCL_P2P_LEVEL", "FAR"), ("NCCL_ALGO", "Star"), ("NCCL_MAX_NCHANNELS", "-1"), ("PATH", "/")]
    + [("NCCL_VERSION", "2"), ("NCCL_VERSION", "2.x"), ("NCCL_VERSION", "2.8.3")],
)
def test_bad_values(variable, value):
    with pytest.raises(InputError):
        parse_nccl_settings({variable: value})
