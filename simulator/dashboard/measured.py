"""What was measured, beside the simulation: a timeline, a validation run, or a calibration's records.

timeline      a folder of Kineto traces, or a record of ours      drawn over the simulated one, and compared with it;
                                                                  of several steps the fastest
validation    ``agreement.json`` of attnsim validate, its folder  its runs, predicted against measured
calibration   records of kernels (``*.jsonl``), their folder      attention calls, as this GPU's profile prices them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cost_models.calibration.attention import AttentionSample
from cost_models.calibration.observations import PassKey, attention_samples
from cost_models.hardware import HardwareProfile
from cost_models.kernels import estimate_attention_s
from traces.bounded import read_bounded
from traces.differences import select_step
from traces.errors import InputError
from traces.records import latest, read_folder, read_records
from traces.sources import load_recording
from traces.timeline import Timeline

AGREEMENT = "agreement.json"
MAX_BYTES = 64 << 20
MOST_SAMPLES = 400
"""Of one kernel and direction: a figure with more says no more."""

Point = dict[str, Any]


class Measured(NamedTuple):
    """One of the three; the others are empty."""

    timeline: Timeline | None = None
    runs: tuple[Point, ...] = ()
    samples: Mapping[PassKey, list[AttentionSample]] = {}


def load_measured(name: str) -> Measured:
    """Read what was measured; again where its file has changed.

    Raises
    ------
    InputError
        Where it cannot be read, or is none of the three.
    """
    try:
        path = Path(name)
        path = path / AGREEMENT if (path / AGREEMENT).is_file() else path
        changed_ns = path.stat().st_mtime_ns
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path"
        raise InputError("what was measured cannot be read", got=f"{name} ({reason})") from None
    return _load(path, changed_ns)


def price_samples(samples: Mapping[PassKey, list[AttentionSample]], profile: HardwareProfile) -> list[Point]:
    """Points of an agreement: measured attention calls, and what the profile says of them.

    Raises
    ------
    InputError
        Where the profile has none of the kernels.
    """
    points = []
    for (kernel, direction, head_dim), own in samples.items():
        if kernel in profile.kernels and head_dim <= profile.kernels[kernel].max_head_dim:
            step = -(-len(own) // MOST_SAMPLES)
            points += [_priced(f"{kernel} {direction}", kernel, each, profile) for each in own[::step]]
    if not points:
        got = ", ".join(sorted({key[0] for key in samples}))
        raise InputError(f"{profile.name} has none of the kernels that were measured", got=got,
                         expected=", ".join(profile.kernels))  # fmt: skip
    return points


def _priced(group: str, kernel: str, sample: AttentionSample, profile: HardwareProfile) -> Point:
    shape, columns = sample.shape, sum(each.k_stop - each.k_start for each in sample.call.segments)
    predicted_s = estimate_attention_s(profile, kernel, sample.call, shape, sample.direction)
    label = f"{group}, {sample.rows} x {columns} tokens, {shape.heads}/{shape.kv_heads} heads of {shape.head_dim}"
    return {"schedule": group, "label": label, "measured_s": sample.seconds, "predicted_s": predicted_s}


@lru_cache(maxsize=8)
def _load(path: Path, _changed_ns: int) -> Measured:
    if path.suffix == ".json":
        return Measured(runs=_read_runs(path))
    if path.suffix == ".jsonl" and _holds_records(path):
        return Measured(samples=_samples([read_records(path)], path))
    if path.is_dir() and any(_holds_records(each) for each in path.glob("*.jsonl")):
        return Measured(samples=_samples(read_folder(path), path))
    return Measured(timeline=select_step(load_recording(path)))


def _samples(files: list[Any], path: Path) -> Mapping[PassKey, list[AttentionSample]]:
    found = attention_samples(latest(files))
    if not found:
        raise InputError("records of a calibration have no attention calls", got=str(path))
    return found


def _holds_records(path: Path) -> bool:
    """Whether the first line is that of a calibration: the machine."""
    with path.open("rb") as file:
        return file.read(16).replace(b" ", b"").startswith(b'{"machine":')


def _read_runs(path: Path) -> tuple[Point, ...]:
    try:
        runs = json.loads(read_bounded(path, str(path), MAX_BYTES))["runs"]
        points = [
            {
                "schedule": str(run["schedule"]).partition(":")[0],
                "label": f"{run['schedule']}, {run['configuration']}",
                "measured_s": _positive(run["measured_s"]),
                "predicted_s": _positive(run["predicted_s"]),
            }
            for run in runs
        ]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError("a file is no agreement of a validation run", got=f"{path} ({str(error)[:100]})",
                         expected="what attnsim validate writes as JSON") from None  # fmt: skip
    return tuple(points)


def _positive(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{value!r} is no time")
    return float(value)
