"""Callbacks without a browser: called as functions, and posted as the page posts them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dash import Dash, Output, no_update

import attnsim
from simulator.dashboard.answers import find_answer
from simulator.dashboard.app import create_app, look_at, update_compare, update_page
from simulator.dashboard.crossings import FACTORS, OCTAVES, SCHEDULES, Crossings, link_of
from simulator.dashboard.form import FIELDS, fill_form, read_form
from simulator.dashboard.measured import load_measured
from simulator.dashboard.panels import (
    compare_outputs,
    crossover_values,
    graph_outputs,
    links_values,
    measured_outputs,
    measured_values,
    page_outputs,
    pareto_values,
    sure_outputs,
    sure_values,
    time_values,
)
from simulator.dashboard.state import State
from simulator.dashboard.views import MOST_BARS, TIME_FIGURES, VIEWS, comparison, differences
from simulator.described import describe_inputs
from simulator.evidence import load_evidence
from simulator.planning.runners import Here
from tests.traces.kineto.places import RECORDED
from tests.traces.synthetic import ring_timeline
from traces.differences import select_step
from traces.display import format_ns
from traces.errors import InputError
from traces.figures.ranking import plot_ranking
from traces.kineto import read_recording
from traces.storage import save_timeline

SMALL = State(gpus="4", seq_len="8k")
SLOW = State(gpus="4", seq_len="8k", nvlink="0.125")
VALIDATION = Path(__file__).parents[3] / "docs/validation/h100-single/runs"
RECORDS = Path(__file__).parents[3] / "validators/records/h100-sxm/kernels.jsonl"


@pytest.fixture(scope="module")
def app() -> Dash:
    return create_app(Here())


@pytest.fixture
def client(app: Dash) -> Any:
    return app.server.test_client()


def named(outputs: Sequence[Output], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip([str(each) for each in outputs], values, strict=True))


def page(state: State, kept: str | None = None) -> dict[str, Any]:
    return named(page_outputs(), update_page(*fill_form(state.query)[:-2], kept))


def measured(state: State) -> dict[str, Any]:
    return named(measured_outputs(), measured_values(state))


def texts(component: Any) -> list[str]:
    """All texts of a component."""
    if component is None or isinstance(component, str):
        return [component] if component else []
    children = component if isinstance(component, list) else getattr(component, "children", None)
    return [text for each in children for text in texts(each)] if isinstance(children, list) else texts(children)


def test_a_link_fills_the_form_and_the_form_is_the_state() -> None:
    state = State(
        subject="model/step", tp="2", zero="3", gpus="4", seq_len="8k", net="0.5", interference="on", schedule="ring"
    )
    *filled, kept, view = fill_form(state.query)
    assert read_form(tuple(filled)) == state
    assert (kept, view) == (None, "ranking")
    assert fill_form(f"?gpus=4&view=links&kept={quote('?gpus=2&net=2', safe='')}")[-2:] == ["?gpus=2&net=2", "links"]
    assert fill_form("?view=nowhere")[-1] == "ranking"
    assert fill_form("?subject=nothing")[0] == fill_form("")[0] == "attention"


def test_a_page_shows_the_numbers_of_the_command() -> None:
    shown = page(SMALL)
    outcomes = attnsim.compare(SMALL.request())
    times = [each.time_s for each in outcomes if not isinstance(each, attnsim.Refused)]
    bars = [x for trace in shown["ranking.figure"].data for x in trace.x]
    assert sorted(bars) == pytest.approx(sorted(1e3 * time for time in times), rel=1e-9)
    assert shown["ranking.style"]["height"] == f"{shown['ranking.figure'].layout.height}px"
    assert shown["timeline.figure"].data and shown["memory.figure"].data and shown["holders.figure"].data
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of two layers."""
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 512, "intermediate_size": 1024,
              "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 1000}  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


@pytest.mark.parametrize("subject", ["layer/both", "model/prefill", "model/decode", "model/step"])
def test_layers_and_models_have_the_numbers_of_their_command(subject: str, tiny: str) -> None:
    state = State(subject=subject, model=tiny, gpus="4", seq_len="4k", schedule="ring", tp="2")
    shown = page(state)
    assert shown["form-why.children"] == ""
    assert describe_inputs(find_answer(state).shown.inputs) in shown["title.children"]
    layers, _, pass_ = subject.partition("/")
    alone = attnsim.simulate(attnsim.SimulationRequest(
        schedule="ring", model=tiny, gpus=4, seq_len="4k", topology="dgx-h100", layers=layers, pass_=pass_, tp=2,
        engine="maxplus", interference=False,
    ))  # fmt: skip
    found = {each.schedule: each.time_s for each in find_answer(state).results}
    assert found[alone.schedule] == alone.time_s
    assert f"--layers {layers}" in shown["command.children"] and "--tp 2" in shown["command.children"]


def test_long_timelines_are_thinned_and_say_so(tiny: str, client: Any) -> None:
    """On the page to what is drawn at once, in the report to what loads; the rest is for Perfetto."""
    long = {"gpus": "16", "seq_len": "2k", "batch": "6", "microbatches": "6"}
    state = State(subject="model/step", model=tiny, schedule="ring", **long)
    timeline = find_answer(state).shown.timeline
    assert timeline is not None and len(timeline) > 10_000
    figure = page(state)["timeline.figure"]
    assert sum(len(trace.x) for trace in figure.data) <= MOST_BARS
    assert "merged" in figure.layout.title.subtitle.text and "--trace" in figure.layout.title.subtitle.text
    report = client.get(f"/export.html{state.query}").text
    assert "bars are merged" in report.replace("<br>", " ").replace("\\u003cbr\\u003e", " ")


def test_options_of_steps_count_only_where_they_are_shown() -> None:
    state = State(subject="model/step", tp="2", zero="3", loss_chunks="8", gpus="4", seq_len="8k")
    assert {"tp": 2, "zero": 3, "loss_chunks": 8}.items() <= state.options.items()
    assert State(tp="2", zero="3").options == State().options
    assert "zero" not in State(subject="model/decode", zero="3").options


def test_wrong_fields_are_marked_all_at_once_and_the_figures_stay() -> None:
    shown = page(State(gpus="none", mask="triangle", seq_len="8k"))
    assert shown["gpus-field.className"].endswith("wrong") and "whole number" in shown["gpus-why.children"]
    assert shown["mask-field.className"].endswith("wrong") and "unknown mask" in shown["mask-why.children"]
    assert shown["model-field.className"] == "field" and shown["model-why.children"] == ""
    assert shown["topology-why.children"] == "" and shown["form-why.children"] == ""
    assert shown["ranking.figure"] is no_update and shown["state.data"] is no_update


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("ep", "2", "ep is about experts"), ("offload", "activations", "needs checkpointing"),
     ("tp", "x", "positive whole number"), ("zero", "7", "unknown zero"), ("checkpoint", "some", "unknown checkpoint"),
     ("method", "magic", "magic"), ("batch", "-1", "number of sequences"), ("pp", "0", "positive whole number")],
)  # fmt: skip
def test_wrong_options_of_a_step_are_marked(field: str, value: str, why: str) -> None:
    shown = page(State(subject="model/step", **{field: value}))
    assert shown[f"{field}-field.className"].endswith("wrong") and why in shown[f"{field}-why.children"]


@pytest.mark.parametrize(
    ("subject", "field", "value", "why"),
    [("model/decode", "stage_link", "5ms,1Gbit/s", "needs pipeline stages"), ("model/decode", "kv_dtype", "x", "int8"),
     ("model/prefill", "prefill_chunk", "x", "prefill_chunk"), ("model/decode", "weight_bits", "x", "no number"),
     ("model/prefill", "mla", "absorbed", "about latent attention"), ("", "kernel", "x", "no kernel x"),
     ("", "nodes", "3", "does not divide"), ("", "nodes", "x", "whole number")],
)  # fmt: skip
def test_wrong_options_of_inference_and_clusters_are_marked(
    subject: str, field: str, value: str, why: str, tiny: str
) -> None:
    shown = page(State(subject=subject, model=tiny, gpus="4", seq_len="4k", **{field: value}))
    assert shown[f"{field}-field.className"].endswith("wrong") and why in shown[f"{field}-why.children"]


def test_a_combination_that_cannot_be_is_said_above_the_form() -> None:
    shown = page(State(subject="model/step", gpus="4", tp="3"))
    assert "not divisible" in shown["form-why.children"]


def test_where_nothing_can_run_the_form_says_why() -> None:
    state = State(model="llama-3.1-8b", seq_len="128M", gpus="1")
    with pytest.raises(InputError, match="no schedule can run"):
        find_answer(state)
    assert "out of memory" in page(state)["form-why.children"]


def test_where_time_goes() -> None:
    shown = named(graph_outputs(TIME_FIGURES), time_values(SMALL))
    answer = find_answer(SMALL)
    total = shown["waterfall.figure"].data[-1]
    assert total.x[0] == pytest.approx(1e3 * answer.shown.time_s)
    assert len(shown["breakdown.figure"].layout.yaxis.ticktext) == len(answer.results)
    points = [x for trace in shown["roofline.figure"].data[1:] for x in trace.x]
    assert points and answer.shown.roofline is not None


def test_how_sure_says_interval_terms_and_earlier_errors() -> None:
    shown = named(sure_outputs(), sure_values(SMALL))
    result = find_answer(SMALL).shown
    assert format_ns(result.uncertainty.high_s * 1e9) in shown["sure-text.children"]
    assert set(result.provenance["terms"]) & set(texts(shown["sure-terms.children"]))
    assert all(each.what in texts(shown["sure-runs.children"]) for each in load_evidence())
    interval = next(line for line in comparison(result, None) if "interval" in line[0])
    assert format_ns(result.uncertainty.low_s * 1e9) in interval[1]


def test_links_and_trade_offs() -> None:
    links = named(graph_outputs(("link-loads",)), links_values(SMALL))["link-loads.figure"]
    lines = {trace.name: len(trace.x) for trace in links.data if trace.mode == "lines"}
    assert lines["idle"] and sum(lines.values()) > lines["idle"]
    assert any("GPU 0 → NVSwitch of node 0" in text for trace in links.data for text in trace.text or ())
    pareto = named(graph_outputs(("pareto",)), pareto_values(SMALL))["pareto.figure"]
    assert sum(len(trace.x) for trace in pareto.data if trace.mode == "markers") == len(find_answer(SMALL).results)


def test_two_set_ups_side_by_side() -> None:
    lines = {name: rest for name, *rest in comparison(find_answer(SLOW).shown, find_answer(SMALL).shown)}
    slow, small = find_answer(SLOW).shown.time_s, find_answer(SMALL).shown.time_s
    assert lines["time"][2] == f"{slow / small - 1:+.1%}" and lines["time"][1]
    shown = page(SLOW, SMALL.query)
    assert quote(SMALL.query, safe="") in shown["link.data"] and not shown["drop.hidden"]
    assert fill_form(shown["link.data"])[-2] == SMALL.query
    assert differences(SLOW, SMALL) == [("NVLink", "0.125×", "1×")]
    beside = named(compare_outputs(), update_compare(SLOW.query, "compare", SMALL.query))
    ranges = {beside[f"{who}-timeline.figure"].layout.xaxis.range for who in ("now", "kept")}
    assert len(ranges) == 1 and not beside["compared.hidden"] and beside["compare-empty.hidden"]
    assert "NVLink" in texts(beside["differences.children"])


def test_nothing_kept_says_how_to_keep() -> None:
    beside = named(compare_outputs(), update_compare(SMALL.query, "compare", None))
    assert "Keep to compare" in beside["compare-note.children"] and beside["compared.hidden"]
    assert update_compare(SMALL.query, "ranking", None) == [no_update] * len(compare_outputs())


def test_a_kept_set_up_that_cannot_run_is_left_out() -> None:
    assert "kept" not in page(SMALL, "?gpus=none")["link.data"]


def test_a_measured_timeline_is_shown_beside_the_simulation(tmp_path: Path) -> None:
    assert measured(SMALL)["measured-run-card.hidden"] and "file or folder" in measured(SMALL)["measured-note.children"]
    timeline = ring_timeline(2)
    save_timeline(timeline, tmp_path / "run.npz")
    state = State(gpus="2", seq_len="8k", measured=str(tmp_path / "run.npz"))
    shown = measured(state)
    figure = shown["measured-run.figure"]
    assert not shown["measured-run-card.hidden"] and figure.layout.title.text == "<b>Measured</b>"
    ends = [base + length for trace in figure.data for base, length in zip(trace.base, trace.x, strict=True)]
    assert max(ends) == pytest.approx(timeline.makespan_ns / 1e6)
    assert shown["simulated-run.figure"].layout.xaxis.range == figure.layout.xaxis.range
    assert "simulated" in shown["measured-note.children"].lower() and "idle" in texts(shown["measured-table.children"])
    assert "run.npz" not in page(state)["command.children"] and "run.npz" in page(state)["link.data"]
    assert (
        "different numbers of ranks"
        in measured(State(gpus="4", seq_len="8k", measured=state.measured))["measured-note.children"]
    )
    assert "cannot be read" in page(State(measured="nowhere.npz"))["measured-why.children"]


def test_a_validation_run_is_shown_as_predicted_against_measured() -> None:
    runs = json.loads((VALIDATION / "agreement.json").read_text())["runs"]
    shown = measured(State(gpus="1", seq_len="8k", measured=str(VALIDATION)))
    points = [x for trace in shown["agreement.figure"].data if trace.mode == "markers" for x in trace.x]
    assert sorted(points) == pytest.approx(sorted(1e3 * run["measured_s"] for run in runs))
    assert not shown["agreement-card.hidden"] and shown["measured-run-card.hidden"]
    operations = State(gpus="1", seq_len="8k", measured=str(next(VALIDATION.glob("*.timeline.zip"))))
    assert measured(operations)["measured-run.figure"].data


def test_a_calibration_is_shown_as_this_gpu_prices_it() -> None:
    shown = measured(State(gpus="1", seq_len="8k", measured=str(RECORDS)))
    figure = shown["agreement.figure"]
    measured_ms, predicted_ms = (
        [value for trace in figure.data if trace.mode == "markers" for value in getattr(trace, axis)] for axis in "xy"
    )
    errors = sorted(abs(p / m - 1) for p, m in zip(predicted_ms, measured_ms, strict=True))
    assert len(errors) > 100 and errors[len(errors) // 2] < 0.05
    slow = measured(State(gpus="1", seq_len="8k", flop="0.25", measured=str(RECORDS)))["agreement.figure"]
    assert max(slow.data[0].y) > 2 * max(figure.data[0].y)


def test_files_that_hold_nothing_measured_are_refused(tmp_path: Path) -> None:
    for name, text in (
        ("a.json", "[]"),
        ("b.json", '{"runs": [{"schedule": "ring"}]}'),
        ("c.jsonl", '{"machine": 1}\n'),
    ):
        (tmp_path / name).write_text(text)
        assert page(State(measured=str(tmp_path / name)))["measured-why.children"], name


def test_crossover_rows_are_those_of_single_simulations() -> None:
    crossings = Crossings(Here())
    rows = crossings.rows(SMALL)
    assert len(rows) == len(SCHEDULES) * len(FACTORS) * len(OCTAVES)
    row = next(r for r in rows if (r["schedule"], r["seq_len"], r["factor"]) == ("ring", 16384, 0.5))
    alone = attnsim.simulate(State(gpus="4", seq_len="16k", nvlink="0.5").request(schedule="ring"))
    assert row["time_s"] == alone.time_s
    assert crossings.rows(State(gpus="4", seq_len="8k", schedule="ring")) is rows
    assert "attention alone" in crossover_values(crossings, State(subject="model/step"))[0].layout.title.subtitle.text


def test_the_link_that_is_scaled_is_the_one_that_carries() -> None:
    states = [State(gpus="16"), State(), State(topology="pcie-8x")]
    assert [link_of(state) for state in states] == ["net", "nvlink", "pcie"]


def test_of_a_trace_of_several_steps_one_is_compared() -> None:
    trace = RECORDED / "h100-pair-ring"
    timeline = load_measured(str(trace)).timeline
    assert timeline is not None
    assert timeline.makespan_ns == select_step(read_recording(trace)).makespan_ns
    assert timeline.makespan_ns < read_recording(trace).timeline.makespan_ns / 2


def test_the_page_is_served_from_here_alone(client: Any) -> None:
    html = client.get("/", headers={"Host": "127.0.0.1:8050"})
    assert html.status_code == 200
    assert "http://" not in html.text.replace("http://www.w3.org", "") and "https://" not in html.text
    assert client.get("/", headers={"Host": "attacker.example"}).status_code == 403
    layout = client.get("/_dash-layout").get_json()
    assert all(name in json.dumps(layout) for name in (*FIELDS, *VIEWS))


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
    wrong = client.get("/export.json?gpus=none&mask=triangle")
    assert wrong.status_code == 400 and "whole number" in wrong.text and "unknown mask" in wrong.text


@pytest.mark.parametrize(
    "state",
    [
        SLOW,
        State(gpus="16", nodes="4", seq_len="8k", kernel="flash2", interference="on"),
        State(
            subject="model/step",
            gpus="4",
            seq_len="4k",
            tp="2",
            checkpoint="full",
            offload="activations",
            zero="1",
            optimizer="adamw-8bit",
            method="lora:rank=8",
            loss_chunks="2",
        ),
        State(
            subject="model/prefill",
            gpus="4",
            seq_len="4k",
            tp="2",
            batch="2",
            prefill_chunk="1k",
            cached_prefix="2k",
            kv_dtype="int8",
            weight_bits="4.5",
        ),
        State(
            subject="model/decode",
            gpus="4",
            seq_len="4k",
            pp="2",
            new_tokens="3",
            cuda_graphs="on",
            kv_block="256",
            stage_link="5ms,1Gbit/s",
        ),
    ],
    ids=["attention", "nodes", "step", "prefill", "decode"],
)
def test_python_command_and_link_reproduce_the_number(state: State, tiny: str, tmp_path: Path) -> None:
    state = replace(state, model=tiny)
    shown, expected = page(state), find_answer(state).shown.time_s
    scope: dict[str, Any] = {}
    exec(shown["python.children"], scope)
    assert scope["result"].time_s == expected
    with pytest.raises(SystemExit, match="0"):
        attnsim.main([*shlex.split(shown["command-shown.children"])[1:], "--json", str(tmp_path / "one.json")])
    assert json.loads((tmp_path / "one.json").read_text())["time_s"] == expected
    with pytest.raises(SystemExit, match="0"):
        attnsim.main([*shlex.split(shown["command.children"])[1:], "--json", str(tmp_path / "all.json")])
    assert expected in [each.get("time_s") for each in json.loads((tmp_path / "all.json").read_text())]
    assert page(State.from_query(shown["link.data"]))["title.children"] == shown["title.children"]


def test_ranking_names_are_short() -> None:
    names = page(SMALL)["ranking.figure"].layout.yaxis.ticktext
    assert len(set(names)) == len(names) == len(find_answer(SMALL).results)
    full = plot_ranking([each.to_json() for each in find_answer(SMALL).results]).layout.yaxis.ticktext
    assert sum(map(len, names)) < sum(map(len, full))
