"""NCCL's environment variables, as far as they change which way data go and over how many channels.

Defaults are those of NCCL 2.30.7; None means that NCCL decides from the topology. Older versions have fewer algorithms
(NVLS from 2.17, NVLSTree from 2.18, PAT from 2.23: release notes), and before 2.29 fewer channels of sends to other
nodes; before 2.12 channels and constants were others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from cost_models.topology.paths import PathType
from traces.errors import InputError

ALGORITHMS = ("Ring", "Tree", "CollNetDirect", "CollNetChain", "NVLS", "NVLSTree", "PAT")
PROTOCOLS = ("LL", "LL128", "Simple")
MAX_CHANNELS = 64
OLDEST_VERSION = (2, 12)
_SINCE = {"NVLS": (2, 17), "NVLSTree": (2, 18), "PAT": (2, 23)}


@dataclass(frozen=True)
class NcclSettings:
    """What a user set; the variable of each field is ``NCCL_`` and its name in capitals.

    Attributes
    ----------
    p2p_level : worst path over which GPUs talk directly. p2p_disable : never.
    shm_disable : no shared host memory; GPUs that cannot talk directly then use the network.
    shm_locality : host memory that holds the buffers between such GPUs: 1 near the sender, 2 near the receiver.
    net_gdr_level : worst path between GPU and NIC over which the NIC reads the GPU's memory.
    pxn_disable : data leave by the sender's own NIC, not by that of the receiver's rail through another GPU.
    cross_nic : 0 never, 1 always, 2 if better: a ring leaves a node by another NIC than it came in.
    min_nchannels, max_nchannels, min_ctas, max_ctas : of collectives.
    max_p2p_nchannels : of all sends and receives of a rank.
    nchannels_per_net_peer : of a send to another node.
    nvls_enable, nvls_nchannels : NVLink SHARP, and its channels.
    collnet_enable : the network reduces (SHARP); needs its plugin.
    pat_enable : 0 never, 1 always, 2 with one GPU per node.
    algo, proto : those that may be used.
    version : of NCCL, major and minor.
    """

    p2p_level: PathType | None = None
    p2p_disable: bool = False
    shm_disable: bool = False
    shm_locality: int = 2
    net_gdr_level: PathType = PathType.P2C
    pxn_disable: bool = False
    cross_nic: int = 2
    min_nchannels: int = 0
    max_nchannels: int = MAX_CHANNELS
    min_ctas: int = 1
    max_ctas: int = MAX_CHANNELS
    max_p2p_nchannels: int = MAX_CHANNELS
    nchannels_per_net_peer: int | None = None
    nvls_enable: bool = True
    nvls_nchannels: int | None = None
    collnet_enable: bool = False
    pat_enable: int = 2
    algo: tuple[str, ...] = ALGORITHMS
    proto: tuple[str, ...] = PROTOCOLS
    version: tuple[int, int] = (2, 30)

    def has(self, algorithm: str) -> bool:
        """Whether the version knows an algorithm.

        >>> NcclSettings(version=(2, 17)).has("NVLS"), NcclSettings(version=(2, 17)).has("NVLSTree")
        (True, False)
        """
        return self.version >= _SINCE.get(algorithm, OLDEST_VERSION)

    def limited(self, channels: int | None) -> NcclSettings:
        """With no more channels, where a number is given."""
        if channels is None:
            return self
        most = min(self.max_nchannels, channels), min(self.max_p2p_nchannels, channels)
        return replace(self, max_nchannels=most[0], max_p2p_nchannels=most[1])


def parse_nccl_assignments(texts: Iterable[str]) -> NcclSettings:
    """Settings from texts as ``NCCL_P2P_LEVEL=SYS``.

    Raises
    ------
    InputError
        As :func:`parse_nccl_settings`, or where a text has no value.

    >>> parse_nccl_assignments(["NCCL_MAX_CTAS=8"]).max_ctas
    8
    """
    pairs = [text.partition("=") for text in texts]
    without = [name for name, separator, _ in pairs if not separator]
    if without:
        raise InputError("NCCL variable has no value", got=without[0][:100], expected="as NCCL_P2P_LEVEL=SYS")
    return parse_nccl_settings({name.strip(): value for name, _, value in pairs})


def parse_nccl_settings(variables: Mapping[str, str]) -> NcclSettings:
    """Settings from environment variables.

    Raises
    ------
    InputError
        Where a variable is unknown here or its value is not one that NCCL takes.

    >>> settings = parse_nccl_settings({"NCCL_P2P_LEVEL": "SYS", "NCCL_ALGO": "^Tree"})
    >>> settings.p2p_level.name, settings.algo
    ('SYS', ('Ring', 'CollNetDirect', 'CollNetChain', 'NVLS', 'NVLSTree', 'PAT'))
    """
    known = {f"NCCL_{field.name.upper()}": field.name for field in fields(NcclSettings)}
    values: dict[str, Any] = {}
    for variable, text in variables.items():
        if variable not in known:
            raise InputError("NCCL variable is not modelled", got=variable, expected=", ".join(sorted(known)))
        values[known[variable]] = _READERS.get(known[variable], _number)(variable, text.strip())
    return NcclSettings(**values)


def nccl_settings_of(environment: Mapping[str, str]) -> NcclSettings:
    """Settings of a process's environment, of which some variables are not modelled.

    NCCL_VERSION is left out: containers have it for what is installed beside what runs.

    >>> nccl_settings_of({"NCCL_NVLS_ENABLE": "0", "NCCL_DEBUG": "INFO", "NCCL_VERSION": "2.28.3-1"}).nvls_enable
    False
    """
    known = {f"NCCL_{field.name.upper()}" for field in fields(NcclSettings)} - {"NCCL_VERSION"}
    return parse_nccl_settings({name: value for name, value in environment.items() if name in known})


def _level(variable: str, text: str) -> PathType:
    """By name, or by the older numbers 0 to 5."""
    names = ["LOC", "PIX", "PXB", "PHB", "PHB", "SYS"]
    name = names[min(int(text), 5)] if text.isdecimal() else {"NODE": "PHB"}.get(text.upper(), text.upper())
    allowed = ("LOC", "NVL", "PIX", "PXB", "P2C", "PXN", "PHB", "SYS")
    if name not in allowed:
        raise InputError(f"{variable} is not a level", got=repr(text), expected="one of " + ", ".join(allowed))
    return PathType[name]


def _side(variable: str, text: str) -> int:
    if text not in ("1", "2"):
        raise InputError(f"{variable} is not a side", got=repr(text[:100]), expected="1 (sender) or 2 (receiver)")
    return int(text)


def _flag(variable: str, text: str) -> bool:
    return _number(variable, text) != 0


def _number(variable: str, text: str) -> int:
    if not text.isdecimal() or int(text) > 2**20:
        raise InputError(f"{variable} is not a whole number", got=repr(text[:100]))
    return int(text)


def _version(variable: str, text: str) -> tuple[int, int]:
    """As 2.27.3."""
    parts = text.split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isdecimal() and len(part) < 4 for part in parts):
        raise InputError(f"{variable} is not a version", got=repr(text[:100]), expected="as 2.27.3")
    version = int(parts[0]), int(parts[1])
    if version < OLDEST_VERSION:
        raise InputError(
            f"NCCL {text} is not modelled", expected="2.12 or later, whose channels and constants are known"
        )
    return version


def _choice(names: tuple[str, ...]) -> Callable[[str, str], tuple[str, ...]]:
    """``Ring,Tree``, or ``^Tree`` for all others."""

    def read(variable: str, text: str) -> tuple[str, ...]:
        listed = [each.strip().lower() for each in text.removeprefix("^").split(",")]
        if not set(listed) <= {name.lower() for name in names}:
            raise InputError(f"{variable} names what NCCL does not have", got=repr(text), expected=", ".join(names))
        return tuple(name for name in names if (name.lower() in listed) != text.startswith("^"))

    return read


_READERS: dict[str, Callable[[str, str], Any]] = {
    "p2p_level": _level,
    "net_gdr_level": _level,
    "p2p_disable": _flag,
    "shm_disable": _flag,
    "shm_locality": _side,
    "pxn_disable": _flag,
    "nvls_enable": _flag,
    "collnet_enable": _flag,
    "algo": _choice(ALGORITHMS),
    "proto": _choice(PROTOCOLS),
    "version": _version,
}
