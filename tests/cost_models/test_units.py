"""Numbers as people write them: exact, or refused with one message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.units import DTYPE_BYTES, MAX_COUNT, dtype_bytes, format_count, parse_count
from traces.errors import InputError


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        (" 12 ", 12),
        ("128k", 131072),
        ("128K", 131072),
        ("128Ki", 131072),
        ("1M", 1 << 20),
        ("2g", 1 << 31),
        ("1.5k", 1536),
        ("0.5M", 1 << 19),
        ("4096.0", 4096),
        # A float holds 53 bits: these would come out as 2^53 and 2^62 + 2^10.
        ("9007199254740993", 9007199254740993),
        ("4611686018427388903", 4611686018427388903),
        ("9223372036854775807", MAX_COUNT),
        (4096, 4096),
        (0, 0),
    ],
)
def test_counts(text: str | int, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "k", "12x", "1e3", "-4", "+4", "1.5", "1.0001k", "1,000", "0x10", "4 k", "5i", "1.k", ".5k", "nan", "inf"]
    + ["٣", "1k\n2", "4k+8k"],
)
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(InputError, match="seq_len is not a whole number: got .*, expected digits"):
        parse_count(text, "seq_len")


@pytest.mark.parametrize("value", [True, False, None, 2.0, -1, [4]])
def test_values_that_are_no_count(value: object) -> None:
    with pytest.raises(InputError, match="count is not a whole number"):
        parse_count(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "9999999999G", 1 << 63, "9" * 400, "9" * 5000, "1." + "0" * 99]
)
def test_too_large(text: str | int) -> None:
    with pytest.raises(InputError, match=r"too (large|many digits).*expected at most 2\^63 - 1") as caught:
        parse_count(text)
    assert len(caught.value.message) < 200


def test_a_file_of_the_wrong_kind_does_not_fill_the_terminal() -> None:
    with pytest.raises(InputError) as caught:
        parse_count("x" * 10**6)
    assert len(caught.value.message) < 250


@given(st.integers(0, MAX_COUNT))
def test_written_and_read_back(count: int) -> None:
    assert parse_count(format_count(count).replace(",", "")) == count
    assert parse_count(str(count)) == count


@given(st.integers(0, 10**6), st.sampled_from([("k", 10), ("M", 20), ("g", 30)]))
def test_binary_suffixes(count: int, suffix: tuple[str, int]) -> None:
    assert parse_count(f"{count}{suffix[0]}") == count << suffix[1]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1023, "1,023"), (1024, "1k"), (3 << 19, "1,536k"), (1 << 40, "1,024G")]
)
def test_shown(count: int, text: str) -> None:
    assert format_count(count) == text


def test_dtypes() -> None:
    assert [dtype_bytes(name) for name in ("fp32", "bf16", "fp16", "fp8")] == [4, 2, 2, 1]
    with pytest.raises(InputError, match="unknown dtype: got float32, expected one of fp32"):
        dtype_bytes("float32")
    assert min(DTYPE_BYTES.values()) == 1
