"""YAML that says what it says."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.plain_yaml import MOST, parse_yaml, read_yaml

BOMB = "\n".join(
    ["a0: &a0 [" + ",".join("x" * 9) + "]"]
    + [f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "line 1 has an anchor or alias"), ("a: *b", "line 1 has an anchor or alias"), ("a: &b 1", "anchor"),
        ("x: 1\na: !!python/object/apply:os.system [ls]", "line 2 has a tag"), ("a: !own 1", "has a tag"),
        ("a: 1\nb: 2\na: 3", "line 3 has 'a' a second time"), ("m: {a: 1, a: 1}", "line 1 has 'a' a second time"),
        ("<<: {a: 1}", "a key that is no name"), ("? [a]\n: 1", "a key that is no name"),
        ("[" * 30 + "]" * 30, "nested deeper than 20 levels"), ("[" * 90_000, "nesting depth"),
        ("a: " + "x" * MOST, "characters, and 100,000 at most"), ("a: " + "9" * 5000, "more than 100 digits"),
        ('a: "\\uDCE9"\nb: ' + "x" * (MOST // 10), "10,000 at most"),
    ],
)  # fmt: skip
def test_what_is_refused(text, said):
    with pytest.raises(yaml.YAMLError, match=re.escape(said)):
        parse_yaml(text)


def test_numbers_texts_and_names_that_are_no_utf_8():
    text = 'a: 1e-3\nb: 1.5\nc: [1, -2, .5]\nd: 2024-01-01\ne: true\nf: null\ng: "1e-3"\nh: "/data/caf\\uDCE9"'
    assert parse_yaml(text) == {
        "a": 0.001, "b": 1.5, "c": [1, -2, 0.5], "d": "2024-01-01", "e": True, "f": None, "g": "1e-3", "h": "/data/caf\udce9",
    }  # fmt: skip
    assert parse_yaml("") is None


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, width=32)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]\w{0,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_plainly_is_read_as_it_was(value):
    written = yaml.dump(value, Dumper=_NoAliases)
    assert parse_yaml(written) == value


class _NoAliases(yaml.SafeDumper):
    """One that takes floats without a dot, 1e-3, for what they are."""

    def ignore_aliases(self, data):
        return True


def test_a_file_is_read_whole_or_not(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "a.yaml") == ("a: 1\n", {"a": 1})
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ValueError, match="utf-8"):
        read_yaml(tmp_path / "b.yaml")


def test_numbers_are_what_a_person_takes_them_for():
    written = "{a: 010, b: '1:30', c: 1:30, d: 0o7, e: 0x1F, f: 1_000, g: -12, h: 0b1, i: 0x_, j: 0, k: +3}"
    assert parse_yaml(written) == {
        "a": "010", "b": "1:30", "c": "1:30", "d": "0o7", "e": 31, "f": 1000, "g": -12, "h": "0b1", "i": "0x_", "j": 0, "k": 3,
    }  # fmt: skip
    assert parse_yaml("a: " + "9" * 100) == {"a": 10**100 - 1}
    with pytest.raises(yaml.YAMLError, match="line 2 has a number of more than 100 digits"):
        parse_yaml("a: 1\nb: 1" + "0" * 400)
