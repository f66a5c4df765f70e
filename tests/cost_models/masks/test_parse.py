"""Names of masks: what is read is written back, and what is wrong is said in one message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given

from cost_models.masks import (
    MASKS,
    BlockCausalDocument,
    BlockSparse,
    CausalMask,
    Document,
    FullMask,
    GlobalSliding,
    Mask,
    PrefixDocument,
    SlidingWindow,
    parse_mask,
)
from cost_models.masks.parse import MAX_LENGTHS_BYTES
from tests.cost_models.masks.examples import masks_and_lengths
from traces.errors import InputError


@given(masks_and_lengths())
def test_what_is_written_is_read_back(case: tuple[Mask, int]) -> None:
    mask, seq_len = case
    read = parse_mask(str(mask), seq_len)
    assert read == mask
    assert hash(read) == hash(mask)
    assert str(read) == str(mask)


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("full", FullMask()),
        ("causal", CausalMask()),
        ("sliding-window:window=4k", SlidingWindow(4096)),
        ("sliding-window:window=4k,causal=true", SlidingWindow(4096, causal=True)),
        ("document:lengths=4k+8k+4k", Document((4096, 8192, 4096))),
        ("document:causal=true,lengths=1+2", Document((1, 2), causal=True)),
        ("global-sliding:window=2,global=1", GlobalSliding(2, 1)),
        ("prefix-document:lengths=1k+3k,prefix=100", PrefixDocument((1024, 3072), 100)),
        ("block-causal-document:lengths=4k+4k", BlockCausalDocument((4096, 4096), 1024)),
        ("block-sparse", BlockSparse(128, 0.2, 0)),
        ("block-sparse:keep=0.5,seed=7,variable=true", BlockSparse(128, 0.5, 7, variable=True)),
    ],
)
def test_contract_names(text: str, mask: Mask) -> None:
    assert parse_mask(text) == mask


def test_the_contract_names_all_masks() -> None:
    names = """full causal sliding-window document share-question causal-blockwise global-sliding
        prefix-causal prefix-document block-causal-document block-sparse"""
    assert set(MASKS) == set(names.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mask is malformed"),
        ("causl", "unknown mask: got 'causl', expected one of full, causal"),
        ("causal:window=4", "causal has no option 'window'"),
        ("causal:", "malformed"),
        ("sliding-window", "needs window="),
        ("sliding-window:window=0", "window is too small: got 0"),
        ("sliding-window:window=-3", "window is not a whole number"),
        ("sliding-window:window=4.3", "window is not a whole number"),
        ("sliding-window:window=" + "9" * 400, "window has too many digits"),
        ("sliding-window:window=4,causal=maybe", "causal is neither true nor false"),
        ("sliding-window:window=4,window=5", "names 'window' twice"),
        ("global-sliding:window=4", "needs global="),
        ("global-sliding:window=4,global_=4", "no option 'global_'"),
        ("prefix-causal:prefix=0", "prefix is too small"),
        ("document", "document mask needs lengths=.*lengths=4k.8k|@file,causal=true"),
        ("document:lengths=4++4", "document length is not a whole number: got ''"),
        ("document:lengths=8+0", "document length is too small: got 0"),
        ("document:lengths=3+4", "lengths do not sum to seq_len: got 7 tokens in 2 documents, expected 8"),
        ("share-question:lengths=9", "do not sum"),
        ("block-causal-document:lengths=8,block=0", "block is too small"),
        ("block-sparse:keep=0", "keep is no share: got 0.0"),
        ("block-sparse:keep=1.01", "keep is no share"),
        ("block-sparse:keep=nan", "keep is no share"),
        ("block-sparse:keep=most", "keep is not a number: got 'most'"),
        ("block-sparse:seq_len=8", "no option 'seq_len'"),
        ("document:lengths=@", "document lengths .* cannot be read"),
        ("document:lengths=@/nowhere/at/all", "document lengths '/nowhere/at/all' cannot be read: got No such file"),
        ("document:lengths=@a\0b", "document lengths .* cannot be read"),
    ],
)
def test_bad_names(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_mask(text, 8)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("options", [{"block": 0}, {"keep": 0.0}, {"seed": -1}])
def test_bad_options_in_python(options: dict[str, int]) -> None:
    with pytest.raises(InputError):
        BlockSparse(**options)  # type: ignore[arg-type]


def test_no_documents() -> None:
    with pytest.raises(InputError, match="number of documents is too small"):
        Document(())


@pytest.mark.parametrize("content", ["4k 8k\n4k\n", "4096,8192,4096", "4k+8k+4k", "  4k\r\n8k,\t4k  "])
def test_lengths_from_a_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lengths.txt"
    path.write_text(content)
    mask = parse_mask(f"document:lengths=@{path},causal=true", 16384)
    assert mask == Document((4096, 8192, 4096), causal=True)
    assert str(mask) == "document:lengths=4k+8k+4k,causal=true"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe\x00\x01", "expected a text file"),
        (b"\0" * 1000, "document length is not a whole number"),
        (b"4k 8x", "document length is not a whole number: got '8x'"),
        (b"# lengths\n4k", "not a whole number: got '#'"),
        (b"4k 4k", "do not sum"),
        (b"1 " * (MAX_LENGTHS_BYTES // 2) + b"1", "is too large"),
        (b"7" * MAX_LENGTHS_BYTES, "too many digits"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_bad_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "lengths.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        parse_mask(f"document:lengths=@{path}", 16384)
    assert len(caught.value.message) < 400


def test_a_folder_and_an_endless_file_are_no_files_of_lengths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="document lengths .* cannot be read"):
        parse_mask(f"document:lengths=@{tmp_path}", 8)
    if os.path.exists("/dev/zero"):  # noqa: PTH110
        with pytest.raises(InputError, match="is too large"):
            parse_mask("document:lengths=@/dev/zero", 8)
