"""``attnsim choices``: tables, JSON, and the user's own link rates."""

from __future__ import annotations

import json

import pytest

import attnsim
from simulator.choices_command import parse_links
from traces.errors import InputError

OPTIONS = ["choices", "--heads", "12", "--kv-heads", "4", "--head-dim", "128", "--seq-len", "32k", "--gpus", "8",
           "--topology", "dgx-h100"]  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    try:
        attnsim.main([*OPTIONS, *more])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_tables_say_what_can_run_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    can, cannot = out.split("Cannot run")
    assert "ring:partition=zigzag,grad=fp32" in can
    assert "12 heads are not divisible by 8 ranks" in cannot
    assert "the ring hides its hops from" in cannot


def test_json_with_own_rates(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--links", "ring=20,all-gather=100,all-to-all=25", "--json", "-")
    data = json.loads(out)
    reasons = {each["schedule"]: each["reason"] for each in data["choices"]}
    assert reasons["ulysses"] == "12 heads are not divisible by 8 ranks"
    assert reasons["lightseq"] is None
    found = data["crossovers"]
    assert found["ring_over_all_gather_seq_len"] == pytest.approx(found["hidden_seq_len"] * 0.8)
    assert found["all_gather_over_ulysses_ranks"] is None, "4 times the rate and at most 4 KV heads: at any number"


def test_every_combination_is_more(capsys: pytest.CaptureFixture[str]) -> None:
    few, every = (json.loads(run(capsys, "--json", "-", *more)[1])["choices"] for more in ([], ["--every"]))
    assert len(every) > 5 * len(few)


@pytest.mark.parametrize(
    "text", ["ring=20", "ring=20,all-gather=1,all-to-all=0", "ring=x,all-gather=1,all-to-all=1", "a=1"]
)
def test_bad_links(text: str) -> None:
    with pytest.raises(InputError, match="links"):
        parse_links(text)
