"""Replays end to end: a row each, constants never refitted, and the errors as they were last seen."""

import csv
import json
from functools import lru_cache
from pathlib import Path

import pytest

import attnsim
from simulator.replay import SOURCES, replay, summarise
from simulator.replay.registry import load_sources
from simulator.replay.source import DATA
from traces.errors import InputError

GOLDEN = Path(__file__).with_name("golden")
KERNEL_ROW = {
    "source": "MagiAttention docs", "table_or_figure": "kernel/h100/causal_mask/fwd", "method": "FlashAttention-3",
    "gpu": "H100", "n_gpus": "1", "model_or_shape": "batch=1;heads=64;kv_heads=8;head_dim=128", "seq_len": "8192",
    "mask": "causal", "dtype": "bf16", "metric": "forward throughput", "unit": "TFLOP/s", "value": "600",
}  # fmt: skip


@pytest.fixture(scope="module")
def replays():
    return lru_cache(replay)


@pytest.fixture
def write_rows(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.csv"
        with path.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, KERNEL_ROW)
            writer.writeheader()
            writer.writerows({**KERNEL_ROW, **row} for row in rows)
        return path

    return write


@pytest.mark.parametrize("name", SOURCES)
def test_errors_are_as_last_seen(replays, name, update_golden):
    """A change of any term that moves an error shows here; ``--update-golden`` accepts it."""
    seen = {}
    for each in summarise(replays(name)):
        shares = {key: None if (value := getattr(each, key)) is None else round(value, 4) for key in ("median", "p95")}
        counts = {key: getattr(each, key) for key in ("rows", "fitted", "skipped", "pairs", "ordered")}
        seen[each.method or "all"] = {**shares, **counts}
    path = GOLDEN / f"{name}.json"
    if update_golden:
        path.write_text(json.dumps(seen, indent=1) + "\n")
    golden = json.loads(path.read_text())
    assert set(seen) == set(golden)
    for method, values in seen.items():
        assert values == pytest.approx(golden[method], abs=2e-4), method


@pytest.mark.parametrize("name", SOURCES)
def test_sources_are_complete(name):
    """Every committed row is claimed by its source alone, and named in the data's README."""
    (source,) = load_sources(name)
    assert f"`{name}.csv`" in (DATA / "README.md").read_text()
    assert source.rows
    others = [other for other in load_sources("all") if other.name != name]
    for row in source.rows:
        assert source.claims(row)
        assert not any(other.claims(row) for other in others)


@pytest.mark.parametrize("name", SOURCES)
def test_every_row_has_a_prediction_or_a_reason(replays, name):
    for row in replays(name):
        assert (row.predicted is None) == (row.skipped is not None)
        assert row.skipped or (row.predicted > 0 and row.error == pytest.approx(row.predicted / row.published - 1))
        assert not row.in_fit or row.fitted_on


@pytest.mark.parametrize("name", SOURCES)
def test_fits_leave_most_rows_out(replays, name):
    rows = [row for row in replays(name) if not row.skipped]
    assert sum(row.in_fit for row in rows) <= 0.4 * len(rows)


def test_files_give_a_row_each_in_order(write_rows):
    path = write_rows(
        {}, {"seq_len": "many"}, {"source": "nobody"}, {"value": "X (OOM)"}, {"gpu": "TPU"}, {"seq_len": "5000"}
    )
    rows = replay("all", path)
    assert [row.fields["seq_len"] for row in rows] == ["8192", "many", "8192", "8192", "8192", "5000"]
    assert [row.skipped is None for row in rows] == [True, False, False, False, False, True]
    assert rows[2].source == ""
    assert "not a row of" in rows[2].skipped
    assert "TPU" in rows[4].skipped


def test_published_values_do_not_move_predictions(write_rows):
    """Constants come from the committed fit, whatever a file says."""
    rows = replay("magi-kernels", write_rows({"value": "600"}, {"value": "60"}))
    assert rows[0].predicted == rows[1].predicted
    assert rows[0].published != rows[1].published
    assert rows[0].fitted_on.startswith("magi-kernels")


def test_rows_of_other_sources_are_not_taken(write_rows):
    path = write_rows({"table_or_figure": "distributed/h100/causal_mask/fwd"})
    assert replay("magi-kernels", path)[0].skipped == "not a row of magi-kernels"


def test_unknown_sources_are_refused():
    with pytest.raises(InputError, match="unknown source.*magi-kernels"):
        replay("nature")


def test_hostile_rows_never_fail(write_rows):
    texts = [
        "",
        "-1",
        "9" * 30,
        "kernel/h100//fwd",
        "batch=1;heads=0;kv_heads=0;head_dim=1",
        "\x1b[31m",
        "[bold]",
        "nan",
    ]
    columns = [column for column in KERNEL_ROW if column != "source"]
    path = write_rows(*({column: text} for column in columns for text in texts))
    assert len(replay("all", path)) == len(texts) * len(columns)


def test_command_prints_tables_and_writes_json(write_rows, tmp_path, capsys):
    out = tmp_path / "out.json"
    path = write_rows({}, {"gpu": "[bold]TPU"})
    with pytest.raises(SystemExit) as ended:
        attnsim.main(["replay", "magi-kernels", "--rows", str(path), "--json", str(out)])
    assert ended.value.code == 0
    written = json.loads(out.read_text())
    assert written["schema_version"] == 1
    assert [row["skipped"] is None for row in written["rows"]] == [True, False]
    assert {"predicted", "published", "error", "fitted_on"} <= set(written["rows"][0])
    assert [each["source"] for each in written["summary"]] == ["magi-kernels", "magi-kernels"]
    text = capsys.readouterr().out
    assert "FlashAttention-3" in text
    assert "[bold]TPU" in text


def test_command_refuses_bad_input_with_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        attnsim.main(["replay", "all", "--rows", "missing.csv"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: rows missing.csv cannot be read: got No such file or directory\n"
