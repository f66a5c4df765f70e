"""A configuration that ended its processes is left out when the run goes on, and the others are measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from validators.validation import worker
from validators.validation.attempts import Attempts
from validators.validation.plan import Planned
from validators.validation.runs import Configuration


class Alone:
    """A world of one process."""

    rank, size, backend = 0, 1, "gloo"

    def share(self, value: Any) -> Any:
        return value


def test_what_ended_the_processes_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Planned(Configuration(256, 4, 4, 16, 1, "causal", "fp32", "cpu", 1, 1), ("flash",), 1, 0)
    second = replace(first, configuration=replace(first.configuration, seq_len=512))
    begun: list[int] = []

    def measure(world: object, planned: Planned, *_: object) -> int:
        begun.append(planned.configuration.seq_len)
        if planned.configuration.seq_len == 256:
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(worker, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        worker.measure_plan(Alone(), [first, second], tmp_path, 60, {})  # type: ignore[arg-type]
    assert Attempts(tmp_path).failed(first)
    worker.measure_plan(Alone(), [first, second], tmp_path, 60, {})  # type: ignore[arg-type]
    assert begun == [256, 512]
    assert not Attempts(tmp_path).failed(second)
