"""The keys that queries need are those that the definition allows any of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import Mask, TokenRange, gather_tokens, needed_keys
from cost_models.masks.static import CausalMask
from tests.cost_models.masks.examples import allowed_matrix, masks_and_lengths
from traces.errors import InputError


@given(st.data(), masks_and_lengths())
def test_needed_keys_are_the_definition(data: st.DataObject, case: tuple[Mask, int]) -> None:
    mask, seq_len = case
    edges = sorted(data.draw(st.lists(st.integers(0, seq_len), min_size=2, max_size=6, unique=True)))
    queries = [TokenRange(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    rows = gather_tokens(queries)
    seen = allowed_matrix(mask, rows, np.arange(seq_len)).any(axis=0)
    found = needed_keys(mask, queries, seq_len)
    assert gather_tokens(found).tolist() == np.flatnonzero(seen).tolist()
    assert all(a.stop < b.start for a, b in zip(found, found[1:], strict=False)), "neighbours are one range"


def test_strided_queries_are_refused() -> None:
    with pytest.raises(InputError, match="strided queries"):
        needed_keys(CausalMask(), [TokenRange(0, 8, 2)], 8)
