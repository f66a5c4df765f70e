"""Draws: from a seed, within bounds, never what the calibration's grid has, and half of them communicating."""

from __future__ import annotations

from pathlib import Path

import pytest

from traces.errors import InputError
from validators.validation import draws
from validators.validation.draws import CPU, GPU, calibration_plan, draw_plan
from validators.validation.plan import read_plan, write_plan
from validators.validation.runs import Configuration


def forecast(configuration: Configuration, spec: str) -> tuple[float, float, bool]:
    """A fifth of a second per 2048 tokens; communication where heads are few."""
    return 0.2 * configuration.seq_len / 2048, 0.4 if configuration.heads < 16 else 0.1, configuration.batch < 4


@pytest.mark.parametrize(("ranges", "ranks"), [(CPU, 4), (CPU, 8), (GPU, 2)])
def test_draws_keep_their_bounds(ranges: object, ranks: int) -> None:
    plan = draw_plan(ranges, ranks, 12, 5, 3, forecast)  # type: ignore[arg-type]
    assert len(plan) == 12
    grid = {each.configuration.seq_len for each in calibration_plan(ranks, 0, 1)}
    for planned in plan:
        c = planned.configuration
        assert forecast(c, "")[0] <= ranges.most_s and c.batch < 4  # type: ignore[attr-defined]
        assert c.seq_len not in grid and c.seq_len & (c.seq_len - 1)
        assert len(set(planned.schedules)) == len(planned.schedules) >= 2
    assert sum(each.configuration.heads < 16 for each in plan) >= 6
    assert plan == draw_plan(ranges, ranks, 12, 5, 3, forecast)  # type: ignore[arg-type]
    assert plan != draw_plan(ranges, ranks, 12, 6, 3, forecast)  # type: ignore[arg-type]


def test_what_hardly_anything_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "MAX_TRIES", 100)
    with pytest.raises(InputError, match="of 100 draws only 0 fit the bounds"):
        draw_plan(CPU, 4, 5, 0, 3, lambda configuration, spec: (10.0, 0.5, True))


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = calibration_plan(4, 0, 2)
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="no plan"):
        read_plan(tmp_path / "plan.json")
