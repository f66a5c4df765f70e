"""Fits the profile of GPUs of one host to what `scripts/validate_gpus.sh` measured there: links, host, intervals.

network-LINK.jsonl   exchanges and collectives      -> links
issued.jsonl         operations as they are issued  -> host; without it that of an H100's host, times a factor
runs                 whole calls                    -> the factor, hops, collectives, intervals by kind of link
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cost_models.calibration.host import fit_host
from cost_models.calibration.network import fit_links, fit_pairs, topologies_of
from cost_models.calibration.pair import HostOfPair, render_pair, render_pair_report
from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.hardware.load import parse_hardware
from traces.errors import InputError
from traces.records import latest, read_records
from validators.shown import shown_path
from validators.validation.beside_fit import fit_beside
from validators.validation.call_fit import fit_calls
from validators.validation.runs import RunFolder

LENDER = "h100-sxm"
"""Whose host's times are taken where there are none."""
TABLES = ("kinds", "first")


def fit_pair(folder: Path, runs: Sequence[Path], hardware: str, topology: str | None) -> tuple[str, str]:
    """The profile (TOML) and a report (Markdown).

    Parameters
    ----------
    folder : of records. runs : folders of runs that terms may be fitted to; none: only links are fitted.
    hardware : the GPU's profile.
    topology : of runs, and of records of more than two ranks; None where they are of a usual node, or a pair.

    Raises
    ------
    InputError
        Where there is nothing to fit.
    """
    files = [read_records(path) for path in sorted(folder.glob("network-*.jsonl"))]
    if not files:
        raise InputError("no network-*.jsonl in the folder", got=str(folder))
    found, profile = latest(files), load_hardware(hardware)
    topologies = topologies_of(found, topology, hardware)
    pairs, more = fit_pairs(found, topologies, profile), [each for each in found if each.parameters["ranks"] != 2]
    links = fit_links(more, topologies, profile) if more else []
    where, host = f"records in {shown_path(folder)}", None
    if runs:
        host = _host_of(folder, profile)
        linked = parse_hardware(render_pair(pairs, links, hardware, where, host), f"{folder.name}-fit")
        host = _with_calls(host, runs, linked, topology)
    report = render_pair_report(pairs, links, host)
    return render_pair(pairs, links, hardware, where, host), f"# {shown_path(folder)}\n\n{report}"


def _host_of(folder: Path, profile: HardwareProfile) -> HostOfPair:
    """What operations take to issue."""
    file = folder / "issued.jsonl"
    if file.is_file():
        fitted = fit_host(latest([read_records(file)]))
        terms = {"first_s": fitted.first_s} if fitted.first_s is not None else {}
        return HostOfPair(terms, fitted.tables, f"records in {shown_path(file)}")
    if profile.host.kinds:
        return HostOfPair()
    lent = load_hardware(LENDER).host
    tables = {name: dict(getattr(lent, name)) for name in TABLES}
    return HostOfPair({"first_s": lent.first_s}, tables, f"as {LENDER}'s host", "estimated")


def _with_calls(host: HostOfPair, runs: Sequence[Path], profile: HardwareProfile, topology: str | None) -> HostOfPair:
    folders = [RunFolder(each) for each in runs]
    shares = fit_beside(folders, profile, topology)
    beside = profile.interference.model_copy(update={"communication_share": dict(shares)})
    terms = fit_calls(folders, profile.model_copy(update={"interference": beside}), topology)
    calls = {"isolated": terms.isolated, "isolated_error": terms.isolated_error, **terms.communication}
    reference = f"{terms.runs} runs in {', '.join(map(shown_path, runs))}"
    return replace(
        host, calls=calls, call_errors=terms.link_errors, calls_reference=reference, shares=shares
    )  # fmt: skip
