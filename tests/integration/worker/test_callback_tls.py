"""Callbacks over TLS trust only valid certificates of known authorities, for the name that was called."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.fix_callback import make_client, make_context, make_request
from tests.fix_hostile import listen

if TYPE_CHECKING:
    from pathlib import Path

    from howdah_worker.callback_outcome import CallbackResult

pytestmark = [pytest.mark.system("openssl"), pytest.mark.one_server]

HOST = "hooks.example"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(directory: Path, command: str, *more: str) -> None:
    """Run openssl in a directory."""
    subprocess.run(["openssl", *command.split(), *more], cwd=directory, check=True, capture_output=True)


class Authority:
    """A certificate authority of its own for these tests, and the certificates that it signs."""

    def __init__(self, directory: Path) -> None:
        """Make its key and certificate."""
        self.directory = directory
        # From Python 3.13 on certificates without these two extensions are refused.
        usage = "-addext keyUsage=critical,keyCertSign"
        openssl(directory, f"req -x509 -keyout ca.key -out ca.pem -subj /CN=ca -days 2 {usage}", *NEW_KEY)

    def sign(self, name: str, days: int, *, by_itself: bool = False) -> tuple[Path, Path]:
        """Return a new certificate and key for a host name; with fewer than 0 days it has expired."""
        if by_itself:
            openssl(
                self.directory,
                f"req -x509 -keyout leaf.key -out leaf.pem -subj /CN=x -addext subjectAltName=DNS:{name}",
                *NEW_KEY,
            )
        else:
            (self.directory / "extensions").write_text(f"subjectAltName=DNS:{name}\nauthorityKeyIdentifier=keyid")
            openssl(self.directory, "req -new -keyout leaf.key -out leaf.csr -subj /CN=x", *NEW_KEY)
            openssl(
                self.directory,
                "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
                f" -out leaf.pem -extfile extensions -days {days}",
            )
        return self.directory / "leaf.pem", self.directory / "leaf.key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that lasts as long as the module, since making keys takes time."""
    return Authority(tmp_path_factory.mktemp("tls"))


def server_context(pem: Path, key: Path) -> ssl.SSLContext:
    """Return a server's context with one certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return context


async def call(context: ssl.SSLContext) -> tuple[CallbackResult, int]:
    """Call a server as https://hooks.example; return the result and how many requests it got."""
    async with listen(tls=context) as server, make_client(lookup=lambda _: [server.host]) as client:
        request = make_request(server.url("ok?s3cret", scheme="https", host=HOST))
        return await client.deliver(request, make_context()), len(server.requests)


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority, trusted by new clients."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.directory / "ca.pem"))
    return authority


async def test_deliver_valid_certificate_succeeds(trusted: Authority) -> None:
    """A receiver with a certificate of a trusted authority for its name gets the callback."""
    result, request_count = await call(server_context(*trusted.sign(HOST, 2)))

    assert (result.outcome, result.response_text, request_count) == ("succeeded", "ok", 1)


@pytest.mark.parametrize(
    ("name", "days", "by_itself", "why"),
    [
        pytest.param("other.example", 2, False, "Hostname mismatch", id="wrong name"),
        pytest.param(HOST, -1, False, "certificate has expired", id="expired"),
        pytest.param(HOST, 2, True, "self-signed certificate", id="self-signed"),
    ],
)
async def test_deliver_invalid_certificate_fails_before_the_request(
    trusted: Authority, name: str, days: int, by_itself: bool, why: str
) -> None:
    """Nothing of a callback, not even its headers, goes to a receiver that cannot prove its name."""
    result, request_count = await call(server_context(*trusted.sign(name, days, by_itself=by_itself)))

    assert (result.error_type, result.retryable, request_count) == ("tls_failed", True, 0)
    assert result.error_message is not None
    assert why in result.error_message
    assert "s3cret" not in result.error_message


async def test_deliver_untrusted_authority_fails_before_the_request(authority: Authority) -> None:
    """An authority that the system does not know counts for nothing."""
    result, request_count = await call(server_context(*authority.sign(HOST, 2)))

    assert (result.error_type, request_count) == ("tls_failed", 0)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_deliver_old_protocol_fails(trusted: Authority) -> None:
    """TLS 1.1 and older are not spoken."""
    context = server_context(*trusted.sign(HOST, 2))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1

    result, request_count = await call(context)

    # Servers may say why they end the handshake, or not.
    assert result.error_type in {"tls_failed", "connect_failed"}
    assert request_count == 0


async def test_deliver_over_tls_to_a_server_without_fails(trusted: Authority) -> None:
    """A receiver that answers in plain text on an https URL gets nothing of the callback."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server, make_client() as client:
        port = server.sockets[0].getsockname()[1]
        result = await client.deliver(make_request(f"https://127.0.0.1:{port}/"), make_context())

    assert (result.error_type, result.retryable) == ("tls_failed", True)
