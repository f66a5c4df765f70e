"""From a name or a file to a cluster of the ranks asked for.

A node of a file or preset is repeated over the nodes; ranks fill nodes in order, and where a node has more GPUs than
ranks its first GPUs are taken, as under CUDA_VISIBLE_DEVICES. A file of several hosts gives each node its own host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cost_models.spec import Spec, parse_spec
from cost_models.topology.cluster import ClusterTopology
from cost_models.topology.fabric import Fabric
from cost_models.topology.machine import Machine
from cost_models.topology.nccl_settings import NcclSettings
from cost_models.topology.nccl_xml import read_nccl_xml
from cost_models.topology.paths import DeviceKind
from cost_models.topology.presets import PRESETS, channels_of, fabric_of, preset_host
from cost_models.topology.smi_topo import read_smi_topo
from cost_models.topology.tree import Host, build_machine
from traces.bounded import read_bounded
from traces.errors import InputError

MAX_FILE_BYTES = 4 * 2**20
MAX_RANKS = 2**20


@dataclass(frozen=True)
class _Nodes:
    """What a name or file says, before ranks are placed."""

    name: str
    source: str
    gpu: str | None
    hosts: tuple[Host, ...]
    fabric: Fabric
    warnings: tuple[str, ...] = ()
    repeatable: bool = True
    channels: int | None = None


def load_topology(
    name_or_path: str | Path,
    n_ranks: int | None = None,
    nodes: int | None = None,
    gpu: str | None = None,
    nccl: NcclSettings | None = None,
    host_numa: str | None = None,
) -> ClusterTopology:
    """Cluster from a preset or a file.

    Parameters
    ----------
    name_or_path : preset with options, as ``dgx-h100:fabric=fat-tree,oversubscription=2``; or a file: NCCL topology XML
        (``NCCL_TOPO_DUMP_FILE``), otherwise the text of ``nvidia-smi topo -m``.
    n_ranks : GPUs in use; default all of ``nodes`` nodes.
    nodes : nodes in use; default as few as hold ``n_ranks``, or all hosts of the file.
    gpu : hardware name of the GPUs, where the file does not say it.
    nccl : NCCL's environment variables, default none set.
    host_numa : NUMA node of each host to which the processes are bound, so that buffers in host memory lie there
        (``mpirun -np 2`` binds both processes to the first cores); default each process near its GPU.

    Raises
    ------
    InputError
        What cannot be read, does not exist, or does not hold the ranks.

    >>> topology = load_topology("dgx-h100", n_ranks=16)
    >>> topology.n_nodes, topology.gpu, topology.route(0, 8).kind
    (2, 'h100-sxm', 'net')
    """
    found = _find(name_or_path, gpu)
    available = [len(host.gpus()) for host in found.hosts]
    node_count = _node_count(found, available, n_ranks, nodes)
    per_node = _per_node(found, available, n_ranks, node_count)
    machines, machine_of_node = _place(found.hosts, per_node, node_count)
    machines = tuple(_bind(machine, host_numa) for machine in machines)
    if node_count > 1 and not all(machine.nets for machine in machines):
        raise InputError(
            f"{found.name} has no network port, so that its node cannot be one of several",
            got=f"{node_count} nodes",
            remedy="ask for one node, or give a file with NICs or a preset",
        )
    return ClusterTopology(
        name=found.name,
        source=found.source,
        gpu=found.gpu,
        n_ranks=per_node * node_count,
        ranks_per_node=per_node,
        gpus_per_node=min(available),
        machines=machines,
        machine_of_node=machine_of_node,
        fabric=found.fabric if node_count > 1 else None,
        warnings=found.warnings,
        nccl=(nccl or NcclSettings()).limited(found.channels),
    )


def _bind(machine: Machine, host_numa: str | None) -> Machine:
    labels = [machine.devices[cpu].label for cpu in machine.devices_of(DeviceKind.CPU)]
    if host_numa is not None and host_numa not in labels:
        raise InputError("no such NUMA node", got=host_numa, expected="one of " + ", ".join(labels))
    return replace(machine, host_numa=host_numa)


def _find(name_or_path: str | Path, gpu: str | None) -> _Nodes:
    text = str(name_or_path)
    spec = parse_spec(text, "topology") if isinstance(name_or_path, str) and _names_preset(text) else None
    if spec is not None:
        return _from_preset(spec, gpu)
    path = Path(name_or_path)
    if not _is_file(path):
        raise InputError(
            "no such topology",
            got=repr(text[:100]),
            expected="a preset (" + ", ".join(PRESETS) + ") or a file",
        )
    return _from_file(path, gpu)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def _names_preset(text: str) -> bool:
    return text.strip().partition(":")[0] in PRESETS


def _from_preset(spec: Spec, gpu: str | None) -> _Nodes:
    host, preset, chosen = preset_host(spec, gpu)
    return _Nodes(str(spec), preset.source, chosen, (host,), fabric_of(spec), channels=channels_of(spec))


def _from_file(path: Path, gpu: str | None) -> _Nodes:
    content = read_bounded(path, f"topology file {path}", MAX_FILE_BYTES).strip()
    if content.startswith((b"<", b"\xef\xbb\xbf<")):
        hosts, warnings = read_nccl_xml(content, gpu)
        source = f"NCCL topology XML, {path}"
    else:
        host, warnings = read_smi_topo(content, gpu)
        hosts, source = (host,), f"nvidia-smi topo -m, {path}"
    model = hosts[0].gpu_model
    hardware = gpu or (model.hardware if model else None)
    return _Nodes(str(path), source, hardware, hosts, Fabric(), tuple(warnings), repeatable=len(hosts) == 1)


def _node_count(found: _Nodes, available: list[int], n_ranks: int | None, nodes: int | None) -> int:
    for what, value in (("ranks", n_ranks), ("nodes", nodes)):
        if value is not None and not 1 <= value <= MAX_RANKS:
            raise InputError(f"number of {what} is out of range", got=value, expected=f"1 to {MAX_RANKS:,}")
    default = len(available) if n_ranks is None else -(-n_ranks // min(available))
    count = default if nodes is None else nodes
    if not found.repeatable and count > len(available):
        raise InputError(
            f"{found.name} describes {len(available)} hosts",
            got=f"{count} nodes",
            remedy="ask for fewer ranks, or give a file of one host, which is repeated",
        )
    return count


def _per_node(found: _Nodes, available: list[int], n_ranks: int | None, nodes: int) -> int:
    least = min(available[:nodes])
    if n_ranks is None:
        return least
    per_node, rest = divmod(n_ranks, nodes)
    if rest or per_node > least:
        raise InputError(
            f"ranks do not fit on the nodes of {found.name}",
            got=f"{n_ranks} ranks on {nodes} nodes",
            expected=f"a multiple of {nodes}, at most {least} per node",
            remedy=f"ask for {nodes * min(least, per_node + bool(rest))} ranks or other nodes",
        )
    return per_node


def _place(hosts: tuple[Host, ...], per_node: int, nodes: int) -> tuple[tuple[Machine, ...], tuple[int, ...]]:
    machines = tuple(build_machine(host).take(per_node) for host in hosts[:nodes])
    if len(hosts) == 1:
        return machines, (0,) * nodes
    return machines, tuple(range(nodes))
