"""Where each number of a profile comes from.

A file lists, in ``[[source]]`` tables, terms or groups of terms (``links.nvlink`` stands for all below it), their basis
and a reference; the longest name that covers a term decides. A term that another profile is the base of keeps that
profile's source, except that what was measured on the other GPU is only an estimate for this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from traces.errors import InputError

BASES = ("calibrated", "published", "datasheet", "estimated")
MEASURED = ("calibrated", "published")


@dataclass(frozen=True)
class Source:
    """Origin of one number.

    Attributes
    ----------
    basis : ``calibrated`` (fitted here to measurements of that GPU), ``published`` (others' measurements of it),
        ``datasheet`` or ``estimated``.
    reference : where it is written down, or how it was estimated.
    relative_error : half-width of the 90 % band around a number that was fitted; None where it is unknown.
    """

    basis: str
    reference: str
    relative_error: float | None = None

    def inherited(self, base: str) -> Source:
        """The same source, for another GPU."""
        basis = "estimated" if self.basis in MEASURED else self.basis
        return replace(self, basis=basis, reference=f"as {base}: {self.reference}", relative_error=None)


def iterate_terms(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all numbers (and lists of numbers) in a file.

    >>> list(iterate_terms({"sm_count": 132, "host": {"kernel_s": 5e-6}, "name": "mine"}))
    ['sm_count', 'host.kernel_s']
    """
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from iterate_terms(value, name + ".")
        elif _is_number(value) or (isinstance(value, list) and value and all(map(_is_number, value))):
            yield name


def resolve_sources(table: Mapping[str, Any], listed: Any, file: str) -> dict[str, Source]:
    """Source of each number in a file: the listed one with the longest name, else an estimate by the file's author.

    Raises
    ------
    InputError
        Where a listed source is malformed or names no term of the file.
    """
    named = dict(_read_sources(listed, file))
    terms = list(iterate_terms(table))
    unused = [name for name in named if not any(_covers(name, term) for term in terms)]
    if unused:
        raise InputError(f"hardware file {file}: source names no number of the file", got=", ".join(unused))
    unnamed = Source("estimated", f"{file}, which names no source")
    return {term: _longest(named, term) or unnamed for term in terms}


def _read_sources(listed: Any, file: str) -> Iterator[tuple[str, Source]]:
    for number, entry in enumerate(listed if isinstance(listed, list) else [listed], 1):
        where = f"hardware file {file}: source {number}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where} is no table", expected="[[source]] with terms, basis and reference")
        terms = entry.get("terms")
        extra = entry.keys() - {"terms", "basis", "reference", "relative_error"}
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms) or extra:
            raise InputError(f"{where} is malformed", expected="terms = [names], basis, reference, relative_error")
        source = _read_source(entry, where)
        for term in terms:
            yield term, source


def _read_source(entry: Mapping[str, Any], where: str) -> Source:
    basis, reference, error = entry.get("basis"), entry.get("reference"), entry.get("relative_error")
    if basis not in BASES:
        raise InputError(f"{where} has no known basis", got=repr(basis), expected="one of " + ", ".join(BASES))
    if not isinstance(reference, str) or not reference.strip():
        raise InputError(f"{where} has no reference", got=repr(reference), expected="text")
    if error is not None and not (_is_number(error) and 0 <= error <= 10):
        raise InputError(f"{where} has a bad relative_error", got=repr(error), expected="a number of 0 to 10")
    return Source(basis, reference, error)


def _longest(named: Mapping[str, Source], term: str) -> Source | None:
    covering = [name for name in named if _covers(name, term)]
    return named[max(covering, key=len)] if covering else None


def _covers(name: str, term: str) -> bool:
    return term == name or term.startswith(name + ".")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
