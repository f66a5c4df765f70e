"""What is asked for, and its check before anything runs.

A :class:`SimulationRequest` holds the contract's options as the user gave them, text or objects. Its ``resolve()``
loads what they name, refuses what contradicts itself, and fills in the defaults that need no simulation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cost_models.finetuning.rollouts import prune
from cost_models.masks import Mask, parse_mask
from cost_models.models import ModelShape, load_model
from cost_models.spec import Spec, parse_spec
from cost_models.topology import ClusterTopology, load_topology, parse_nccl_assignments
from cost_models.topology.gpus import model_of_hardware
from cost_models.topology.presets import PRESETS
from cost_models.units import parse_count
from cost_models.variation import Variation, parse_variation
from cost_models.workload import AttentionWorkload
from simulator.asked import RequestFields
from simulator.faults import FaultOptions
from simulator.steps.plan import StepOptions
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

PASSES = {
    "attention": ("both", "forward", "backward"),
    "layer": ("both", "forward", "backward"),
    "model": ("step", "prefill", "decode"),
}
"""Passes of each choice of layers, the default first (for attention and layer the schedule may have another)."""

LAYER_OPTIONS = ("tp", "placement", "tp_version", "checkpoint", "ep", "routing", "capacity")
"""Of the options of steps, those that one layer has."""

ENGINES = ("auto", "maxplus", "des")
KEPT_TOPOLOGIES = 16
Stamp = tuple[int, int] | None

MOST_GPUS = 2**18
"""Ulysses on as many takes 2 s, a ring on 2^14 takes 8 s and four times as long on twice as many."""


@dataclass(frozen=True, kw_only=True)
class SimulationRequest(RequestFields):
    """One question to the simulator, as asked; `simulator.asked` says what its fields are."""

    @property
    def faults(self) -> FaultOptions:
        """What is wrong with the cluster, and how much durations vary."""
        return FaultOptions(**{each.name: getattr(self, each.name) for each in fields(FaultOptions)})

    def resolve(self) -> ResolvedRequest:
        """Load and check everything that needs no simulation.

        Raises
        ------
        InputError
            For the first option that is wrong or contradicts another.

        >>> request = SimulationRequest(heads=32, kv_heads=8, head_dim=128, seq_len="8k", gpus=2, topology="dgx-h100")
        >>> resolved = request.resolve()
        >>> resolved.workload.seq_len, resolved.hardware, resolved.topology.n_nodes
        (8192, 'h100-sxm', 1)
        """
        _check_choices(self)
        shape = _load_shape(self)
        topology = self.faults.apply(_load_topology(self))
        self.faults.check(topology.n_ranks)
        hardware = _hardware(self, topology)
        if self.what_if:
            variation = parse_variation(self.what_if)
            hardware = variation.profile(_load_profile(hardware))
            topology = _vary_topology(topology, variation.of_links)
        return ResolvedRequest(
            request=self,
            schedule=None if self.schedule is None else parse_spec(self.schedule, "schedule"),
            model=shape,
            workload=_workload(self, shape),
            topology=topology,
            hardware=hardware,
        )


@dataclass(frozen=True)
class ResolvedRequest:
    """A request whose options are loaded and agree.

    Attributes
    ----------
    request : as it was asked; its ``pass_`` and ``kernel`` are None where schedule and hardware decide.
    schedule : parsed, None where all are compared.
    model : shape, None where heads were given.
    workload, topology : what is computed, and where.
    hardware : name or file of the profile, or the profile itself.
    """

    request: SimulationRequest
    schedule: Spec | None
    model: ModelShape | None
    workload: AttentionWorkload
    topology: ClusterTopology
    hardware: str | HardwareProfile

    @property
    def inputs(self) -> dict[str, Any]:
        """The options that reproduce this run, defaults filled in, as JSON holds them."""
        workload, topology = self.workload, self.topology
        heads = {"heads": workload.heads, "kv_heads": workload.kv_heads, "head_dim": workload.head_dim}
        return {
            "schedule": None if self.schedule is None else str(self.schedule),
            **({"model": self.model.name} if self.model else heads),
            "seq_len": workload.seq_len,
            "gpus": topology.n_ranks,
            "nodes": topology.n_nodes,
            "hardware": self.hardware if isinstance(self.hardware, str) else self.hardware.name,
            "topology": topology.name,
            **({"nccl": list(self.request.nccl)} if self.request.nccl else {}),
            **({"host_numa": self.request.host_numa} if self.request.host_numa else {}),
            "batch": workload.batch,
            "dtype": workload.dtype,
            "mask": str(workload.mask),
            "layers": self.request.layers,
            "pass": self.request.pass_,
            "kernel": self.request.kernel,
            "allocator_slack": self.allocator_slack,
            **({"prune": self.request.prune} if self.request.prune else {}),
            "engine": self.request.engine,
            "interference": self.request.interference,
            **({} if self.request.layers == "attention" else asdict(self.step_options)),
            **self.request.faults.given,
            **({"what_if": self.request.what_if} if self.request.what_if else {}),
        }

    @property
    def profile(self) -> HardwareProfile:
        """The profile of the GPU, loaded."""
        return _load_profile(self.hardware)

    @property
    def allocator_slack(self) -> float:
        """Memory that the allocator takes over what tensors have."""
        if self.request.allocator_slack is not None:
            return self.request.allocator_slack
        trains = self.request.layers != "attention" and self.request.pass_ not in ("forward", "prefill", "decode")
        return self.profile.allocator_slack if trains else 1.0

    @property
    def room_bytes(self) -> int:
        """Memory that a GPU has for tensors: what is usable, less the allocator's slack."""
        return int(self.profile.usable_memory_bytes / self.allocator_slack)

    @property
    def step_options(self) -> StepOptions:
        """How a layer or a model is parallelised, and what it keeps."""
        return StepOptions(**{each.name: getattr(self.request, each.name) for each in fields(StepOptions)})

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of how the request was understood."""
        window = self.model.sliding_window if self.model else None
        if self.model is None or window is None or window >= self.workload.seq_len:
            return self.topology.warnings
        text = (
            f"{self.model.sliding_layers} of {self.model.layers} layers of {self.model.name} have a window of {window} "
        )
        return (*self.topology.warnings, text + f"tokens; simulated is the mask {self.workload.mask}")


def _check_choices(request: SimulationRequest) -> None:
    _check_choice("layers", request.layers, tuple(PASSES))
    if request.layers != "attention" and request.model is None:
        raise InputError(f"layers {request.layers} needs a model", remedy="name one instead of heads and head_dim")
    _check_parallel(request)
    if request.allocator_slack is not None and not 1 <= request.allocator_slack <= 10:
        raise InputError("allocator_slack is out of range", got=request.allocator_slack, expected="1 to 10")
    passes = PASSES[request.layers]
    if request.pass_ is not None and request.pass_ not in passes:
        raise InputError(
            f"pass does not go with layers {request.layers}", got=request.pass_, expected="one of " + ", ".join(passes)
        )
    _check_choice("engine", request.engine, ENGINES)
    for name in ("gpus", "batch", "nodes", "heads", "kv_heads", "head_dim"):
        _check_positive(name, getattr(request, name))
    if request.gpus > MOST_GPUS:
        raise InputError("too many gpus", got=request.gpus, expected=f"at most {MOST_GPUS}",
                         remedy="simulate one context parallel group, or a replica of the model")  # fmt: skip
    if request.nodes is not None and request.gpus % request.nodes:
        raise InputError("nodes does not divide gpus", got=f"{request.gpus} gpus on {request.nodes} nodes")


def _check_parallel(request: SimulationRequest) -> None:
    """Refuse options of steps that the layers asked for do not have."""
    if request.layers == "model":
        return
    allowed = LAYER_OPTIONS if request.layers == "layer" else ()
    for each in fields(StepOptions):
        value = getattr(request, each.name)
        if value != each.default and each.name not in allowed:
            raise InputError(f"{each.name} does not go with layers {request.layers}", got=value,
                             remedy="ask for layers model")  # fmt: skip


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"unknown {name}", got=repr(value), expected="one of " + ", ".join(choices))


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name} is not a positive whole number", got=repr(value))


def _load_shape(request: SimulationRequest) -> ModelShape | None:
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


def _workload(request: SimulationRequest, shape: ModelShape | None) -> AttentionWorkload:
    seq_len = parse_count(request.seq_len, "seq_len")
    mask = request.mask if isinstance(request.mask, Mask) else parse_mask(request.mask, seq_len)
    if shape is not None:
        dims = (shape.heads, shape.kv_heads, shape.head_dim, shape.v_head_dim)
    else:
        heads, head_dim = request.heads or 0, request.head_dim or 0
        dims = (heads, request.kv_heads or heads, head_dim, head_dim)
    return AttentionWorkload(request.batch, seq_len, *dims, request.dtype, mask)


def _load_topology(request: SimulationRequest) -> ClusterTopology:
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
def _vary_topology(topology: ClusterTopology, factors: tuple[tuple[str, float], ...]) -> ClusterTopology:
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
        return hardware if hardware is None or Path(hardware).suffix != ".toml" else None
    return hardware.name if model_of_hardware(hardware.name) else None


def _preset_of(gpu: str | None) -> str:
    for name, preset in PRESETS.items():
        if gpu in (preset.gpu, *preset.other_gpus):
            return name
    what = f"no preset topology has {gpu} GPUs" if gpu else "neither topology nor hardware is given"
    raise InputError(what, expected="topology: one of " + ", ".join(PRESETS) + " or a file")


def _hardware(request: SimulationRequest, topology: ClusterTopology) -> str | HardwareProfile:
    hardware = request.hardware or topology.gpu
    if hardware is None:
        raise InputError(f"topology {topology.name} does not say which GPU it has", remedy="name the hardware")
    return hardware


def _load_profile(hardware: str | HardwareProfile) -> HardwareProfile:
    from cost_models.hardware import load_hardware

    return load_hardware(hardware) if isinstance(hardware, str) else hardware
