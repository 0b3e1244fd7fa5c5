"""What is said about a value that does not fit: what is allowed there, in the words of JSON."""

from __future__ import annotations

import re

import pytest

from howdah.api.bodies import read, read_batch, read_task
from howdah.api.problems import Problem
from howdah.api.queue_shapes import QueueWrite
from howdah.api.shapes import Cancel
from howdah.core.addresses import AddressPolicy

DURATION = 'must be a duration such as "30s" or "PT5M"'


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ("5", "", "must be an object"),
        ("{}", "/queue", "is required"),
        ('{"queue": 5}', "/queue", "must be a string"),
        ('{"queue": null}', "/queue", "must be a string"),
        ('{"queue": "q", "priority": "urgent"}', "/priority", "must be critical, high, low or normal"),
        ('{"queue": "q", "priority": 3}', "/priority", "must be critical, high, low or normal"),
        ('{"queue": "q", "priority": null}', "/priority", "must not be null; leave it out"),
        ('{"queue": "q", "timeout": 30}', "/timeout", DURATION),
        ('{"queue": "q", "run_at": 1767225600}', "/run_at", "must be an RFC 3339 timestamp with an offset"),
        ('{"queue": "q", "retry": []}', "/retry", "must be an object"),
        (
            '{"queue": "q", "retry": {"max_attempts": "4"}}',
            "/retry/max_attempts",
            "must be a whole number from 1 to 1000",
        ),
        ('{"queue": "q", "retry": {"jitter": true}}', "/retry/jitter", "must be a number from 0 to 1"),
        ('{"queue": "q", "retry": {"list": ["1s", 2]}}', "/retry/list/1", DURATION),
        ('{"queue": "q", "retry": {"list": "1s"}}', "/retry/list", "must be an array"),
        (
            '{"queue": "q", "retry": {"tries": 4}}',
            "/retry/tries",
            "is not a field here; there are: max_attempts, max_age, backoff, initial, max, factor, jitter, list, "
            "statuses, errors",
        ),
        ('{"queue": "q", "http": {}}', "/http/url", "is required"),
        ('{"queue": "q", "http": {"url": "a", "success_statuses": [200, "x"]}}', "/http/success_statuses/1", None),
        ('{"queue": "q", "tags": {"a/b": null}}', "/tags/a~1b", "must be a string"),
        ('{"queue": "q", "odd `name`": 1}', "/odd `name`", None),
        # The first one is at fault, the last one counts for other parsers.
        ('{"queue": "q", "retry": {"max_attempts": "x"}, "retry": [1]}', "/retry/max_attempts", None),
        ('{"queue": "q", "retry": {"list": [1]}, "retry": {"list": []}}', "/retry/list/0", None),
    ],
)
def test_task_that_does_not_fit_is_told_what_would(body: str, pointer: str, detail: str | None) -> None:
    """The detail names what may stand there, single and in a batch, and no type of Python."""
    with pytest.raises(Problem) as single:
        read_task(body.encode(), 1_000, AddressPolicy())
    [item], _ = read_batch(f'{{"tasks": [{body}]}}'.encode(), 1_000, AddressPolicy())

    assert isinstance(item, Problem)
    [fault], [in_batch] = single.value.errors, item.errors
    assert (fault.pointer, in_batch.pointer) == (pointer, f"/tasks/0{pointer}")
    assert fault.detail == in_batch.detail
    assert detail in (None, fault.detail)
    assert not re.search(r"Expected|got|int\b|str\b|bool\b|float\b|enum|`", fault.detail)


@pytest.mark.parametrize(
    ("body", "shape", "said"),
    [
        ('{"mode": "firm"}', Cancel, "/mode must be hard or soft"),
        ('{"mod": "soft"}', Cancel, "/mod is not a field here; there are: mode"),
        ('{"timeout": null}', QueueWrite, "/timeout must not be null; leave it out"),
        ("[]", QueueWrite, "the body must be an object"),
    ],
)
def test_other_bodies_are_told_likewise(body: str, shape: type, said: str) -> None:
    """Cancels and queues have shapes as well."""
    with pytest.raises(Problem) as refused:
        read(body.encode(), shape)

    assert refused.value.detail == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"tasks": {}}', "/tasks must be an array"),
        ('{"tasks": [], "atomic": 1}', "/atomic must be true or false"),
        ('{"task": []}', "/task is not a field here; there are: tasks, atomic"),
        ("{}", "/tasks is required"),
    ],
)
def test_batch_that_does_not_fit_is_told_what_would(body: str, said: str) -> None:
    """The envelope of a batch too."""
    with pytest.raises(Problem) as refused:
        read_batch(body.encode(), 1_000, AddressPolicy())

    assert refused.value.detail == said
