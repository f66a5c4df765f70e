"""What a request names, loaded: model, mask, cluster and GPU; objects are taken as they are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cost_models.finetuning.rollouts import prune
from cost_models.hardware import GPU_OF
from cost_models.masks import Mask, parse_mask
from cost_models.models import ModelShape, load_model
from cost_models.spec import parse_spec
from cost_models.topology import ClusterTopology, load_topology, parse_nccl_assignments
from cost_models.topology.gpus import model_of_hardware
from cost_models.topology.presets import PRESETS
from cost_models.units import parse_count
from cost_models.variation import Variation
from cost_models.workload import AttentionWorkload
from simulator.asked import RequestFields
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

KEPT_TOPOLOGIES = 16
Stamp = tuple[int, int] | None


def shape_of(request: RequestFields) -> ModelShape | None:
    """The model, or None where heads are given; never both, never neither."""
    given = [name for name in ("heads", "kv_heads", "head_dim") if getattr(request, name) is not None]
    if request.model is not None and given:
        raise InputError(f"both model and {given[0]} are given", expected="one of the two", remedy="leave one out")
    if request.model is not None:
        shape = request.model if isinstance(request.model, ModelShape) else load_model(request.model)
        return prune(shape, **_shares(request.prune)) if request.prune else shape
    if request.prune:
        raise InputError("only models are pruned", got=request.prune, remedy="name a model")
    if request.heads is None or request.head_dim is None:
        got = " and ".join(given) or "neither"
        raise InputError("attention has no shape", got=got, expected="model, or heads, kv_heads and head_dim")
    return None


def _shares(text: str) -> dict[str, float]:
    spec = parse_spec(f"prune:{text}", "prune")
    spec.only(("heads", "neurons"))
    try:
        return {name: float(value) for name, value in spec.options.items()}
    except ValueError:
        raise InputError("prune names no shares", got=repr(text), expected="heads=0.5,neurons=0.75") from None


def workload_of(request: RequestFields, shape: ModelShape | None) -> AttentionWorkload:
    """Attention that is computed."""
    seq_len = parse_count(request.seq_len, "seq_len")
    mask = request.mask if isinstance(request.mask, Mask) else parse_mask(request.mask, seq_len)
    if shape is not None:
        dims = (shape.heads, shape.kv_heads, shape.head_dim, shape.v_head_dim)
    else:
        heads, head_dim = request.heads or 0, request.head_dim or 0
        dims = (heads, request.kv_heads or heads, head_dim, head_dim)
    return AttentionWorkload(request.batch, seq_len, *dims, request.dtype, mask)


def cluster_of(request: RequestFields) -> ClusterTopology:
    """The cluster: the object that is given, or what its name or that of the GPU means."""
    given = request.topology
    if isinstance(given, ClusterTopology):
        if request.nccl:
            raise InputError("a topology object has NCCL's variables of its own", got=", ".join(request.nccl))
        if request.host_numa:
            raise InputError("a topology object says itself where processes are bound", got=request.host_numa)
        if (given.n_ranks, given.n_nodes) != (request.gpus, request.nodes or given.n_nodes):
            raise InputError(
                "topology does not have the ranks asked for", got=f"{given.n_ranks} on {given.n_nodes} nodes",
                expected=f"{request.gpus} on {request.nodes or given.n_nodes}",
            )  # fmt: skip
        return given
    gpu = _gpu_name(request.hardware)
    name = str(given if given is not None else _preset_of(gpu))
    return _find_topology(
        name, file_stamp(name), request.gpus, request.nodes, gpu, tuple(request.nccl), request.host_numa
    )


@lru_cache(maxsize=KEPT_TOPOLOGIES)
def _find_topology(
    name: str,
    _stamp: Stamp,
    gpus: int,
    nodes: int | None,
    gpu: str | None,
    nccl: tuple[str, ...],
    host_numa: str | None,
) -> ClusterTopology:
    """The same object for the same question: it knows its routes, and NCCL's channels are found once for it."""
    return load_topology(name, gpus, nodes, gpu, parse_nccl_assignments(nccl), host_numa)


@lru_cache(maxsize=KEPT_TOPOLOGIES)
def vary_topology(topology: ClusterTopology, factors: tuple[tuple[str, float], ...]) -> ClusterTopology:
    """The cluster with scaled rates, the same object for the same question."""
    return Variation(dict(factors)).topology(topology)


def file_stamp(name: str) -> Stamp:
    """When a file was changed, and its size; None where none is meant."""
    try:
        found = Path(name).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


def _gpu_name(hardware: str | HardwareProfile | None) -> str | None:
    """The GPU that is named; None where it is a file or profile of the user's, which may describe any."""
    if hardware is None or isinstance(hardware, str):
        named = hardware if hardware is None or Path(hardware).suffix != ".toml" else None
        return None if named is None else GPU_OF.get(named, named)
    name = GPU_OF.get(hardware.name, hardware.name)
    return name if model_of_hardware(name) else None


def _preset_of(gpu: str | None) -> str:
    for name, preset in PRESETS.items():
        if gpu in (preset.gpu, *preset.other_gpus):
            return name
    what = f"no preset topology has {gpu} GPUs" if gpu else "neither topology nor hardware is given"
    raise InputError(what, expected="topology: one of " + ", ".join(PRESETS) + " or a file")


def gpu_of(request: RequestFields, topology: ClusterTopology) -> str | HardwareProfile:
    """The GPU that is named, or that of the cluster."""
    hardware = request.hardware or topology.gpu
    if hardware is None:
        raise InputError(f"topology {topology.name} does not say which GPU it has", remedy="name the hardware")
    return hardware


def load_profile(hardware: str | HardwareProfile) -> HardwareProfile:
    """A profile by its name, or as it is."""
    from cost_models.hardware import load_hardware

    return load_hardware(hardware) if isinstance(hardware, str) else hardware
