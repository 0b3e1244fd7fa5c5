"""The tree of errors."""

import inspect
import re

from howdah.core import errors


def test_tree_in_the_docstring_is_the_tree() -> None:
    """Each class stands in the drawing once, under the class that it derives from."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"( +)(?:[│ ]*[├└]── )?([A-Z][A-Za-z]+)\b", line):
            depth = (line.index(match[2]) - 4 + 4) // 5
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else "Exception"
    real = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }

    assert drawn == real


def test_every_error_explains_itself() -> None:
    """Each class has a docstring, and its own attributes are kept."""
    assert all(value.__doc__ for value in vars(errors).values() if inspect.isclass(value))
    refused = errors.Refused("validation", "/retry/max", "must be a duration")

    assert (refused.code, refused.pointer, refused.detail) == ("validation", "/retry/max", "must be a duration")
    assert str(refused) == "validation at /retry/max: must be a duration"
    assert str(errors.Refused("not_found", "", "no such task")) == "not_found: no such task"
