"""Configurations that ended the processes which measured them: not tried again when the run goes on.

A kernel that faults, or a rank that waits for one that has run out of memory, ends all processes of a run. A line is
written before a configuration is begun and another when it is done; one that was begun and never done is left out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from traces.bounded import read_bounded
from validators.validation.plan import Planned

FILE = "attempts.txt"
MAX_FILE_BYTES = 1 << 20


class Attempts:
    """What was begun and done in a folder of runs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._open: set[str] = set()
        text = read_bounded(self._path, str(self._path), MAX_FILE_BYTES).decode() if self._path.exists() else ""
        for line in text.splitlines():
            verb, _, key = line.partition(" ")
            (self._open.add if verb == "begun" else self._open.discard)(key)

    def failed(self, planned: Planned) -> bool:
        """Whether it was begun before and never done."""
        return _key(planned) in self._open

    def begin(self, planned: Planned) -> None:
        """It is measured from now on."""
        self._write("begun", planned)

    def end(self, planned: Planned) -> None:
        """All of it was measured."""
        self._write("done", planned)

    def _write(self, verb: str, planned: Planned) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{verb} {_key(planned)}\n")
            file.flush()
            os.fsync(file.fileno())


def _key(planned: Planned) -> str:
    return json.dumps(vars(planned.configuration), sort_keys=True, separators=(",", ":"))
