"""Timelines wherever they come from, told by the file's name: our own records, or Kineto traces."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from traces.errors import InputError
from traces.json_lines import load_json_lines, save_json_lines
from traces.kineto.recording import Recording, read_recording
from traces.launches import Launches
from traces.parquet import load_parquet, save_parquet
from traces.perfetto import write_traces
from traces.storage import load_timeline, save_timeline
from traces.timeline import Timeline

Source = str | os.PathLike[str]
Load = Callable[[Source], Timeline]
Save = Callable[[Timeline, Source], None]

RECORDS: dict[str, tuple[Load, Save]] = {
    ".npz": (load_timeline, save_timeline),
    ".timeline.zip": (load_timeline, save_timeline),
    ".jsonl": (load_json_lines, save_json_lines),
    ".jsonl.gz": (load_json_lines, save_json_lines),
    ".parquet": (load_parquet, save_parquet),
}


def load_recording(source: Source | Sequence[Source]) -> Recording:
    """Read one record of ours (by its suffix), or a folder or files of Kineto traces.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    named = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    load = _of(named[0]) if len(named) == 1 else None
    if load is None:
        return read_recording(named)
    timeline = load[0](named[0])
    nothing: tuple[tuple[()], ...] = ((),) * timeline.n_ranks
    return Recording(
        timeline, Launches.none(len(timeline)), nothing, nothing, nothing, {}, on_device=True,
        clock_offset_ns=np.zeros(timeline.n_ranks, dtype=np.int64), warnings=(),
    )  # fmt: skip


def save_recording(recording: Recording, target: Source) -> None:
    """Write the timeline as a record of ours (by its suffix), or, to a name without one, as a folder of traces.

    Raises
    ------
    InputError
        Where the suffix is unknown or the target cannot be written.
    """
    save = _of(target)
    if save is not None:
        save[1](recording.timeline, target)
    elif Path(target).suffix:
        raise InputError(f"suffix of {target} is unknown", expected=", ".join(RECORDS) + ", or a folder without one")
    else:
        write_traces(recording.timeline, target)


def _of(source: Source) -> tuple[Load, Save] | None:
    name = os.fspath(source)
    return next((functions for suffix, functions in RECORDS.items() if name.endswith(suffix)), None)
