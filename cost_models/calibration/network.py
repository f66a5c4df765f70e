"""The links of a host fitted to records of exchanges and collectives (`validators.bench.network`).

    exchange, one-way   `estimate_exchange_s`:   latency, ramp, share of the wires, rate of a channel (`LinkCurve`)
    collectives         `estimate_collective_s`: start, latency of a step, share of the channels (`NetworkTerms`)

Link types that differ by how many channels NCCL may use are one kind of link on different topologies: their records are
fitted together, so that the rate of a channel follows from few channels and that of the wires from many. Errors are of
whole message sizes left out; trains of hops and all that is refused or wrong are in no fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cost_models.calibration.holdout import Errors
from cost_models.calibration.robust import Estimate, FloatArray, Parameter, fit_times
from cost_models.hardware import HardwareProfile
from cost_models.network import communicator, estimate_collective_s, estimate_exchange_s
from cost_models.network.terms import NetworkTerms, Terms, terms_of
from cost_models.topology import ClusterTopology, NcclSettings, load_topology
from traces.errors import InputError
from traces.records import CalibrationRecord

EXCHANGES = ("exchange", "one-way")
COLLECTIVES = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce")
FOLDS = 3
FEWEST = 8
"""Measurements of a kind of link below which it is not fitted."""

PAIRS = {
    "nvlink": "h200-nvlink-pair", "channels-1": "h200-nvlink-pair:channels=1",
    "channels-2": "h200-nvlink-pair:channels=2", "channels-4": "h200-nvlink-pair:channels=4",
    "shm": "h200-shm-pair", "socket": "h200-socket-pair",
}  # fmt: skip
"""Two GPUs of one host, by link type."""
_NODE_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "nvlink": {}, "channels-1": {"max_nchannels": 1, "max_ctas": 1}, "channels-2": {"max_nchannels": 2, "max_ctas": 2},
    "channels-4": {"max_nchannels": 4, "max_ctas": 4}, "shm": {"p2p_disable": True},
    "socket": {"p2p_disable": True, "shm_disable": True},
}  # fmt: skip
Topologies = Mapping[tuple[str, int], ClusterTopology]
"""By name of the link type and number of ranks."""


@dataclass(frozen=True)
class LinkFit:
    """A kind of link.

    Attributes
    ----------
    kind : as in ``Route.kind``.
    curve, terms : parameters of sends, and of collectives; none of the latter where none were measured.
    left_out : errors by operation on sizes that were left out.
    trains : errors of trains of hops, each hop priced as one alone.
    links : types that were fitted together.
    """

    kind: str
    curve: Mapping[str, Estimate]
    terms: Mapping[str, Estimate]
    left_out: Mapping[str, Errors]
    trains: Errors | None
    links: tuple[str, ...]


def topologies_of(records: Iterable[CalibrationRecord], node: str, gpu: str) -> dict[tuple[str, int], ClusterTopology]:
    """What joins the ranks of each link type that the records name; NVLink multicast is off, as where it is measured.

    Parameters
    ----------
    node : preset or file of a host with more than two GPUs; of two, it is a measured pair (``PAIRS``).
    gpu : their name.
    """
    found: dict[tuple[str, int], ClusterTopology] = {}
    for record in records:
        link, ranks = str(record.parameters.get("link")), int(record.parameters.get("ranks") or 0)
        if record.kind != "network" or ranks < 2 or link not in PAIRS or (link, ranks) in found:
            continue
        if ranks == 2:
            found[link, ranks] = load_topology(PAIRS[link], 2, gpu=gpu, nccl=NcclSettings(nvls_enable=False))
        else:
            settings = NcclSettings(nvls_enable=False, **_NODE_SETTINGS[link])
            found[link, ranks] = load_topology(node, ranks, 1, gpu, settings)
    return found


def fit_links(
    records: Iterable[CalibrationRecord], topologies: Topologies, profile: HardwareProfile
) -> list[LinkFit]:  # fmt: skip
    """A fit per kind of link that the records have.

    Parameters
    ----------
    records : of kind ``network``.
    topologies : what the ranks of each link type are joined by.
    profile : of the GPUs; its links are where fits begin.

    Raises
    ------
    InputError
        Where nothing can be fitted.
    """
    by_kind: dict[str, list[_Sample]] = {}
    for record in records:
        if record.kind == "network" and record.samples_s:
            sample = _Sample.of(record, topologies)
            if sample is not None:
                by_kind.setdefault(sample.kind, []).append(sample)
    fits = [_fit(kind, found, profile) for kind, found in sorted(by_kind.items()) if len(found) >= FEWEST]
    if not fits:
        raise InputError("the records hold no link to fit", expected="exchanges between the ranks of a known topology")
    return fits


@dataclass(frozen=True)
class _Sample:
    """A record on its topology."""

    link: str
    kind: str
    operation: str
    ranks: int
    bytes: int
    hops: int
    seconds: float
    topology: ClusterTopology

    @staticmethod
    def of(record: CalibrationRecord, topologies: Topologies) -> _Sample | None:
        """None where its topology is not known, or nothing was sent."""
        p = record.parameters
        link, ranks = str(p["link"]), int(p["ranks"] or 0)
        topology = topologies.get((link, ranks))
        if topology is None or ranks < 2:
            return None
        kind = topology.route(0, 1).kind
        return _Sample(
            link, kind, str(p["operation"]), ranks, int(p["bytes"] or 0), int(p["hops"] or 1), record.median_s, topology
        )

    def sends(self, profile: HardwareProfile) -> float:
        """Seconds of one hop."""
        source = np.arange(self.ranks)
        target = (source + 1) % self.ranks
        if self.operation == "one-way":
            source, target = source[:-1:2], target[:-1:2]
        return float(estimate_exchange_s(self.topology, profile, source, target, self.bytes).max())

    def gathers(self, profile: HardwareProfile, terms: NetworkTerms) -> float:
        """Seconds of a collective."""
        both = Terms(terms, terms)
        return estimate_collective_s(self.topology, profile, self.operation, range(self.ranks), self.bytes, terms=both)


Predict = Callable[[FloatArray, Sequence[_Sample]], FloatArray]


def _fit(kind: str, samples: Sequence[_Sample], profile: HardwareProfile) -> LinkFit:
    single = [each for each in samples if each.operation in EXCHANGES and each.hops == 1]
    collective = [each for each in samples if each.operation in COLLECTIVES]
    names, parameters = _curve_parameters(kind, profile)
    send = _sends(kind, names, profile)
    curve = _estimates(send, single, parameters)
    left_out = _left_out(send, single, parameters)
    terms: dict[str, Estimate] = {}
    if len(collective) >= FEWEST:
        known = _known_terms(collective[0], profile)
        gather = _gathers(profile)
        terms = _estimates(gather, collective, known)
        left_out |= _left_out(gather, collective, known)
    values = np.array([curve[name].value for name in names])
    trains = [each for each in samples if each.operation == "exchange" and each.hops > 1]
    errors = [each.hops * one / each.seconds - 1 for each, one in zip(trains, send(values, trains), strict=True)]
    links = tuple(sorted({each.link for each in samples}))
    return LinkFit(kind, curve, terms, left_out, Errors.of(np.array(errors)) if errors else None, links)


def _curve_parameters(kind: str, profile: HardwareProfile) -> tuple[list[str], list[Parameter]]:
    curve = profile.links[kind]
    parameters = [
        Parameter("latency_s", curve.latency_s, 1e-7, 1e-2),
        Parameter("ramp_s", curve.ramp_s, 0.0, 1e-2),
        Parameter("ramp_bytes", curve.ramp_bytes, 1e3, 1e9),
        Parameter("efficiency", curve.efficiency, 0.01, 1.0),
    ]
    if curve.channel_bytes_per_s is not None:
        rate = curve.channel_bytes_per_s
        parameters.append(Parameter("channel_bytes_per_s", rate, rate / 10, rate * 10))
    return [each.name for each in parameters], parameters


def _sends(kind: str, names: Sequence[str], profile: HardwareProfile) -> Predict:
    def predict(values: FloatArray, samples: Sequence[_Sample]) -> FloatArray:
        curve = profile.links[kind].model_copy(update=dict(zip(names, map(float, values), strict=True)))
        trial = profile.model_copy(update={"links": {**profile.links, kind: curve}})
        return np.array([each.sends(trial) for each in samples])

    return predict


def _known_terms(sample: _Sample, profile: HardwareProfile) -> list[Parameter]:
    known = terms_of(profile, communicator(sample.topology, range(sample.ranks))).intra
    return [
        Parameter("start_s", max(known.start_s, 1e-6), 0.0, 1e-2),
        Parameter("step_s", known.step_s, 1e-7, 1e-2),
        Parameter("efficiency", known.efficiency, 0.01, 1.0),
    ]


def _gathers(profile: HardwareProfile) -> Predict:
    def predict(values: FloatArray, samples: Sequence[_Sample]) -> FloatArray:
        start_s, step_s, efficiency = map(float, values)
        terms = NetworkTerms(start_s, step_s, efficiency, "trial")
        return np.array([each.gathers(profile, terms) for each in samples])

    return predict


def _estimates(predict: Predict, samples: Sequence[_Sample], parameters: Sequence[Parameter]) -> dict[str, Estimate]:
    measured = np.array([each.seconds for each in samples])
    return fit_times(lambda values: predict(values, samples), measured, parameters)


def _left_out(predict: Predict, samples: Sequence[_Sample], parameters: Sequence[Parameter]) -> dict[str, Errors]:
    """Errors by operation, each size predicted by a fit to the others: sizes are dealt to folds in order."""
    sizes = sorted({each.bytes for each in samples})
    found: dict[str, list[float]] = {}
    for fold in range(FOLDS):
        out = set(sizes[fold::FOLDS])
        inside = [each for each in samples if each.bytes not in out]
        if len(inside) < FEWEST:
            continue
        fitted = _estimates(predict, inside, parameters)
        judged = [each for each in samples if each.bytes in out]
        predicted = predict(np.array([fitted[each.name].value for each in parameters]), judged)
        for sample, seconds in zip(judged, predicted, strict=True):
            found.setdefault(sample.operation, []).append(seconds / sample.seconds - 1)
    return {operation: Errors.of(np.array(errors)) for operation, errors in sorted(found.items())}


def render_links(fits: Sequence[LinkFit], hardware: str, reference: str) -> str:
    """TOML of a profile that has these links and all else of ``hardware``."""
    blocks = [f'# Made by `attnsim calibrate --network`; do not edit.\nbase = "{hardware}"\n']
    for fit in fits:
        lines = [f"{name} = {each.value:.4g}" for name, each in fit.curve.items()]
        lines += [f"{_IN_CURVE[name]} = {each.value:.4g}" for name, each in fit.terms.items()]
        blocks.append(f"[links.{fit.kind}]\n" + "\n".join(lines) + "\n")
    for fit in fits:
        worst = max((each.p90 for each in fit.left_out.values()), default=0.0)
        blocks.append(
            f'[[source]]\nterms = ["links.{fit.kind}"]\nbasis = "calibrated"\n'
            f'reference = "{reference}: {", ".join(fit.links)}"\nrelative_error = {max(worst, 1e-3):.3g}\n'
        )
    return "\n".join(blocks)


_IN_CURVE = {"start_s": "start_s", "step_s": "step_s", "efficiency": "collective_efficiency"}


def render_link_report(fits: Sequence[LinkFit]) -> str:
    """Markdown: parameters with their 90 % intervals, and errors on sizes left out."""
    parts = []
    for fit in fits:
        parts.append(f"## {fit.kind} ({', '.join(fit.links)})\n")
        parts.append("| parameter | value | 90 % interval |\n|---|---|---|")
        for name, each in [*fit.curve.items(), *((_IN_CURVE[n], e) for n, e in fit.terms.items())]:
            width = f"+- {each.half_width:.2g}" if np.isfinite(each.half_width) else "the data do not say"
            parts.append(f"| {name} | {each.value:.4g} | {width} |")
        parts.append("\n| sizes left out | number | median error | 90th | 95th percentile |\n|---|---|---|---|---|")
        errors = {**fit.left_out, **({"trains of hops (not fitted)": fit.trains} if fit.trains else {})}
        for operation, e in errors.items():
            parts.append(f"| {operation} | {e.count} | {e.median:.1%} | {e.p90:.1%} | {e.p95:.1%} |")
        parts.append("")
    return "\n".join(parts) + "\n"
