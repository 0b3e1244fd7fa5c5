"""JSON pointers out of msgspec's errors."""

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.pointer import escape, fault_of, pointer_at


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """A thing on a shelf."""

    count: int
    odd: int = msgspec.field(name="a/b~c", default=0)


class Shelf(msgspec.Struct, forbid_unknown_fields=True):
    """Something with depth."""

    items: list[Item] = []
    free: dict[str, Item] = {}
    numbers: dict[int, int] = {}
    level: Annotated[int, msgspec.Meta(ge=0)] = 0


@pytest.mark.parametrize(
    ("text", "pointer", "detail"),
    [
        ('{"level": "x"}', "/level", "Expected `int`, got `str`"),
        ('{"level": -1}', "/level", "Expected `int` >= 0"),
        ('{"items": [{"count": 1}, {"count": null}]}', "/items/1/count", "Expected `int`, got `null`"),
        ('{"items": [{"count": 1, "a/b~c": ""}]}', "/items/0/a~1b~0c", "Expected `int`, got `str`"),
        ('{"items": [{}]}', "/items/0/count", "Object missing required field `count`"),
        ('{"items": [{"count": 1, "x": 1}]}', "/items/0/x", "Object contains unknown field `x`"),
        ('{"oops": 1}', "/oops", "Object contains unknown field `oops`"),
        ('{"free": {"a": {"count": "x"}}}', "/free", "Expected `int`, got `str`"),
        ('{"free": {"a": {}}}', "/free", "Object missing required field `count`"),
        ('{"numbers": {"a": 1}}', "/numbers", "Expected `int`, got `str` as a key"),
        ("[]", "", "Expected `object`, got `array`"),
        ('{"level": 1', "", "Input data was truncated"),
        ("{,}", "", "JSON is malformed: object keys must be strings (byte 1)"),
    ],
)
def test_fault_of_points_at_the_place(text: str, pointer: str, detail: str) -> None:
    """The pointer leads to the field at fault, also to one that is missing or unknown, as far as its keys are known."""
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(text, type=Shelf)

    assert fault_of(caught.value) == (pointer, detail)


def test_fault_of_a_number_out_of_range_points_into_free_json() -> None:
    """A float that overflows in a value without a type is pointed at too."""
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode("[1, 1e999]", type=Any)

    assert fault_of(caught.value) == ("/1", "Number out of range")


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (b"", ""),
        (b"@", ""),
        (b'{"a": 1}@', ""),
        (b'{"a": @', "/a"),
        (b'{"a": 1@', "/a"),
        (b'{"a": 1, @', ""),
        (b'{"a": [1, 2, @', "/a/2"),
        (b'{"a": [[], {}, [1], @', "/a/3"),
        (b'{"a": {"b": 1}, "c": "@', "/c"),
        (b'{"a": {"b": 1, "@', "/a"),
        (b'{"a": "b\\"c: [{", "d": @', "/d"),
        (b'{"a/b~c\\u00e9": @', "/a~1b~0c\u00e9"),
        (b'{"\\ud800": @', ""),
        (b'{"\xff": @', ""),
        (b'{"payload": {"a": [{"b": @', "/payload"),
        (b'{"tasks": [1, {"payload": {"a": @', "/tasks/1/payload"),
        (b'{"a": {"b": {"c": {"d": {"e": {"f": @', "/a/b/c/d/e"),
        (b'{"' + b"a" * 129 + b'": @', ""),
        (b"]}:,@", ""),
        (b'{"a": [1, 2]}]]}, "b": @', ""),
    ],
)
def test_pointer_at_leads_to_the_innermost_field(text: bytes, pointer: str) -> None:
    """What contains the place, as far as the text before it tells; a payload is one field, however deep it is."""
    assert pointer_at(text, offset=len(text) - 1) == pointer


def test_pointer_at_a_comma_is_what_it_parts() -> None:
    """A comma too many is no fault of the value before it."""
    assert pointer_at(b'{"a": [1,], "b": 1}', offset=8) == "/a"
    assert pointer_at(b'{"a": 1,}', offset=7) == ""


def test_pointer_at_a_level_is_where_it_gets_too_deep() -> None:
    """The first bracket below the level counts, and no bracket in a text does."""
    text = b'{"a": "[[[[", "b": [[]], "c": {"d": [[]]}}'

    assert [pointer_at(text, level=level) for level in range(4)] == ["", "/b", "/b/0", "/c/d/0"]


def test_pointer_at_gives_up_in_a_text_that_is_made_to_keep_it_busy() -> None:
    """A place behind very many brackets is not looked for: the answer must come soon."""
    assert pointer_at(b'{"a": [' + b"[]," * 1_000_000 + b'1], "b": @') == ""


@given(st.binary(max_size=60) | st.text('{}[]:,"\\a1 ', max_size=60).map(str.encode), st.integers(0, 60))
def test_pointer_at_answers_for_any_bytes(text: bytes, offset: int) -> None:
    """No text makes it fail."""
    assert pointer_at(text, offset=offset).count("/") <= 5
    assert pointer_at(text, level=offset % 4).count("/") <= 5


def test_escape_follows_the_standard() -> None:
    """RFC 6901: ~ is ~0, / is ~1, in that order."""
    assert escape("~1/~0") == "~01~1~00"
