"""Callbacks without a browser: called as functions, and posted as the page posts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dash import Dash, no_update

import attnsim
from simulator.dashboard.answers import find_answer
from simulator.dashboard.app import (
    FIELDS,
    _page_outputs,
    create_app,
    fill_form,
    look_at,
    read_form,
    update_measured,
    update_page,
)
from simulator.dashboard.crossings import FACTORS, OCTAVES, SCHEDULES, Crossings, link_of
from simulator.dashboard.state import State
from simulator.dashboard.views import comparison
from simulator.planning.runners import Here
from tests.traces.synthetic import ring_timeline
from traces.errors import InputError
from traces.figures.ranking import plot_ranking
from traces.storage import save_timeline

SMALL = State(gpus="4", seq_len="8k")
SLOW = State(gpus="4", seq_len="8k", nvlink="0.125")


@pytest.fixture(scope="module")
def app() -> Dash:
    return create_app(Here())


@pytest.fixture
def client(app: Dash) -> Any:
    return app.server.test_client()


def page(state: State, kept: str | None = None) -> dict[str, Any]:
    values = update_page(*fill_form(state.query)[:-1], kept)
    return dict(zip([str(each) for each in _page_outputs()], values, strict=True))


def test_a_link_fills_the_form_and_the_form_is_the_state() -> None:
    state = State(gpus="4", seq_len="8k", net="0.5", interference="on", schedule="ring")
    filled = fill_form(state.query)
    assert read_form(tuple(filled[:-1])) == state
    assert filled[-1] is None
    assert fill_form(f"?gpus=4&kept={quote('?gpus=2&net=2', safe='')}")[-1] == "?gpus=2&net=2"


def test_a_page_shows_the_numbers_of_the_command() -> None:
    shown = page(SMALL)
    outcomes = attnsim.compare(SMALL.request())
    times = [each.time_s for each in outcomes if not isinstance(each, attnsim.Refused)]
    bars = [x for trace in shown["ranking.figure"].data for x in trace.x]
    assert sorted(bars) == pytest.approx(sorted(1e3 * time for time in times), rel=1e-9)
    assert shown["ranking.style"]["height"] == f"{shown['ranking.figure'].layout.height}px"
    assert shown["timeline.figure"].data and shown["memory.figure"].data and shown["waterfall.figure"].data
    assert shown["state.data"] == SMALL.query
    assert shown["form-why.children"] == ""
    best = next(each for each in outcomes if not isinstance(each, attnsim.Refused)).schedule
    assert best in shown["title.children"] and f"--schedule {best}" in shown["command-shown.children"]


def test_a_slider_changes_ranking_and_timeline() -> None:
    before, after = page(SMALL), page(SLOW)
    for name in ("ranking", "timeline"):
        assert before[f"{name}.figure"].to_json() != after[f"{name}.figure"].to_json()
    assert "--what-if nvlink=0.125" in after["command.children"]


def test_the_schedule_looked_at_can_be_chosen() -> None:
    shown = page(State(gpus="4", seq_len="8k", schedule="ulysses"))
    assert shown["title.children"].startswith("ulysses:")
    assert look_at({"points": [{"y": 1}]}, ["ring", "tp"]) == "tp"
    assert look_at({"points": [{"y": 5}]}, ["ring", "tp"]) is no_update


def test_a_wrong_field_is_marked_and_the_figures_stay() -> None:
    shown = page(State(gpus="none"))
    assert shown["gpus-field.className"] == "field wrong" and "whole number" in shown["gpus-why.children"]
    assert shown["model-field.className"] == "field" and shown["model-why.children"] == ""
    assert shown["ranking.figure"] is no_update and shown["state.data"] is no_update


def test_where_nothing_can_run_the_form_says_why() -> None:
    state = State(model="llama-3.1-8b", seq_len="128M", gpus="1")
    with pytest.raises(InputError, match="no schedule can run"):
        find_answer(state)
    assert "out of memory" in page(state)["form-why.children"]


def test_two_set_ups_side_by_side() -> None:
    lines = {name: rest for name, *rest in comparison(find_answer(SLOW).shown, find_answer(SMALL).shown)}
    slow, small = find_answer(SLOW).shown.time_s, find_answer(SMALL).shown.time_s
    assert lines["time"][2] == f"{slow / small - 1:+.1%}" and lines["time"][1]
    shown = page(SLOW, SMALL.query)
    assert quote(SMALL.query, safe="") in shown["page-link.href"]
    assert fill_form(shown["page-link.href"])[-1] == SMALL.query


def test_a_kept_set_up_that_cannot_run_is_left_out() -> None:
    assert "kept" not in page(SMALL, "?gpus=none")["page-link.href"]


def test_a_measured_run_is_shown_beside_the_simulation(tmp_path: Path) -> None:
    assert update_measured(SMALL.query) == [no_update, no_update, True]
    timeline = ring_timeline(2)
    save_timeline(timeline, tmp_path / "run.npz")
    state = State(gpus="4", seq_len="8k", measured=str(tmp_path / "run.npz"))
    figure, _, hidden = update_measured(state.query)
    assert not hidden and figure.layout.title.text == "<b>Measured</b>"
    ends = [base + length for trace in figure.data for base, length in zip(trace.base, trace.x, strict=True)]
    assert max(ends) == pytest.approx(timeline.makespan_ns / 1e6)
    shown = page(state)
    assert "run.npz" not in shown["command.children"] and "run.npz" in shown["page-link.href"]
    assert "cannot be read" in page(State(measured="nowhere.npz"))["measured-why.children"]


def test_crossover_rows_are_those_of_single_simulations() -> None:
    crossings = Crossings(Here())
    rows = crossings.rows(SMALL)
    assert len(rows) == len(SCHEDULES) * len(FACTORS) * len(OCTAVES)
    row = next(r for r in rows if (r["schedule"], r["seq_len"], r["factor"]) == ("ring", 16384, 0.5))
    alone = attnsim.simulate(State(gpus="4", seq_len="16k", nvlink="0.5").request(schedule="ring"))
    assert row["time_s"] == alone.time_s
    assert crossings.rows(State(gpus="4", seq_len="8k", schedule="ring")) is rows


def test_the_link_that_is_scaled_is_the_one_that_carries() -> None:
    states = [State(gpus="16"), State(), State(topology="pcie-8x")]
    assert [link_of(state) for state in states] == ["net", "nvlink", "pcie"]


def test_the_page_is_served_from_here_alone(client: Any) -> None:
    html = client.get("/", headers={"Host": "127.0.0.1:8050"})
    assert html.status_code == 200
    assert "http://" not in html.text.replace("http://www.w3.org", "") and "https://" not in html.text
    assert client.get("/", headers={"Host": "attacker.example"}).status_code == 403
    layout = client.get("/_dash-layout").get_json()
    assert FIELDS[0] in json.dumps(layout)


def test_the_page_posts_and_is_answered(client: Any) -> None:
    dependencies = client.get("/_dash-dependencies").get_json()
    own = next(each for each in dependencies if "ranking.figure" in each["output"])
    filled = dict(zip(FIELDS, fill_form(SMALL.query), strict=False))
    inputs = [{**each, "value": filled.get(each["id"])} for each in own["inputs"]]
    outputs = [dict(zip(("id", "property"), name.split("."), strict=True)) for name in own["output"][2:-2].split("...")]
    body = {"output": own["output"], "outputs": outputs, "inputs": inputs, "changedPropIds": ["gpus.value"]}
    answer = client.post("/_dash-update-component", json=body).get_json()["response"]
    expected = find_answer(SMALL).results
    bars = sum(len(trace["y"]) for trace in answer["ranking"]["figure"]["data"])
    assert bars == len(expected) and answer["state"]["data"] == SMALL.query


def test_exports_are_the_commands_json_and_a_report(client: Any) -> None:
    exported = client.get(f"/export.json{SMALL.query}")
    assert exported.get_json() == json.loads(json.dumps([e.to_json() for e in attnsim.compare(SMALL.request())]))
    report = client.get(f"/export.html{SMALL.query}&schedule=ulysses")
    assert report.mimetype == "text/html" and "Timeline" in report.text and "Waterfall" in report.text
    wrong = client.get("/export.json?gpus=none")
    assert wrong.status_code == 400 and "whole number" in wrong.text


def test_ranking_names_are_short() -> None:
    names = page(SMALL)["ranking.figure"].layout.yaxis.ticktext
    assert len(set(names)) == len(names) == len(find_answer(SMALL).results)
    full = plot_ranking([each.to_json() for each in find_answer(SMALL).results]).layout.yaxis.ticktext
    assert sum(map(len, names)) < sum(map(len, full))
