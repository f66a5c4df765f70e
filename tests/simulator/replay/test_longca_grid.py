"""The grid of predictions: all masks at all sizes, and the committed page is of this code."""

from pathlib import Path

import pytest

from cost_models.masks import parse_mask
from simulator.replay.longca_grid import DOCUMENTS, GPUS, MASKS, MECHANISMS, TOKENS, build_machine, build_mask, predict
from simulator.replay.rows import Skip

PAGE = Path(__file__).parents[3] / "docs" / "longca-grid.md"


@pytest.fixture(scope="module")
def machine():
    return build_machine()


@pytest.mark.parametrize("gpus", GPUS)
@pytest.mark.parametrize("name", MASKS)
def test_masks_fit_their_sequence(name, gpus):
    seq_len = TOKENS * gpus
    area = parse_mask(build_mask(name, gpus), seq_len).area(seq_len)
    assert 0 < area <= seq_len**2
    if name == "Full document":
        assert area / seq_len**2 == pytest.approx(DOCUMENTS[gpus][1], rel=0.02)


def cell(mask_name, gpus, mechanism):
    section = PAGE.read_text().split(f"\n## {mask_name}\n")[1]
    row = next(line for line in section.splitlines() if line.startswith(f"| {gpus} |"))
    return row.split("|")[2 + list(MECHANISMS).index(mechanism)].strip()


@pytest.mark.parametrize(
    ("mask_name", "gpus", "mechanism"),
    [
        ("Full", 8, "Ring P2P"),
        ("Causal", 32, "USP"),
        ("Causal document", 8, "MagiAttention"),
        ("Share question", 16, "Ulysses"),
    ],
)
def test_page_is_of_this_code(mask_name, gpus, mechanism, machine):
    """Within 5 %, else make it anew: python -m simulator.replay.longca_grid."""
    printed = [float(text) for text in cell(mask_name, gpus, mechanism).split("/")]
    assert printed == pytest.approx(predict(mechanism, mask_name, gpus, machine), rel=0.05)


def test_what_cannot_run_is_a_cross_with_a_reason(machine):
    with pytest.raises(Skip, match="64 heads are not divisible by 96"):
        predict("Ulysses", "Causal", 96, machine)
    assert cell("Causal", 96, "Ulysses") == "x"
    assert "- Ulysses on 96 GPUs: 64 heads are not divisible by 96 ranks" in PAGE.read_text()
