"""Which hosts a callback may reach: no private, special or metadata address unless allowed.

The rule is applied three times: to the URL when a task is created (literal
addresses and what surely means one), to every address that a name resolves to,
and to the address that is dialled. The table is our own, because the standard
library's `is_global` is true for multicast, 6to4, NAT64 and `::127.0.0.1`
(seen in Python 3.11.7).
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal, TypeAlias

from howdah.core.errors import Refused

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

URL_LENGTH_MAX: Final = 2048
# RFC 1035 section 2.3.4.
HOST_LENGTH_MAX: Final = 253
LABEL_LENGTH_MAX: Final = 63

# Every entry of IANA's special-purpose registries that is not a host on the
# Internet, and what each is. The first that contains an address names it.
_DENIED: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(text), what)
    for text, what in (
        ("127.0.0.0/8", "loopback"),
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private network"),
        ("172.16.0.0/12", "private network"),
        ("192.168.0.0/16", "private network"),
        ("100.64.0.0/10", "carrier's private network"),
        ("169.254.0.0/16", "link-local, cloud metadata"),
        # Public by its number, but answered by the host of every guest on Azure.
        ("168.63.129.16/32", "cloud metadata"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "documentation"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("192.31.196.0/24", "reserved for protocols"),
        ("192.52.193.0/24", "reserved for protocols"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.175.48.0/24", "reserved for protocols"),
        ("198.18.0.0/15", "benchmarks"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("::1/128", "loopback"),
        ("::/128", "this host"),
        ("::/96", "IPv4 in IPv6"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("100::/64", "discard"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "reserved for protocols"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private network"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
# IANA gives out nothing else of IPv6 as hosts; new special ranges appear outside of it.
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
_LAST_32_BITS: Final = (ip_network("::/96"), ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))

# Ports from 1024 on where something may listen that obeys or stores whatever it
# is sent: the list of bad ports of the Fetch standard, then data stores and
# control planes. Below 1024 only 80 and 443 are open.
_PORTS_DENIED: Final = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
    | {1433, 1521, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5433, 5672, 5984, 6379, 6380, 6432}
    | {9042, 9092, 9160, 9200, 9300, 10250, 10255, 11211, 26379, 27017, 27018, 27019}
)

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[^?#]*)?(?:\?[^#]*)?)",
    re.ASCII | re.IGNORECASE,
)
# What RFC 3986 allows, and `[`, `]`, `|`, which frameworks put into queries.
_ODD_CHARACTER: Final = re.compile(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%|]", re.ASCII)
# A last label like these makes resolvers read the whole name as an IPv4 address.
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Decides about addresses; the same answer for as long as the process lives.

    Attributes:
        allowed: Ranges that are open although the table denies them (`HOWDAH_CALLBACK_ALLOW_CIDRS`).
    """

    allowed: tuple[Network, ...] = ()

    def refusal(self, address: Address | str) -> str | None:
        """Say what an address is if it must not be reached, else return None.

        An IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4, Teredo)
        counts as well: allowing NAT64's range does not open the loopback behind it.

        Args:
            address: Of any spelling that `ipaddress` takes. Text that is no address is refused.
        """
        if isinstance(address, str):
            try:
                address = ip_address(address)
            except ValueError:
                return "not an IP address"
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                return "link-local"
            for embedded in _embedded(address):
                if (found := self._refusal(embedded)) is not None:
                    return found
            if address.ipv4_mapped is not None:
                # The kernel dials the IPv4 address: nothing else is left to judge.
                return None
        return self._refusal(address)

    def _refusal(self, address: Address) -> str | None:
        if any(address in network for network in self.allowed):
            return None
        for network, what in _DENIED:
            if address in network:
                return what
        if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
            return "reserved"
        return None


@dataclass(frozen=True, slots=True)
class CallbackUrl:
    """A URL that `check_url` let pass, taken apart.

    Attributes:
        scheme: `http` or `https`.
        host: In lower case; an IPv6 address in its shortest form, without brackets.
        port: The port to dial.
        target: Path and query, as sent in the request line; begins with a slash.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: the part of the URL that may be shown (a path can hold a secret)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def check_url(url: str, policy: AddressPolicy, pointer: str = "/http/url") -> CallbackUrl | Refused:
    """Take a callback's URL apart, or say why it must not be called.

    Strict, so that no other parser can read the URL another way: ASCII only, no
    user information, no fragment, no octal or shortened addresses. What a name
    resolves to is not known here; that is judged when it is dialled.

    Args:
        url: As the client wrote it.
        policy: Judges literal addresses, and `localhost`.
        pointer: JSON pointer of the field, for the refusal.

    Returns:
        The parts, or a refusal with the code `blocked_address` (the host must not be reached) or `validation`.
    """
    found = _syntax_fault(url)
    if found is not None:
        return Refused("validation", pointer, found)
    match = _URL.fullmatch(url)
    if match is None:
        return Refused("validation", pointer, _why_not(url))
    scheme: Literal["http", "https"] = "https" if match["scheme"].lower() == "https" else "http"
    port = int(match["port"]) if match["port"] else {"http": 80, "https": 443}[scheme]
    if not _is_open(port):
        return Refused("validation", pointer, f"must not have the port {port}; 80, 443 and most above 1023 are open")
    host, fault = _check_host(match["host"].lower(), policy)
    if fault is not None:
        code, detail = fault
        return Refused(code, pointer, detail)
    target = match["target"]
    return CallbackUrl(scheme, host, port, target if target.startswith("/") else "/" + target)


def _syntax_fault(url: str) -> str | None:
    if len(url) > URL_LENGTH_MAX:
        return f"must have at most {URL_LENGTH_MAX} characters"
    odd = _ODD_CHARACTER.search(url)
    if odd is None:
        return None
    hint = "write it percent-encoded" if odd[0].isascii() else "write the host as xn--… and the rest percent-encoded"
    return f"must not contain {odd[0]!a}; {hint}"


def _why_not(url: str) -> str:
    """Name the first fault of a URL that has the right characters but not the right form."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        return "must begin with http:// or https://"
    if "#" in url:
        return "must not have a fragment"
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if "@" in authority:
        return "must not have a user name or password; use a header"
    if not authority:
        return "must name a host"
    return "must have a host of letters, digits, hyphens and dots, or an IP address, and a port of digits"


def _is_open(port: int) -> bool:
    return port in {80, 443} or (1024 <= port <= 65_535 and port not in _PORTS_DENIED)


def _check_host(host: str, policy: AddressPolicy) -> tuple[str, tuple[str, str] | None]:
    """Return the host in its one spelling, and (code, detail) if it is refused."""
    if host.startswith("["):
        try:
            return _check_literal(IPv6Address(host[1:-1]), policy)
        except ValueError:
            return host, ("validation", "must have a valid IPv6 address between the brackets")
    name = host.removesuffix(".")
    labels = name.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            return _check_literal(IPv4Address(host), policy)
        except ValueError:
            return host, _odd_ipv4_fault(name, policy)
    if len(name) > HOST_LENGTH_MAX or not all(0 < len(label) <= LABEL_LENGTH_MAX for label in labels):
        return host, ("validation", "must have a host name of at most 253 characters in labels of 1 to 63")
    if labels[-1] == "localhost" and (what := _localhost_refusal(policy)) is not None:
        # RFC 6761: every name under localhost means loopback.
        return host, ("blocked_address", f"must not point at a special address ({what})")
    return host, None


def _check_literal(address: Address, policy: AddressPolicy) -> tuple[str, tuple[str, str] | None]:
    what = policy.refusal(address)
    return str(address), None if what is None else ("blocked_address", f"must not point at a special address ({what})")


def _odd_ipv4_fault(name: str, policy: AddressPolicy) -> tuple[str, str]:
    """Say what is wrong with a host that resolvers read as an IPv4 address although it is not written as one.

    Octal, hexadecimal, in one number or two: none is accepted, but who tries to reach a special address that way
    is told that.
    """
    try:
        _, fault = _check_literal(IPv4Address(socket.inet_aton(name)), policy)
    except (OSError, ValueError):
        fault = None
    return fault or ("validation", "must have an IPv4 address of four decimal numbers, without leading zeros")


def _localhost_refusal(policy: AddressPolicy) -> str | None:
    """Return None if one of the loopback addresses may be reached."""
    refusals = [policy.refusal("127.0.0.1"), policy.refusal("::1")]
    return None if None in refusals else refusals[0]


def _embedded(address: IPv6Address) -> list[IPv4Address]:
    """Return every IPv4 address that dialling an IPv6 one may end at."""
    found = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if int(address) > 1 and any(address in network for network in _LAST_32_BITS):
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return found
