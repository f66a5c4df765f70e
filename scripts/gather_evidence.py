"""Writes how wrong predictions have been (`simulator/data/evidence.json`), from what was measured and replayed.

Sources: `docs/validation/*/agreement.json` (our runs) and `tests/simulator/replay/golden/` (published measurements).
`scripts/refresh_docs.py` calls it; a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VALIDATION, GOLDEN = ROOT / "docs/validation", ROOT / "tests/simulator/replay/golden"
WRITTEN = ROOT / "simulator/data/evidence.json"
RUNS = (
    ("attention on one H100, limited by the device", "h100-single/runs", "device"),
    ("attention on one H100, limited by its host", "h100-single/runs", "host"),
    ("training steps on one H100, held out", "h100-steps-heldout", None),
    ("schedules and peers on two H100, limited by the device", "h100-pair/judge", "device"),
    ("the same, limited by their host", "h100-pair/judge", "host"),
    ("training steps on two H100", "h100-pair-steps", None),
    ("4 and 8 processes over gloo on CPU cores", "h100-gloo-14", None),
)
PUBLISHED = (
    ("8 mechanisms on 8 and 32 H100 (MagiAttention)", "magi-distributed"),
    ("Burst, LoongTrain, USP, Megatron on 32 A800 (BurstAttention)", "burst-bench"),
    ("USP and rings on 8 A100 (yunchang)", "usp"),
    ("decoding on 1 to 8 A100 (gpt-fast)", "gpt-fast"),
)


def gather() -> dict[str, Any]:
    """A row for each kind of evidence; whether several GPUs were ever measured together."""
    rows = [*(_ours(*each) for each in RUNS), *(_published(*each) for each in PUBLISHED)]
    on_gpus = [each for each in VALIDATION.rglob("agreement.json") if "gloo" not in str(each.relative_to(ROOT))]
    ranks = [int(count) for each in on_gpus for count in json.loads(each.read_text(encoding="utf-8"))["by_ranks"]]
    return {"rows": rows, "several_gpus": max(ranks, default=0) > 1}


def write() -> bool:
    """Write the file; whether it has changed."""
    text = json.dumps(gather(), indent=1) + "\n"
    changed = not WRITTEN.exists() or WRITTEN.read_text(encoding="utf-8") != text
    if changed:
        WRITTEN.parent.mkdir(exist_ok=True)
        WRITTEN.write_text(text, encoding="utf-8")
    return changed


def _ours(what: str, folder: str, limit: str | None) -> dict[str, Any]:
    found = json.loads((VALIDATION / folder / "agreement.json").read_text(encoding="utf-8"))
    summary = found["by_limit"][limit] if limit else found["summary"]
    error, inside, ordered = summary["error"], summary.get("in_90_percent_interval"), summary.get("ordered_right")
    return {
        "what": what, "by": "us", "runs": summary["runs"], "median": round(error["median_size"], 4),
        "p95": round(error["p95_size"], 4), "inside": None if inside is None else round(inside, 3),
        "ordered": None if ordered is None else round(ordered, 3),
    }  # fmt: skip


def _published(what: str, source: str) -> dict[str, Any]:
    summary = json.loads((GOLDEN / f"{source}.json").read_text(encoding="utf-8"))["all"]
    ordered = summary["ordered"] / summary["pairs"] if summary["pairs"] else None
    return {
        "what": what, "by": "others, published", "runs": summary["rows"],
        "median": summary["median"], "p95": summary["p95"], "inside": None,
        "ordered": None if ordered is None else round(ordered, 3),
    }  # fmt: skip


if __name__ == "__main__":
    print(f"{'written' if write() else 'up to date'}: {WRITTEN.relative_to(ROOT)}")
