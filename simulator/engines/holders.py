"""What holds memory at its peak: buffers by name, those of all layers together.

The name that a schedule or a layer gave a buffer says what it is: ``layers.3.q_proj`` a weight, ``d layers.3.q_proj``
its gradient, ``m``, ``v`` and ``master`` before it what the optimizer keeps of it (one entry); everything else that
layers and schedules make are activations and their gradients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "weight gradients", "optimizer states"
CACHE, WORKSPACE, ACTIVATIONS = "KV cache", "workspace", "activations"
_WEIGHT = r"(layers\.\d+\.\S+|embed_tokens|norm|lm_head)(, all)?$"
_CATEGORIES = (
    (rf"(m|v|master) {_WEIGHT}", OPTIMIZER),
    (rf"d {_WEIGHT}", GRADIENTS),
    (_WEIGHT, WEIGHTS),
    (r"(keys|values) \d+$", CACHE),
    (r"workspace of ", WORKSPACE),
)


@dataclass(frozen=True)
class Holder:
    """Buffers of one name, those of all layers together, and the bytes that they hold."""

    name: str
    category: str
    count: int
    bytes: int


def group_holders(buffers: Iterable[tuple[str, int]]) -> tuple[Holder, ...]:
    """Holders of some buffers (name, bytes), the largest first.

    >>> group_holders([("layers.0.q_proj", 4), ("layers.1.q_proj", 4), ("k", 5)])[0]
    Holder(name='q_proj', category='weights', count=2, bytes=8)
    """
    found: dict[str, list[int]] = {}
    category_of: dict[str, str] = {}
    for name, n_bytes in buffers:
        shown = _shown(name)
        category_of.setdefault(shown, categorise(name))
        found.setdefault(shown, []).append(n_bytes)
    holders = [Holder(name, category_of[name], len(each), sum(each)) for name, each in found.items()]
    return tuple(sorted((each for each in holders if each.bytes), key=lambda each: (-each.bytes, each.name)))


def categorise(name: str) -> str:
    """What a buffer is, by its name.

    >>> categorise("master layers.12.q_proj"), categorise("dk_i")
    ('optimizer states', 'activations')
    """
    return next((category for pattern, category in _CATEGORIES if re.match(pattern, name)), ACTIVATIONS)


def _shown(name: str) -> str:
    """Without the number of the layer.

    >>> _shown("m layers.3.q_proj"), _shown("d layers.0.up_proj"), _shown("keys 7")
    ('optimizer of q_proj', 'gradient of up_proj', 'keys')
    """
    category, plain = categorise(name), re.sub(r"\blayers\.\d+\.", "", name)
    if category == CACHE:
        return plain.partition(" ")[0]
    if category in (GRADIENTS, OPTIMIZER):
        return f"{'gradient' if category == GRADIENTS else 'optimizer'} of {plain.partition(' ')[2]}"
    return plain.replace("_", " ") if category == WORKSPACE else plain
