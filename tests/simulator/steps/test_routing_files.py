"""Files of experts' weights are outside files: bounded, and refused with one message of their own."""

from pathlib import Path

import pytest

from cost_models.models.shape import MoeShape
from simulator.grid import Grid
from simulator.layers.routing import MAX_FILE_BYTES, build_routing
from traces.errors import InputError

MOE = MoeShape(experts=4, top_k=2, shared=0, intermediate=8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b" \n", "is empty"),
        (b"\xff\xfe1,2,3,4", "is not a CSV of numbers"),
        (b"1,2,x,4", "is not a CSV of numbers"),
        (b"1,2,3", "has other rows or columns"),
        (b"1" * (MAX_FILE_BYTES + 1), "is too large"),
    ],
)
def test_what_is_no_routing_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "routing.csv").write_bytes(data)
    with pytest.raises(InputError, match=f"^routing file [^ ]+ {said}"):
        build_routing(MOE, Grid(), 6, 1, f"@{tmp_path / 'routing.csv'}")


def test_an_endless_file_is_not_read_whole() -> None:
    with pytest.raises(InputError, match="too large"):
        build_routing(MOE, Grid(), 6, 1, "@/dev/zero")


def test_weights_of_a_file_share_tokens_out(tmp_path: Path) -> None:
    (tmp_path / "routing.csv").write_text("3,1,1,1\n")
    assert build_routing(MOE, Grid(), 6, 1, f"@{tmp_path / 'routing.csv'}").counts.tolist() == [[6, 2, 2, 2]]
