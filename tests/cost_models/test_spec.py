"""``NAME:key=value,...``: what is read is written back; what is malformed is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.spec import Spec, parse_bool, parse_spec
from traces.errors import InputError

words = st.text("abcz019-+@./", min_size=1)


@given(words, st.dictionaries(words, words.map(lambda word: f"={word}") | words))
def test_what_is_written_is_read_back(name: str, options: dict[str, str]) -> None:
    spec = Spec(name, options)
    assert parse_spec(str(spec)) == spec


def test_options_keep_their_order() -> None:
    text = "usp:ulysses=8,ring=4,placement=head-first"
    assert list(parse_spec(text).options.items()) == [("ulysses", "8"), ("ring", "4"), ("placement", "head-first")]
    assert str(parse_spec(f"  {text} ")) == text


def test_a_value_may_hold_colons_and_equals_signs() -> None:
    assert parse_spec("document:lengths=@C:/a=b.txt").options == {"lengths": "@C:/a=b.txt"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "schedule is malformed: got ''"),
        ("  ", "schedule is malformed"),
        (":a=1", "schedule is malformed"),
        ("ring:", "schedule is malformed"),
        ("ring:a", "malformed at 'a'"),
        ("ring:a=", "malformed at 'a='"),
        ("ring:=1", "malformed at '=1'"),
        ("ring:a=1,", "malformed at ''"),
        ("ring:a=1,,b=2", "malformed at ''"),
        ("document:lengths=@a,b.txt", "malformed at 'b.txt'"),
        ("ring:a=1,a=1", "names 'a' twice: .*; keep one"),
    ],
)
def test_malformed(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_spec(text, "schedule")


def test_unknown_options() -> None:
    parse_spec("ring:grad=bf16").only(("partition", "grad"))
    with pytest.raises(InputError, match="ring has no option 'gard': expected one of partition, grad"):
        parse_spec("ring:gard=bf16").only(("partition", "grad"))
    with pytest.raises(InputError, match="causal has no option 'window': expected no options"):
        parse_spec("causal:window=4").only(())


def test_booleans() -> None:
    assert [parse_bool(text, "causal") for text in ("true", "True", "1", "yes")] == [True] * 4
    assert [parse_bool(text, "causal") for text in ("false", "FALSE", "0", "no")] == [False] * 4
    for text in ("", "2", "none", "truee"):
        with pytest.raises(InputError, match="causal is neither true nor false"):
            parse_bool(text, "causal")
