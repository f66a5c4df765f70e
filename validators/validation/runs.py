"""What is measured, and what came out: one JSON line per (configuration, schedule), a timeline file beside it.

    runs.jsonl         {"format", "id", "configuration", "schedule", "outcome", "samples_s", "instrumented_s",
                        "issued_s", "peak_memory_bytes", "errors", "detail", "timeline", "machine", "backend"}
    ID.timeline.zip    the instrumented call

Lines are only ever appended, so that an interrupted run resumes where it was: what is there is not measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.setup import Setup
from traces.bounded import read_bounded
from traces.errors import InputError
from traces.storage import load_timeline, save_timeline
from traces.timeline import Timeline
from validators.validation.step_configuration import StepConfiguration

FORMAT = "attnsim measured run 1"
OUTCOMES = ("measured", "out_of_memory", "wrong", "refused", "fits")
"""A run that ``fits`` was neither checked nor timed: only whether memory suffices was asked."""
FILE, RUNS = "runs.jsonl", "runs"
MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Configuration:
    """A workload on so many ranks, with a kernel."""

    seq_len: int
    heads: int
    kv_heads: int
    head_dim: int
    batch: int
    mask: str
    dtype: str
    kernel: str
    ranks: int
    ranks_per_node: int
    pass_: str = "both"

    @property
    def setup(self) -> Setup:
        """As schedules take it."""
        workload = AttentionWorkload(
            self.batch, self.seq_len, self.heads, self.kv_heads, self.head_dim, self.head_dim, self.dtype,
            parse_mask(self.mask, self.seq_len),
        )  # fmt: skip
        return Setup(workload, self.ranks, self.ranks_per_node)

    @property
    def label(self) -> str:
        """One line for people."""
        shape = f"S={self.seq_len} H={self.heads}/{self.kv_heads} D={self.head_dim} B={self.batch}"
        return f"{shape} {self.mask} {self.dtype} {self.kernel} P={self.ranks} {self.pass_}"


@dataclass(frozen=True)
class MeasuredRun:
    """A schedule on a configuration, as measured.

    Attributes
    ----------
    outcome : one of ``OUTCOMES``; only what is measured has times.
    samples_s : isolated calls, each the maximum over ranks.
    instrumented_s : the call whose operations were timed; None where they cannot be (peers' own code).
    issued_s : median time in which the host had issued the call, on the slowest rank; None where nobody knows (peers).
    peak_memory_bytes : the largest of any rank, as PyTorch's allocator counts it; None on CPUs, where nobody counts.
    peak_reserved_bytes : what the allocator had taken from the device for it; None where it is not looked at.
    errors : relative errors of sampled rows and columns.
    timeline : file of the instrumented call, beside the runs.
    machine : what it was measured on.
    """

    configuration: Configuration | StepConfiguration
    schedule: str
    outcome: str
    backend: str
    samples_s: tuple[float, ...] = ()
    instrumented_s: float | None = None
    issued_s: float | None = None
    peak_memory_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    detail: str | None = None
    timeline: str | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Of what was to be measured: equal for a repetition."""
        return run_id(self.configuration, self.schedule, self.backend)

    @property
    def time_s(self) -> float:
        """Median of the isolated calls."""
        return statistics.median(self.samples_s)

    @property
    def spread(self) -> float:
        """Half the distance between largest and smallest sample, relative to the median."""
        return (max(self.samples_s) - min(self.samples_s)) / 2 / self.time_s

    def to_json(self) -> dict[str, Any]:
        """One line of the file."""
        return {"format": FORMAT, "id": self.id, **asdict(self)}


def run_id(configuration: Configuration | StepConfiguration, schedule: str, backend: str) -> str:
    """Short name of a run."""
    text = json.dumps([asdict(configuration), schedule, backend], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunFolder:
    """Measured runs of a folder, to be read and added to."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runs: dict[str, MeasuredRun] = {}
        file = self.path / FILE
        if file.exists():
            self._read(file)

    def add(self, run: MeasuredRun) -> None:
        """Append a run, on the disk before this returns."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(run.to_json()) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.runs[run.id] = run

    def add_with(self, run: MeasuredRun, timeline: Timeline | None) -> None:
        """Append a run and write its timeline beside it."""
        if timeline is not None:
            run = replace(run, timeline=f"{run.id}.timeline.zip")
            self.path.mkdir(parents=True, exist_ok=True)
            save_timeline(timeline, self.path / str(run.timeline))
        self.add(run)

    def timeline(self, run: MeasuredRun) -> Timeline | None:
        """The operations of the instrumented call."""
        if run.timeline is None:
            return None
        if Path(run.timeline).name != run.timeline:
            raise InputError("timeline of a run is not beside it", got=run.timeline)
        path = self.path / run.timeline
        return load_timeline(path) if path.exists() else None

    def _read(self, file: Path) -> None:
        lines = read_bounded(file, str(file), MAX_FILE_BYTES).split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            run = _parse(line, f"{file}, line {number}")
            self.runs[run.id] = run
        if lines[-1]:  # an interrupted run left half a line
            file.write_bytes(b"\n".join([*lines[:-1], b""]))


def open_folders(path: Path) -> list[RunFolder]:
    """The runs of a folder: in it, in its ``runs``, or in ``runs-LINK`` for each link type, whose runs may be alike."""
    linked = sorted(each for each in path.glob("runs-*") if each.is_dir())
    if linked:
        return [RunFolder(each) for each in linked]
    return [RunFolder(path / RUNS if (path / RUNS).is_dir() else path)]


def _parse(line: bytes, where: str) -> MeasuredRun:
    try:
        found = json.loads(line)
        if found.pop("format") != FORMAT or found["outcome"] not in OUTCOMES:
            raise ValueError("format or outcome")
        found.pop("id")
        configuration = read_configuration(found.pop("configuration"))
        samples = tuple(float(each) for each in found.pop("samples_s"))
        if (found["outcome"] == "measured") != bool(samples) or not all(0 < each < 1e6 for each in samples):
            raise ValueError("samples_s are the times of what was measured, and of nothing else")
        errors = {str(name): float(value) for name, value in found.pop("errors").items()}
        return MeasuredRun(configuration, samples_s=samples, errors=errors, **found)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} is no measured run", got=str(error)[:200]) from None


def read_configuration(values: Mapping[str, Any]) -> Configuration | StepConfiguration:
    """From JSON; that of a step says what it is of.

    Raises
    ------
    TypeError, ValueError
        Where it is neither.
    """
    cls: type[Configuration | StepConfiguration] = StepConfiguration if "what" in values else Configuration
    return cls(**_typed(cls, values))


def _typed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a flat dataclass, of the very types that it names."""
    kinds = {"int": int, "str": str}
    for name, annotation in cls.__annotations__.items():
        expected = kinds[annotation] if isinstance(annotation, str) else (get_args(annotation) or (annotation,))
        if name in values and not isinstance(values[name], expected):
            raise ValueError(f"{name} is {values[name]!r}")
    return dict(values)
