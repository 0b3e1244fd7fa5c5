"""JSON pointers out of msgspec's errors."""

from typing import Annotated, Any

import msgspec
import pytest

from howdah.core.pointer import escape, fault_of


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


def test_escape_follows_the_standard() -> None:
    """RFC 6901: ~ is ~0, / is ~1, in that order."""
    assert escape("~1/~0") == "~01~1~00"
