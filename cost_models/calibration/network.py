"""The links of a host fitted to records of exchanges and collectives (`validators.bench.network`).

    exchange, one-way   `estimate_exchange_s`:   latency, ramp, share of the wires, rate of a channel (`LinkCurve`)
    collectives         `estimate_collective_s`: start, latency of a step, share of the channels (`NetworkTerms`)

Link types that differ by how many channels NCCL may use are one kind of link on different topologies: their records are
fitted together, so that the rate of a channel follows from few channels and that of the wires from many. Errors are of
whole message sizes left out; trains of hops and all that is refused or wrong are in no fit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cost_models.calibration.holdout import Errors
from cost_models.calibration.regimes import RegimesFit, fit_regimes
from cost_models.calibration.robust import Estimate, FloatArray, Parameter, fit_times
from cost_models.hardware import HardwareProfile
from cost_models.hardware.links import TWO_RANKS
from cost_models.network import communicator, estimate_collective, estimate_collective_s, estimate_exchange_s
from cost_models.network.terms import NetworkTerms, Terms, terms_of
from cost_models.topology import ClusterTopology, NcclSettings
from cost_models.topology.link_types import PAIRS, host_topology
from traces.errors import InputError
from traces.records import CalibrationRecord

EXCHANGES = ("exchange", "one-way")
COLLECTIVES = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce")
FOLDS = 3
FEWEST_SIZES = 3
"""Sizes below which an operation of two ranks is not fitted."""
FEWEST = 8
"""Measurements of a kind of link below which it is not fitted."""

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


def topologies_of(
    records: Iterable[CalibrationRecord], node: str | None, gpu: str
) -> dict[tuple[str, int], ClusterTopology]:
    """What joins the ranks of each link type that the records name; NVLink multicast is off, as where it is measured.

    Parameters
    ----------
    node : preset or file of a host with more than two GPUs, if it is not the usual one; two are a measured pair.
    gpu : their name.
    """
    found: dict[tuple[str, int], ClusterTopology] = {}
    for record in records:
        link, ranks = str(record.parameters.get("link")), int(record.parameters.get("ranks") or 0)
        if record.kind != "network" or ranks < 2 or link not in PAIRS or (link, ranks) in found:
            continue
        found[link, ranks] = host_topology(ranks, gpu, link, NcclSettings(nvls_enable=False), node)
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
class PairFit:
    """Two ranks over one link type.

    Attributes
    ----------
    link : its name. kind : of the route, as in ``Route.kind``.
    operations : fits by operation (`TWO_RANKS`).
    efficiency : share of the wires that the fastest message reaches.
    trains : errors of trains of hops, each hop priced as one alone.
    """

    link: str
    kind: str
    operations: Mapping[str, RegimesFit]
    efficiency: float
    trains: Errors | None

    @property
    def error(self) -> float:
        """What 90 % of the errors on sizes left out stay within, of the operation whose are widest."""
        return max((each.left_out.p90 for each in self.operations.values() if each.left_out), default=0.3)


def fit_pairs(
    records: Iterable[CalibrationRecord], topologies: Topologies, profile: HardwareProfile
) -> list[PairFit]:  # fmt: skip
    """A fit per link type that records of two ranks have; arguments as of `fit_links`."""
    by_link: dict[str, list[_Sample]] = {}
    for record in records:
        if record.kind == "network" and record.samples_s and record.parameters.get("ranks") == 2:
            sample = _Sample.of(record, topologies)
            if sample is not None:
                by_link.setdefault(sample.link, []).append(sample)
    plain = profile.model_copy(update={"pairs": {}})
    return [_fit_pair(link, found, plain) for link, found in sorted(by_link.items())]


def _fit_pair(link: str, samples: Sequence[_Sample], profile: HardwareProfile) -> PairFit:
    topology, fits = samples[0].topology, {}
    for operation in TWO_RANKS:
        found = sorted((s for s in samples if s.operation == operation and s.hops == 1), key=lambda each: each.bytes)
        if len(found) >= FEWEST_SIZES:
            change = partial(_change, topology, profile, operation)
            fits[operation] = fit_regimes([each.bytes for each in found], [each.seconds for each in found], change)
    fastest = max((max(fits[name].regimes.bytes_per_s) for name in EXCHANGES if name in fits), default=0.0)
    route = topology.route(0, 1)
    hop = fits.get("exchange")
    trains = [each for each in samples if each.operation == "exchange" and each.hops > 1]
    errors = [each.hops * hop.regimes.seconds(each.bytes) / each.seconds - 1 for each in trains] if hop else []
    share = min(fastest / route.wire_bytes_per_s, 1.0) or profile.links[route.kind].efficiency
    return PairFit(link, route.kind, fits, share, Errors.of(np.array(errors)) if errors else None)


def _change(topology: ClusterTopology, profile: HardwareProfile, operation: str, n_bytes: float) -> Hashable:
    """What NCCL does with a message: channels of sends, algorithm and protocol of others."""
    comm = communicator(topology, range(2))
    if operation in EXCHANGES:
        return comm.send_channels(n_bytes)
    if operation == "all_to_all":
        return comm.send_channels(n_bytes / 2)
    found = estimate_collective(topology, profile, operation, range(2), n_bytes)
    return found.algorithm, found.protocol


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
