"""What is to be measured: configurations, the schedules of each, rounds and seeds, as a JSON file.

{"format": "attnsim validation plan 1",
 "planned": [{"configuration": {...}, "schedules": [...], "rounds": 5, "seed": 1}, ...]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from simulator.recording import default_pass
from simulator.schedules import PEERS, parse_schedule
from traces.atomic import write_text_atomic
from traces.bounded import read_bounded
from traces.errors import InputError
from validators.validation.runs import Configuration, read_configuration, run_id
from validators.validation.step_configuration import StepConfiguration

FORMAT = "attnsim validation plan 1"
MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True)
class Planned:
    """Schedules that take turns on one configuration.

    Attributes
    ----------
    rounds : isolated calls of each; 0 asks only whether they fit into memory.
    seed : of the inputs.
    """

    configuration: Configuration | StepConfiguration
    schedules: tuple[str, ...]
    rounds: int
    seed: int

    def missing(self, known: Collection[str], backend: str) -> list[str]:
        """The schedules, canonical, that have not been measured."""
        return [each for each in self.schedules if self._id(each, backend) not in known]

    def _id(self, spec: str, backend: str) -> str:
        schedule = parse_schedule(spec)
        setup = self.configuration.setup
        if isinstance(self.configuration, StepConfiguration):
            return run_id(self.configuration, str(schedule.resolve(setup)), backend)
        values = asdict(self.configuration)
        if default_pass(schedule) == "forward":
            values["pass_"] = "forward"
        if schedule.name in PEERS:  # they bring their kernel
            values["kernel"] = "flash2" if backend == "nccl" else "cpu"
        return run_id(Configuration(**values), str(schedule.resolve(setup)), backend)


def write_plan(path: str | os.PathLike[str], planned: Iterable[Planned]) -> None:
    """Write a plan, whole or not at all."""
    write_text_atomic(path, json.dumps({"format": FORMAT, "planned": [asdict(each) for each in planned]}, indent=1))


def read_plan(path: str | os.PathLike[str]) -> list[Planned]:
    """Read a plan.

    Raises
    ------
    InputError
        Where the file is none.
    """
    target = Path(path)
    content = read_bounded(target, f"plan {target}", MAX_FILE_BYTES)
    try:
        found = json.loads(content)
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}")
        return [
            Planned(read_configuration(each["configuration"]), tuple(map(str, each["schedules"])), int(each["rounds"]),
                    int(each["seed"]))
            for each in found["planned"]
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{target} is no plan", got=str(error)[:200]) from None
