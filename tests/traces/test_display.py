"""Quantities as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.display import BYTE_UNITS, TIME_UNITS, format_bytes, format_field, format_ns

FIELDS = [
    ("time_s", 0.0244, "24.4 ms"),
    ("nvlink_gb_per_s", 370.8, "370.8 GB/s"),
    ("gb_per_s", 50.0, "50 GB/s"),
    ("hbm_bytes_per_s", 2.0**40, "1 TiB/s"),
    ("tokens_per_s", 5284, "5,284/s"),
    ("exposed_communication_s", 0.0, "0 ns"),
    ("wait_ns", 1500, "1.5 µs"),
    ("error_s", -0.002, "-2 ms"),
    ("peak_memory_bytes", 5 << 30, "5 GiB"),
    ("bytes_sent_per_rank", (1 << 30,) * 3, "1 GiB (each of 3)"),
    ("bytes_sent_per_rank", range(0, 20 << 10, 2048), "0 B to 18 KiB (10 values)"),
    ("lengths", (4096, 8192), "4,096, 8,192"),
    ("names", ["a", "b"] * 5, "a, b, a, b, a, b, a, b, a, b"),
    ("nothing", [], ""),
    ("seq_len", 131072, "131,072"),
    ("pairs_total", 8_590_000_128, "8.59 G"),
    ("flop_total", 1.5e15, "1.5 P"),
    ("level", 0.9, "0.9"),
    ("low_s", math.inf, "inf"),
    ("fits", False, "no"),
    ("model", None, "none"),
    ("schedule", "ring:grad=fp32", "ring:grad=fp32"),
]


@pytest.mark.parametrize(("name", "value", "text"), FIELDS)
def test_field(name, value, text):
    assert format_field(name, list(value) if isinstance(value, range) else value) == text


@given(st.integers(1, 10**12))
def test_time_is_right_to_three_digits(time_ns):
    assert_right(format_ns(time_ns), time_ns, dict(TIME_UNITS))


@given(st.integers(1, 2**50))
def test_size_is_right_to_three_digits(n_bytes):
    assert_right(format_bytes(n_bytes), n_bytes, dict(BYTE_UNITS))


def assert_right(text: str, value: int, units: dict[str, float]) -> None:
    number, unit = text.split(" ")
    assert float(number) * units[unit] == pytest.approx(value, rel=0.005)
    assert len(number.replace(".", "")) <= 4
    assert float(number) >= 1
