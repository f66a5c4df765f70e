"""A profile by name or from a TOML file, which may override terms of another: ``base = "h200-sxm"``.

With ``calibrated = false`` the base is what was published of it, without the terms that we fitted to measurements. With
``same_gpu = true`` it is the same GPU on another host: what was measured of it was measured of this one.
A whole table of the base is left out by ``name = false`` (a kernel that does not run on the GPU).

Files from outside are untrusted: bounded in size and depth, and every fault is one message that names file and term.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cost_models.hardware import HARDWARE_NAMES
from cost_models.hardware.profile import HardwareProfile
from cost_models.hardware.sources import Source, iterate_terms, resolve_sources
from traces.bounded import read_bounded
from traces.errors import InputError

MAX_FILE_BYTES = 2**20
_DATA = Path(__file__).with_name("data")


def load_hardware(name_or_path: str | Path) -> HardwareProfile:
    """Profile of a GPU.

    Parameters
    ----------
    name_or_path : one of ``HARDWARE_NAMES``, or a TOML file.

    Raises
    ------
    InputError
        Where there is no such profile, or the file is not a valid one.

    >>> load_hardware("h100-sxm").default_kernel
    'cudnn'
    """
    name = str(name_or_path)
    if name in HARDWARE_NAMES:
        return _load_named(name)
    return _build(*_read(Path(name_or_path), name), name)


def load_published(name: str) -> HardwareProfile:
    """A profile of ours without the terms that we fitted to measurements.

    >>> load_published("h100-sxm").kernels["cudnn"].forward.in_order, load_hardware("h100-sxm").name
    (False, 'h100-sxm')
    """
    return _build(*_published_table(name), name)


@cache
def _load_named(name: str) -> HardwareProfile:
    return _build(*_named_table(name), name)


def _named_table(name: str) -> tuple[dict[str, Any], dict[str, Source]]:
    """Terms of a profile of ours, with those over them that `attnsim calibrate` fitted to measurements."""
    under, sources = _published_table(name)
    calibrated = _DATA / "calibrated" / f"{name}.toml"
    if not calibrated.is_file():
        return under, sources
    table, more = _read(calibrated, f"calibrated/{name}")
    merged = _merge(under, table)
    return merged, {term: (sources | more)[term] for term in iterate_terms(merged)}


def _published_table(name: str) -> tuple[dict[str, Any], dict[str, Source]]:
    """Terms of a profile of ours as they were published or estimated."""
    return _read(_DATA / f"{name}.toml", name)


def load_with_overlay(name: str, text: str) -> HardwareProfile:
    """A profile of ours with calibrated terms that are not in its file yet.

    Parameters
    ----------
    text : TOML, as `attnsim calibrate` writes it.
    """
    under, sources = _published_table(name)
    over = _parse(text.encode(), name)
    more = resolve_sources(over, over.pop("source", []), name)
    merged = _merge(under, over)
    return _build(merged, {term: (sources | more)[term] for term in iterate_terms(merged)}, name)


def parse_hardware(text: str, name: str) -> HardwareProfile:
    """A profile that is not in a file yet.

    Parameters
    ----------
    text : TOML, as in a file.
    """
    return _build(*_resolve(_parse(text.encode(), name), name), name)


def _read(path: Path, file: str) -> tuple[dict[str, Any], dict[str, Source]]:
    """Terms of a file and of its bases, and their sources."""
    return _resolve(_parse(_read_bytes(path, file), file), file)


def _resolve(table: dict[str, Any], file: str) -> tuple[dict[str, Any], dict[str, Source]]:
    listed = table.pop("source", [])
    base, calibrated, same = table.pop("base", None), table.pop("calibrated", True), table.pop("same_gpu", False)
    sources = resolve_sources(table, listed, file)
    if base is None:
        return table, sources
    if base not in HARDWARE_NAMES or base == file:
        raise InputError(f"hardware file {file}: unknown base", got=repr(base),
                         expected="one of " + ", ".join(HARDWARE_NAMES))  # fmt: skip
    under, under_sources = _named_table(base) if calibrated else _published_table(base)
    inherited = {term: source if same else source.inherited(base) for term, source in under_sources.items()}
    merged = _merge(under, table)
    if same or file not in HARDWARE_NAMES:  # bases of our own profiles are other GPUs
        merged["base"] = base
    return merged, {term: (inherited | sources)[term] for term in iterate_terms(merged)}


def _read_bytes(path: Path, file: str) -> bytes:
    missing = InputError(
        "no such hardware", got=repr(file), expected="one of " + ", ".join(HARDWARE_NAMES) + " or a TOML file"
    )
    return read_bounded(path, f"hardware file {file}", MAX_FILE_BYTES, missing)


def _parse(data: bytes, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"hardware file {file} is not TOML", got=str(error)) from None


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on ``under``, table by table."""
    merged = dict(under)
    for key, value in over.items():
        is_table = isinstance(merged.get(key), Mapping)
        if is_table and value is False:
            del merged[key]
        else:
            merged[key] = _merge(merged[key], value) if is_table and isinstance(value, Mapping) else value
    return merged


def _build(table: dict[str, Any], sources: dict[str, Source], file: str) -> HardwareProfile:
    try:
        profile = HardwareProfile.model_validate({"name": Path(file).stem, **table})
    except ValidationError as error:
        raise _explain(error, file) from None
    profile._sources.update(sources)
    return profile


def _explain(error: ValidationError, file: str) -> InputError:
    """The first fault in one line."""
    first = error.errors(include_url=False)[0]
    term = ".".join(map(str, first["loc"])) or "its terms"
    got = None if first["type"] == "missing" or isinstance(first["input"], Mapping | tuple) else repr(first["input"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    return InputError(
        f"hardware file {file}: {term} is not valid{more}", got=got, expected=message[:1].lower() + message[1:]
    )
