"""The file of calibrated terms of a profile: TOML that `cost_models.hardware.load` lays over the profile's own file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cost_models.calibration.memory import shares_of

if TYPE_CHECKING:
    from cost_models.calibration.fit import Calibration, FittedPass

HEADER = """\
# Made by `attnsim calibrate`; do not edit. Terms fitted to measurements of this GPU, laid over {name}.toml.
"""
BASE_HEAD_DIM = 128
"""Head dim whose fit is the kernel's pass for all head dims that have none of their own."""


def render_overlay(calibration: Calibration, reference: str) -> str:
    """TOML text of all fitted terms, with a source and an error for each."""
    blocks = [HEADER.format(name=calibration.hardware)]
    sources = []
    if calibration.calls:
        blocks.append(f"call_error = {_number(calibration.calls['call_error'])}\n")
    for kernel in sorted({fitted.key[0] for fitted in calibration.passes}):
        for fitted in (each for each in calibration.passes if each.key[0] == kernel):
            name = _name(fitted)
            blocks.append(f"[{name}]\n" + "".join(_terms(fitted, calibration)))
            sources.append(_source([name], reference, _band(fitted)))
    blocks += _memory(calibration)
    sources += _memory_sources(calibration, reference)
    return "\n".join([*blocks, *sources])


def _name(fitted: FittedPass) -> str:
    kernel, direction, head_dim = fitted.key
    middle = "" if head_dim == BASE_HEAD_DIM else f".head_dims.{head_dim}"
    return f"kernels.{kernel}{middle}.{direction}"


def _terms(fitted: FittedPass, calibration: Calibration) -> Iterator[str]:
    kernel, direction, _ = fitted.key
    for name, value in fitted.fit.curve.model_dump(exclude={"host_s"}, exclude_none=True).items():
        if name == "efficiency":
            yield "efficiency = { " + ", ".join(f"{dim} = {share:.4g}" for dim, share in value) + " }\n"
        elif isinstance(value, tuple):
            yield f"{name} = [{', '.join(map(str, value))}]\n"
        elif isinstance(value, bool):
            yield f"{name} = {str(value).lower()}\n"
        elif isinstance(value, float):
            yield f"{name} = {_number(value)}\n"
        elif value is not None:
            yield f"{name} = {value}\n"
    if direction == "forward" and kernel in calibration.read_shares:
        yield f"read_share = {_number(calibration.read_shares[kernel])}\n"
    host = calibration.host.attention.get(f"{kernel}.{direction}")
    if host is not None:
        yield f"host_s = {_number(host)}\n"


def _memory(calibration: Calibration) -> Iterator[str]:
    if calibration.elementwise:
        shares = shares_of(calibration.elementwise)
        yield f"[elementwise]\noverhead_s = {_number(calibration.elementwise['overhead_s'].value)}\n"
        yield "[elementwise.efficiency]\n" + "".join(f"{name} = {share:.4g}\n" for name, share in shares.items())
    if calibration.gemm:
        limit = calibration.power.products if calibration.power else {}
        terms = {**{name: each.value for name, each in calibration.gemm.items()}, **limit}
        yield "[gemm]\n" + "".join(f"{name} = {_number(value)}\n" for name, value in terms.items())
    if calibration.power:
        terms = calibration.power.control.model_dump()
        yield "[power]\n" + "".join(f"{name} = {_number(value)}\n" for name, value in terms.items())
    yield from _host(calibration)


def _host(calibration: Calibration) -> Iterator[str]:
    if not calibration.host.terms:
        return
    calls = {name: value for name, value in calibration.calls.items() if name in ("isolated", "isolated_error")}
    yield "[host]\n" + "".join(f"{name} = {_number(s)}\n" for name, s in {**calibration.host.terms, **calls}.items())
    for name, table in calibration.host.tables.items():
        yield f"[host.{name}]\n" + "".join(f"{kind} = {_number(s)}\n" for kind, s in sorted(table.items()))


def _memory_sources(calibration: Calibration, reference: str) -> Iterator[str]:
    names = [f"elementwise.efficiency.{name}" for name in shares_of(calibration.elementwise)]
    names += ["elementwise.overhead_s"] if calibration.elementwise else []
    names += [f"gemm.{name}" for name in calibration.gemm]
    names += [f"host.{name}" for name in calibration.host.terms]
    names += [f"host.{name}.{kind}" for name, table in calibration.host.tables.items() for kind in sorted(table)]
    if names:
        yield _source(names, reference, None)
    if calibration.power:
        limit = [f"gemm.{name}" for name in calibration.power.products]
        control = [f"power.{name}" for name in calibration.power.control.model_dump()]
        yield _source([*limit, *control], reference, None)
    if calibration.calls:
        yield _source(["call_error", "host.isolated", "host.isolated_error"], calibration.calls_reference, None)


def _source(terms: list[str], reference: str, error: float | None) -> str:
    listed = ", ".join(f'"{term}"' for term in terms)
    band = "" if error is None else f"relative_error = {error:.3g}\n"
    return f'[[source]]\nterms = [{listed}]\nbasis = "calibrated"\nreference = "{reference}"\n{band}'


def _band(fitted: FittedPass) -> float:
    """Half-width that 90 % of the errors on left-out lengths stay within."""
    errors = fitted.lengths or fitted.inside
    return max(errors.p90, 1e-3)


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return text if any(mark in text for mark in ".e") else text + ".0"
