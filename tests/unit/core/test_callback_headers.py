"""Clients cannot forge our headers, frame the message, or break out of a header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.callback_headers import HEADER_COUNT_MAX, HEADERS_LENGTH_MAX, check_headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer abc.def"),
        ("X-Request-Id", "1"),
        ("x_custom", "a b\tc"),
        ("Cookie", "session=1; b=2"),
        ("X-Empty", ""),
        ("!#$%&'*+-.^_`|~", "~"),
        ("Accept", "application/json"),
        ("Forwarded", "for=192.0.2.60"),
    ],
)
def test_check_headers_ordinary_header_passes(name: str, value: str) -> None:
    """Clients may authenticate and annotate their callbacks."""
    assert check_headers({name: value}) == []


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Upgrade", "Expect"),
        *("webhook-id", "Webhook-Signature", "WEBHOOK-TIMESTAMP", "webhook-anything", "Howdah-Attempt", "howdah-fence"),
        *("Howdah-Queue", "Howdah-Later", "User-Agent", "Accept-Encoding", "Content-Type", "traceparent", "tracestate"),
        *("Proxy-Authorization", "Proxy-Connection", "Trailer"),
    ],
)  # fmt: skip
def test_check_headers_reserved_name_is_refused(name: str) -> None:
    """Names that frame the message or say who sent it cannot be set by a client."""
    found = check_headers({name: "x"}, "/tasks/7/http/headers")

    assert [(each.code, each.pointer) for each in found] == [("validation", f"/tasks/7/http/headers/{name}")]


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "a\r\nb", "é", "a\x00", "(", "a/b", "[x]", "x" * 129, "a\n"])
def test_check_headers_malformed_name_is_refused(name: str) -> None:
    """A name that is no token is refused."""
    assert len(check_headers({name: "x"})) == 1


@pytest.mark.parametrize(
    "value",
    [
        *("a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\x00b", "a\x0bb", "\x7f", "\n", "a\n"),
        *("é", "\u2028", "\ud800", " a", "a ", "\ta"),
    ],
)
def test_check_headers_value_that_breaks_out_is_refused(value: str) -> None:
    """No value can start another header, whatever a server takes for a line's end."""
    found = check_headers({"X-Note": value})

    assert [each.pointer for each in found] == ["/http/headers/X-Note"]


def test_check_headers_refusal_does_not_repeat_the_value() -> None:
    """A credential with a stray line break does not end up in an error or a log."""
    found = check_headers({"Authorization": "Bearer s3cret\n"})

    assert "s3cret" not in str(found[0])


def test_check_headers_same_name_twice_is_refused() -> None:
    """Two spellings of one name would leave it to the server which of them counts."""
    found = check_headers({"X-A": "1", "x-a": "2"})

    assert [each.pointer for each in found] == ["/http/headers/x-a"]


def test_check_headers_pointer_is_escaped() -> None:
    """The pointer leads to the header also if its name has the pointer's own characters."""
    assert check_headers({"a/~b": "x"})[0].pointer == "/http/headers/a~1~0b"


def test_check_headers_too_many_or_too_long_is_refused() -> None:
    """The headers fit what every server takes, also together with ours."""
    many = {f"X-{n}": "" for n in range(HEADER_COUNT_MAX)}
    long = {"X": "v" * (HEADERS_LENGTH_MAX - 5)}

    assert check_headers(many) == []
    assert len(check_headers({**many, "Y": ""})) == 1
    assert check_headers(long) == []
    assert len(check_headers({"X": long["X"] + "v"})) == 1


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=5))
def test_check_headers_what_passes_is_one_line_each(headers: dict[str, str]) -> None:
    """Whatever is given, only printable single lines pass."""
    if not check_headers(headers):
        for name, value in headers.items():
            line = f"{name}: {value}"

            assert line.isascii()
            assert line.replace("\t", " ").isprintable()
