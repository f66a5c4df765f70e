"""``NAME:key=value,...``, the form in which schedules, masks and topologies are named.

A value holds no comma: ``document:lengths=4k+8k,causal=true`` has two keys. Text that a dictionary would silently
repair (a key twice, an empty value) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from traces.errors import InputError


@dataclass(frozen=True)
class Spec:
    """A parsed name with options, all values still text."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name

    def only(self, allowed: Mapping[str, str] | tuple[str, ...]) -> None:
        """Refuse options that ``allowed`` does not name."""
        for key in self.options:
            if key not in allowed:
                raise InputError(
                    f"{self.name} has no option {key!r}",
                    expected="one of " + ", ".join(allowed) if allowed else "no options",
                )


def parse_spec(text: str, what: str = "name") -> Spec:
    """Split ``NAME:key=value,...``.

    >>> parse_spec("burst:ring=double,grad=bf16")
    Spec(name='burst', options={'ring': 'double', 'grad': 'bf16'})
    >>> str(parse_spec("ring"))
    'ring'
    """
    name, colon, rest = text.strip().partition(":")
    if not name or (colon and not rest):
        raise InputError(f"{what} is malformed", got=repr(text), expected="NAME or NAME:key=value,...")
    options: dict[str, str] = {}
    for item in rest.split(",") if rest else ():
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise InputError(f"{what} is malformed at {item!r}", got=repr(text), expected="NAME:key=value,...")
        if key in options:
            raise InputError(f"{what} names {key!r} twice", got=repr(text), remedy="keep one")
        options[key] = value
    return Spec(name, options)


def parse_bool(text: str, what: str) -> bool:
    """``true`` or ``false``."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise InputError(f"{what} is neither true nor false", got=repr(text), expected="true or false")
