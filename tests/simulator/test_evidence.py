"""What is said of earlier errors is what the comparisons hold; a prediction says what it rests on."""

from __future__ import annotations

import json
import runpy

import attnsim
from simulator.evidence import FILE, describe_trust, load_evidence, terms_of, unmeasured


def test_the_file_is_what_is_gathered_from_the_comparisons() -> None:
    script = FILE.parents[2] / "scripts/gather_evidence.py"
    gathered = runpy.run_path(str(script))["gather"]()
    assert json.loads(FILE.read_text(encoding="utf-8")) == gathered, f"run python {script}"


def test_evidence_has_ours_and_others_and_shares_are_shares() -> None:
    rows = load_evidence()
    assert {each.by for each in rows} == {"us", "others, published"}
    for each in rows:
        assert each.runs > 0 and 0 < each.median <= each.p95
        assert all(0 <= share <= 1 for share in (each.inside, each.ordered) if share is not None)
    assert len({tuple(each.row) for each in rows}) == 1
    assert bool(unmeasured()) != json.loads(FILE.read_text(encoding="utf-8"))["several_gpus"]


def test_a_prediction_says_its_interval_and_what_it_rests_on() -> None:
    result = attnsim.simulate(schedule="ring", model="llama-3.1-8b", topology="dgx-h100", seq_len="8k", gpus=2)
    text = describe_trust(result)
    terms = terms_of(result.provenance)
    assert text.startswith("90% interval: ") and len(terms) == len(result.provenance["terms"])
    assert all(each["term"] in text and each["error"] in text for each in terms)
    assert "NVLink" in text and "link nvlink" not in text
