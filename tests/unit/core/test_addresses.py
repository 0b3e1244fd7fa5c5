"""Callbacks reach hosts on the Internet and nothing else, however an address or a URL is spelt."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from howdah.core.addresses import AddressPolicy, CallbackUrl, check_url
from howdah.core.errors import Refused

CLOSED = AddressPolicy()
LOOPBACK_OPEN = AddressPolicy((ip_network("127.0.0.0/8"), ip_network("::1/128")))

# First, last and one inner address of every range that must not be reached.
SPECIAL = [
    *("127.0.0.0", "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.0.0.1", "0.255.255.255"),
    *("10.0.0.0", "10.1.2.3", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"),
    *("169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255", "168.63.129.16"),
    *("100.64.0.0", "100.100.100.200", "100.127.255.255", "192.0.0.0", "192.0.0.8", "192.0.0.192", "192.0.0.255"),
    *("192.0.2.0", "192.0.2.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255"),
    *("192.31.196.1", "192.52.193.1", "192.175.48.1", "192.88.99.0", "192.88.99.255"),
    *("198.18.0.0", "198.19.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.254"),
    *("255.255.255.255", "::", "::1"),
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:0:0", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
    *("::127.0.0.1", "::7f00:1", "::8.8.8.8", "::2"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "64:ff9b:1:ffff::8.8.8.8"),
    *("2002::", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1", "2002:ffff::"),
    *("2001::", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:808:808:0:0:f7f7:f7f7"),
    *("2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1", "2001:db8::1", "2620:4f:8000::1"),
    *("100::", "100::ffff:ffff:ffff:ffff", "100:0:0:1::1", "3fff::1", "3fff:fff::1", "5f00::1"),
    *("fc00::1", "fd00:ec2::254", "fdff:ffff::1", "fe80::1", "febf::1", "fe80::1%eth0", "fec0::1", "feff::1"),
    *("ff00::1", "ff02::1", "ff0e::1", "4000::1", "8000::1", "1::1", "200::1", "2606:4700::1111%1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "126.255.255.255", "128.0.0.0", "100.63.255.255"),
    *("100.128.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0"),
    *("192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.17"),
    *("2606:4700:4700::1111", "2001:4860:4860::8888", "2001:200::1", "2003::1", "2a00:1450::1", "3ffe::1"),
    *("::ffff:8.8.8.8", "::ffff:808:808"),
]


@pytest.mark.parametrize("address", SPECIAL)
def test_refusal_special_address_names_what_it_is(address: str) -> None:
    """Every private, special or metadata address is refused, also inside an IPv6 address."""
    assert CLOSED.refusal(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_refusal_public_address_is_none(address: str) -> None:
    """Hosts on the Internet may be reached, up to the edges of the ranges that are refused."""
    assert CLOSED.refusal(address) is None


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4 ", "::g"]
)
def test_refusal_text_that_is_no_address_is_refused(text: str) -> None:
    """What cannot be judged is not dialled."""
    assert CLOSED.refusal(text)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_refusal_allowed_range_is_open(address: str) -> None:
    """An operator can open a range, for every spelling that dials it."""
    assert LOOPBACK_OPEN.refusal(address) is None


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::", "::2", "::127.0.0.1", "::ffff:10.0.0.1"])
def test_refusal_allowed_range_opens_nothing_else(address: str) -> None:
    """Opening the loopback opens neither other ranges nor the loopback through a translator."""
    assert LOOPBACK_OPEN.refusal(address)


@pytest.mark.parametrize(
    ("allowed", "open_address", "shut_address"),
    [
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", "64:ff9b::169.254.169.254"),
        ("2002::/16", "2002:808:808::1", "2002:7f00:1::1"),
        ("2001::/32", "2001:0:808:808:0:0:f7f7:f7f7", "2001:0:808:808:0:0:80ff:fffe"),
        ("::/0", "fd00::1", "::ffff:127.0.0.1"),
    ],
)
def test_refusal_allowed_translator_still_judges_the_address_behind(
    allowed: str, open_address: str, shut_address: str
) -> None:
    """A network with NAT64 can be opened without opening the loopback and metadata behind it."""
    policy = AddressPolicy((ip_network(allowed),))

    assert policy.refusal(open_address) is None
    assert policy.refusal(shut_address)


@given(st.ip_addresses())
def test_refusal_mapped_address_is_judged_like_its_ipv4(address: IPv4Address | IPv6Address) -> None:
    """An IPv4 address and its IPv6 spelling, which dial the same host, are judged alike."""
    assume(isinstance(address, IPv4Address))

    assert (CLOSED.refusal(f"::ffff:{address}") is None) == (CLOSED.refusal(address) is None)


@given(st.ip_addresses())
@example(ip_address("2001:4860:4860::8888"))
def test_refusal_passes_no_address_that_the_standard_library_calls_private(
    address: IPv4Address | IPv6Address,
) -> None:
    """Our table is at least as strict as `ipaddress`; it is stricter where that is known to be wrong."""
    if CLOSED.refusal(address) is None:
        judged = getattr(address, "ipv4_mapped", None) or address

        assert judged.is_global
        assert not judged.is_multicast


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://example.com", CallbackUrl("http", "example.com", 80, "/")),
        ("https://example.com", CallbackUrl("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM/Path", CallbackUrl("https", "example.com", 443, "/Path")),
        ("https://example.com:8443?a=1", CallbackUrl("https", "example.com", 8443, "/?a=1")),
        ("https://example.com/a%2Fb/../c;d?x[]=1&y=%20|z?", None),
        ("https://example.com./", CallbackUrl("https", "example.com.", 443, "/")),
        ("https://xn--bcher-kva.example/", CallbackUrl("https", "xn--bcher-kva.example", 443, "/")),
        ("http://my_service:8080/", CallbackUrl("http", "my_service", 8080, "/")),
        ("http://8.8.8.8/", CallbackUrl("http", "8.8.8.8", 80, "/")),
        ("http://[2606:4700:4700:0:0:0:0:1111]:8080/", CallbackUrl("http", "2606:4700:4700::1111", 8080, "/")),
        ("http://1.com/", CallbackUrl("http", "1.com", 80, "/")),
        ("http://a.0xg/", CallbackUrl("http", "a.0xg", 80, "/")),
        ("http://localhost.example/", CallbackUrl("http", "localhost.example", 80, "/")),
        ("http://h/?q=http://user@other/", CallbackUrl("http", "h", 80, "/?q=http://user@other/")),
    ],
)
def test_check_url_good_url_is_taken_apart(url: str, parts: CallbackUrl | None) -> None:
    """What a client may call is taken apart without changing path or query."""
    found = check_url(url, CLOSED)

    assert isinstance(found, CallbackUrl)
    if parts is not None:
        assert found == parts
    else:
        assert found.target == url.removeprefix("https://example.com")


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://127.0.0.1:8080/", "http://[::1]/", "http://[::ffff:7f00:1]/", "http://0.0.0.0/"),
        *("http://[::ffff:127.0.0.1]/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/"),
        *("http://10.0.0.1/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[fe80::1]/"),
        *("http://localhost/", "http://LOCALHOST./", "http://a.b.localhost:8080/", "http://168.63.129.16/"),
    ],
)
def test_check_url_private_host_is_refused_as_blocked(url: str) -> None:
    """A task whose URL surely points at a private address is not accepted at all."""
    found = check_url(url, CLOSED, "/tasks/3/http/url")

    assert isinstance(found, Refused)
    assert (found.code, found.pointer) == ("blocked_address", "/tasks/3/http/url")


@pytest.mark.parametrize(
    ("host", "code"),
    [
        *((host, "blocked_address") for host in ("127.1", "0x7f000001", "0x7F.1", "2130706433", "0177.0.0.1", "0")),
        *((host, "blocked_address") for host in ("017700000001", "127.0.0.1.", "0xa9fea9fe", "10.1", "0251.254.43518")),
        *(
            (host, "validation")
            for host in ("0x08080808", "134744072", "8.8.8.8.", "010.8.8.8", "1.2.3.256", "4294967296")
        ),
    ],
)
def test_check_url_odd_spelling_of_a_special_address_is_refused_as_blocked(host: str, code: str) -> None:
    """No spelling but the one is accepted; one that resolvers take for a special address is called what it is."""
    found = check_url(f"http://{host}/", CLOSED)

    assert isinstance(found, Refused)
    assert found.code == code


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/", "http://[::1]:8080/", "http://localhost:8080/", "http://[::ffff:127.0.0.1]/"]
)
def test_check_url_opened_range_passes(url: str) -> None:
    """With the loopback opened, its addresses and its name are accepted."""
    assert isinstance(check_url(url, LOOPBACK_OPEN), CallbackUrl)


@pytest.mark.parametrize(
    "url",
    [
        # Spellings that a resolver turns into 127.0.0.1.
        *("http://127.1/", "http://0x7f000001/", "http://0x7f.1/", "http://2130706433/", "http://0177.0.0.1/"),
        *("http://017700000001/", "http://127.0.0.1./", "http://127.0.0.1.:80/", "http://1.2.3.256/"),
        *("http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://ｌocalhost/", "http://bücher.example/", "http://1.2.3.0x/"),  # noqa: RUF001
        # Who is the host?
        *("http://a@127.0.0.1/", "http://a.com\\@127.0.0.1/", "http://127.0.0.1%2f@a.com/", "http://a:b@a.com/"),
        *("http://a.com%2e/", "http://a.com%00/", "http:///x", "http://", "http://:80/", "http://a.com:/"),
        *("http:a.com", "http://?a", "http://a.com:80:80/", "http://a.com:8o/", "http://a.com:+80/", "//a.com/"),
        "http://a.com:\u0668\u0660/",
        *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1/", "http://::1/", "http://[::g]/"),
        *("http://[1.2.3.4]/", "http://[]/", "http://.../", "http://.a/", "http://a..b/", "http://" + "a" * 64 + "/"),
        "http://" + "a." * 127 + "a/",
        # Characters that parsers treat differently.
        *("http://a.com/\t", "http://a.com/\r\nX: y", "\nhttp://a.com/", " http://a.com/", "http://a.com/ ", "http://a\x00/"),
        *("http://a.com/{{id}}", "http://a.com/<x>", 'http://a.com/"', "http://a.com/^`", "http://a.com/é", "http://a.com/\ud800"),
        *("http://a.com/#f", "http://a.com#", "http://a.com/?q#f", "http://a.com\\b/", "http://a.com/\\"),
        # Schemes.
        *("file:///etc/passwd", "gopher://a.com/", "ftp://a.com/", "ws://a.com/", "wss://a.com/", "unix:/run/x"),
        *("data:text/plain,x", "http+unix://%2Frun/", "javascript:0", "a.com", "", "https", "httpss://a.com/"),
        # Ports.
        *(f"http://a.com:{port}/" for port in (0, 1, 22, 25, 79, 81, 1023, 5432, 6379, 11211, 65536, 99999, 999999)),
        "http://a.com/" + "a" * 2036,
    ],
)  # fmt: skip
def test_check_url_malformed_or_ambiguous_url_is_refused(url: str) -> None:
    """A URL that parsers could read in two ways, or that is not for callbacks, is not accepted."""
    found = check_url(url, LOOPBACK_OPEN)

    assert isinstance(found, Refused)
    assert (found.code, found.pointer) == ("validation", "/http/url")
    assert found.detail


@pytest.mark.parametrize("port", [80, 443, 1024, 3000, 8000, 8080, 8443, 9000, 32768, 65535])
def test_check_url_usual_port_passes(port: int) -> None:
    """Ports where web servers listen are open."""
    assert isinstance(check_url(f"http://a.com:{port}/", CLOSED), CallbackUrl)


def test_check_url_longest_passes() -> None:
    """2,048 characters are allowed."""
    assert isinstance(check_url("http://a.com/" + "a" * 2035, CLOSED), CallbackUrl)


def test_origin_shows_neither_path_nor_query() -> None:
    """What errors may show of a URL has no part that could be a secret."""
    secret = check_url("https://[2606:4700::1]:8443/hooks/T0/S3CRET?token=S3CRET", CLOSED)

    assert isinstance(secret, CallbackUrl)
    assert secret.origin == "https://[2606:4700::1]:8443"


@given(
    st.text(st.characters(max_codepoint=0x2FFF), max_size=60), st.sampled_from(["http://", "https://", "", "HTTP://a@"])
)
def test_check_url_any_text_is_judged(text: str, start: str) -> None:
    """No text makes the check fail, and what passes has a host, an open port and a clean target."""
    found = check_url(start + text, CLOSED)

    if isinstance(found, CallbackUrl):
        assert found.target.startswith("/")
        assert found.host
        assert found.port in {80, 443} or found.port >= 1024
        assert (found.host + found.target).isascii()
        assert (found.host + found.target).isprintable()
