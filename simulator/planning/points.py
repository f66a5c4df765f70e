"""One point of a plan or a sweep: a simulation's options, and its outcome, as JSON values.

A point is what :class:`simulator.request.SimulationRequest` takes, so it can be sent to another process or machine. Its
digest covers the options, the files that they name and the program itself: a cached outcome is never stale.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from simulator.request import SimulationRequest
from simulator.result import Refused
from simulator.run import Stopped
from simulator.simulate import simulate
from traces.atomic import write_text_atomic
from traces.errors import InputError
from traces.garbage import collector_paused

Point = Mapping[str, Any]
Outcome = dict[str, Any]

FILES = ("model", "hardware", "topology")
NAMED_FILE = re.compile("@([^,]+)")
MAX_CACHED_BYTES = 2**24
_ROOT = Path(__file__).resolve().parents[2]


def run_point(point: Point, stop_after_s: float | None = None, cache_folder: str | None = None) -> Outcome:
    """Simulate a point.

    Returns
    -------
    outcome : the JSON of a result or of a refusal, without the ranks' bytes one by one (``bytes_sent_max`` instead).
    """
    path = Path(cache_folder) / f"{digest(point)}.json" if cache_folder else None
    cached = _read_cached(path)
    if cached is not None:
        return cached
    outcome = _simulate(point, stop_after_s)
    if path is not None and not outcome.get("stopped"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(outcome, allow_nan=False))
    return outcome


def digest(point: Point) -> str:
    """Digest of everything that the outcome depends on.

    >>> len(digest({"schedule": "ring", "seq_len": 4096}))
    64
    """
    named = {path: _file_digest(path) for path in _files_of(point)}
    text = json.dumps([dict(point), named, _program_digest()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _simulate(point: Point, stop_after_s: float | None) -> Outcome:
    schedule = str(point.get("schedule"))
    try:
        with collector_paused():
            result = simulate(SimulationRequest(**{**point, "timeline": False}), stop_after_s=stop_after_s)
    except Stopped as stopped:
        return {"schedule": schedule, "reason": str(stopped), "stopped": True}
    except InputError as error:
        return Refused(schedule, error.message).to_json()
    outcome = result.to_json()
    outcome["bytes_sent_max"] = max(outcome.pop("bytes_sent_per_rank"), default=0)
    outcome["breakdown"] = dict(result.breakdown or {})
    return outcome


def _read_cached(path: Path | None) -> Outcome | None:
    """An outcome written before; a damaged file counts as none."""
    if path is None or not path.is_file() or path.stat().st_size > MAX_CACHED_BYTES:
        return None
    try:
        outcome = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return outcome if isinstance(outcome, dict) and "schedule" in outcome else None


def _files_of(point: Point) -> Iterator[str]:
    """Names that may be files: of a model, profile or topology, and after an @ in any option."""
    for name, value in point.items():
        if isinstance(value, str):
            yield from [value] if name in FILES else NAMED_FILE.findall(value)


def _file_digest(name: str) -> str | None:
    path = Path(name)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@cache
def _program_digest() -> str:
    """Of all code and data that a simulation can use."""
    found = hashlib.sha256()
    for package in ("traces", "cost_models", "simulator"):
        for path in sorted((_ROOT / package).rglob("*")):
            if path.suffix in (".py", ".toml", ".json", ".csv"):
                found.update(str(path.relative_to(_ROOT)).encode() + path.read_bytes())
    return found.hexdigest()
