"""What one line or one field of a raw file says: Python literals without eval, and text without markup."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.datasets.raw.cleaning import clean, key, price
from benchmark.datasets.raw.objects import parse_object

RTL = "قهوة \u200fعربية"
EMOJI = "👩‍👩‍👧 mug ☕"

# Python literals


SCALARS = st.one_of(
    st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)


@given(st.dictionaries(st.text(), st.one_of(SCALARS, st.lists(SCALARS), st.dictionaries(st.text(), SCALARS))))
def test_a_python_literal_says_what_python_wrote(value: dict[str, Any]) -> None:
    found = parse_object(repr(value), value.keys())
    assert found == value
    assert found is not None and list(map(type, found.values())) == list(map(type, value.values()))


@given(st.dictionaries(st.text(), SCALARS, min_size=1))
def test_a_json_object_says_what_json_wrote(value: dict[str, Any]) -> None:
    assert parse_object(json.dumps(value), ()) == value


@pytest.mark.parametrize(
    "line",
    [
        "{'a': 'x' + 'y'}",
        "{'a': __import__('os').getcwd()}",
        "{'a': open}",
        "{'a': 1, 'b'}",
        "{'a': 1}}",
        "{'a': 1 'b': 2}",
        "x{'a': 1}",
        "{'a': 'b', 'c': '\\x'}",
        "{[]: 1}",
        "{1, 2}",
    ],
)
def test_what_is_no_literal_object_is_none(line: str) -> None:
    assert parse_object(line, ("a", "c")) is None


def test_unicode_prefix_and_later_keys_count() -> None:
    assert parse_object("""{u'a': u"it's", 'b': u'\\u2615', 'a': 'last'}""", ("a", "b")) == {"a": "last", "b": "☕"}


# Text


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("A &amp;quot;B&amp;quot; &#39;C&#39;", "A \"B\" 'C'"),
        ("<b>Bold</b> &lt;i&gt;move&lt;/i&gt;<br>now", "Bold move now"),
        ("ages <3, size <M and > L, a<b", "ages <3, size <M and > L, a<b"),
        ('Mug <span class="a-size-base', "Mug"),
        ("Mug <!-- a --> red <!-- b", "Mug red"),
        ("Mug <script>var a = '<b>';</script> red <style>.a{b:c}</style>", "Mug red"),
        ("Mug <script>var a = 1", "Mug"),
        ("var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();", ""),
        (".a-box-inner{background-color:#fff} #x .y:hover { a: b } Mug", "Mug"),
        ("Set {red} of 3. Nice.", "Set {red} of 3. Nice."),
        ("a\0b\x07c\x85d\u2028e\xa0 \t f", "a b c d e f"),
        (" \n ", ""),
        (None, ""),
        (3.5, ""),
        ("\ud83d\ude00 \ud83d.", "😀 \ufffd."),
        (RTL, RTL),
        (EMOJI, EMOJI),
        ("long " * 2000 + "end", "long " * 2000 + "end"),
    ],
)
def test_clean(raw: object, said: str) -> None:
    assert clean(raw) == said


@pytest.mark.parametrize("text", ["<a ", ".a", ".a ", "<!--", "&", "<script", "<a b=", "{", ".a{"])
def test_hostile_text_is_cleaned_in_linear_work(text: str) -> None:
    assert isinstance(clean(text * 100_000 + "{ end"), str)  # quadratic work would take minutes


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (12.99, "12.99"),
        (5, "5.00"),
        ("$12.99", "12.99"),
        ("$5.00 - $1,010.00", "5.00 - 1010.00"),
        (".a-box-inner{background-color:#fff}", ""),
        ("", ""),
        (None, ""),
        (True, ""),
        (float("nan"), ""),
    ],
)
def test_price(raw: object, said: str) -> None:
    assert price(raw) == said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (" Bob ", " Bob "),
        ("a\tb\nc\0", "a b c "),
        (" \t", ""),
        (7, "7"),
        (7.0, "7"),
        (7.5, ""),
        (True, ""),
        (None, ""),
        (RTL, RTL),
        (EMOJI, EMOJI),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_key(raw: object, said: str) -> None:
    assert key(raw) == said
