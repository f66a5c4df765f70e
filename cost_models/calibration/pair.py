"""The profile of GPUs on a host with measured links: the GPU's own, with links, host and intervals of that host.

links   fitted to exchanges and collectives (`cost_models.calibration.network`)
host    what operations take to issue there, measured or of another host, times a factor; hops and collectives
calls   what whole calls are off by beyond the terms' own errors, by kind of link
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cost_models.calibration.holdout import Errors
from cost_models.calibration.network import LinkFit, PairFit
from cost_models.calibration.regimes import FASTEST, RegimesFit

_IN_CURVE = {"start_s": "start_s", "step_s": "step_s", "efficiency": "collective_efficiency"}


@dataclass(frozen=True)
class HostOfPair:
    """Terms of `HostCosts`, and where they are from.

    Attributes
    ----------
    terms, tables : numbers of ``[host]``, and of its tables.
    reference, basis : of the tables. calls_reference : of what was fitted to whole calls.
    shares : of the rate that communication keeps beside kernels (`InterferenceTerms.communication_share`).
    call_errors : half-widths of the band of whole calls, by kind of link.
    """

    terms: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reference: str = ""
    basis: str = "calibrated"
    calls: Mapping[str, float] = field(default_factory=dict)
    call_errors: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    calls_reference: str = ""


def render_pair(
    pairs: Sequence[PairFit], links: Sequence[LinkFit], hardware: str, reference: str, host: HostOfPair | None = None
) -> str:
    """TOML of a profile that has these links, and what is known of the host, and all else of ``hardware``.

    Parameters
    ----------
    pairs : fits of two ranks. links : of more.
    """
    host = host or HostOfPair()
    blocks = [f'# Made by `attnsim calibrate --network`; do not edit.\nbase = "{hardware}"\nsame_gpu = true\n']
    for kind, terms in _links(pairs, links).items():
        terms |= {"call_error": host.call_errors[kind]} if kind in host.call_errors else {}
        blocks.append(f"[links.{kind}]\n" + "".join(f"{name} = {value:.4g}\n" for name, value in terms.items()))
    for pair in pairs:
        blocks += [_regimes(f"pairs.{pair.link}.{name}", fit) for name, fit in pair.operations.items()]
    blocks += _host(host)
    for pair in pairs:
        blocks.append(_source([f"pairs.{pair.link}"], "calibrated", f"{reference}: {pair.link}", pair.error))
    for kind in _links(pairs, links):
        blocks.append(_source([f"links.{kind}"], "calibrated", f"{reference}: {kind}", _error(kind, pairs, links)))
    return "\n".join([*blocks, *_host_sources(host)])


def _links(pairs: Sequence[PairFit], links: Sequence[LinkFit]) -> dict[str, dict[str, float]]:
    """Terms of `LinkCurve` by kind: of more than two ranks all, else the share of the wires."""
    found: dict[str, dict[str, float]] = {}
    for pair in pairs:
        terms = found.setdefault(pair.kind, {"efficiency": 0.0})
        terms["efficiency"] = max(terms["efficiency"], pair.efficiency)
    for fit in links:
        found[fit.kind] = {name: each.value for name, each in fit.curve.items()}
        found[fit.kind] |= {_IN_CURVE[name]: each.value for name, each in fit.terms.items()}
    return found


def _error(kind: str, pairs: Sequence[PairFit], links: Sequence[LinkFit]) -> float:
    errors = [each.p90 for fit in links if fit.kind == kind for each in fit.left_out.values()]
    return max([*errors, *(pair.error for pair in pairs if pair.kind == kind)], default=0.3)


def _regimes(name: str, fit: RegimesFit) -> str:
    terms = fit.regimes.model_dump()
    return f"[{name}]\n" + "".join(
        f"{term} = [{', '.join(f'{value:.6g}' for value in values)}]\n" for term, values in terms.items()
    )


def _host(host: HostOfPair) -> Iterator[str]:
    values = {**host.terms, **host.calls}
    if values:
        yield "[host]\n" + "".join(f"{name} = {value:.4g}\n" for name, value in values.items())
    if host.shares:
        shares = "".join(f"{name} = {share:.3g}\n" for name, share in sorted(host.shares.items()))
        yield f"[interference.communication_share]\n{shares}"
    for name, table in host.tables.items():
        yield f"[host.{name}]\n" + "".join(f"{kind} = {s:.4g}\n" for kind, s in sorted(table.items()))


def _host_sources(host: HostOfPair) -> Iterator[str]:
    terms = [f"host.{name}" for name in host.terms]
    terms += [f"host.{name}.{kind}" for name, table in host.tables.items() for kind in sorted(table)]
    if terms:
        yield _source(terms, host.basis, host.reference)
    fitted = [f"host.{name}" for name in host.calls]
    fitted += [f"interference.communication_share.{name}" for name in sorted(host.shares)]
    fitted += [f"links.{kind}.call_error" for kind in host.call_errors]
    if fitted:
        yield _source(fitted, "calibrated", host.calls_reference)


def _source(terms: Sequence[str], basis: str, reference: str, error: float | None = None) -> str:
    listed = ", ".join(f'"{term}"' for term in terms)
    band = "" if error is None else f"relative_error = {error:.3g}\n"
    return f'[[source]]\nterms = [{listed}]\nbasis = "{basis}"\nreference = "{reference}"\n{band}'


def render_pair_report(pairs: Sequence[PairFit], links: Sequence[LinkFit], host: HostOfPair | None = None) -> str:
    """Markdown: parameters with their 90 % intervals, errors on sizes left out, and terms of calls."""
    parts = [line for pair in pairs for line in _report_pair(pair)]
    parts += [line for fit in links for line in _report_link(fit)]
    if host is not None and host.calls:
        parts.append(f"## Calls ({host.calls_reference})\n\n| term | value |\n|---|---|")
        parts += [f"| {name} | {value:.4g} |" for name, value in host.calls.items()]
        parts += [f"| share of communication beside {name} | {value:.3g} |" for name, value in host.shares.items()]
        parts += [f"| call_error over {kind} | {value:.3g} |" for kind, value in host.call_errors.items()]
        parts.append("")
    return "\n".join(parts) + "\n"


def _report_pair(pair: PairFit) -> Iterator[str]:
    yield f"## {pair.link}, two ranks\n"
    yield "| operation | from bytes | latency, us | GB/s |\n|---|---|---|---|"
    for name, fit in pair.operations.items():
        r = fit.regimes
        columns = zip(r.from_bytes, r.latency_s, r.bytes_per_s, fit.half_widths, strict=True)
        for number, (size, latency_s, rate, (half_latency, half_slope)) in enumerate(columns):
            half_rate = half_slope * rate**2
            rates = f"{rate / 1e9:.1f} +- {half_rate / 1e9:.1g}" if rate < FASTEST else "-"
            latency = f"{latency_s * 1e6:.1f} +- {half_latency * 1e6:.1g}"
            yield f"| {'' if number else name} | {size:,.0f} | {latency} | {rates} |"
    yield "\n| sizes left out | number | median error | 90th | 95th percentile |\n|---|---|---|---|---|"
    errors = {name: fit.left_out for name, fit in pair.operations.items()} | {
        "trains of hops (not fitted)": pair.trains
    }
    for name, found in errors.items():
        if found is not None:
            yield _error_row(name, found)
    yield ""


def _report_link(fit: LinkFit) -> Iterator[str]:
    yield f"## {fit.kind} ({', '.join(fit.links)})\n"
    yield "| parameter | value | 90 % interval |\n|---|---|---|"
    for name, each in [*fit.curve.items(), *((_IN_CURVE[n], e) for n, e in fit.terms.items())]:
        width = f"+- {each.half_width:.2g}" if np.isfinite(each.half_width) else "the data do not say"
        yield f"| {name} | {each.value:.4g} | {width} |"
    yield "\n| sizes left out | number | median error | 90th | 95th percentile |\n|---|---|---|---|---|"
    errors = {**fit.left_out, **({"trains of hops (not fitted)": fit.trains} if fit.trains else {})}
    yield from (_error_row(operation, found) for operation, found in errors.items())
    yield ""


def _error_row(name: str, e: Errors) -> str:
    return f"| {name} | {e.count} | {e.median:.1%} | {e.p90:.1%} | {e.p95:.1%} |"
