"""The rules of TLS, with real handshakes: trusted authorities, client certificates, and refused servers.

``test_transport.py`` tests how each failure is classified and retried, ``test_sites.py`` that ``http`` is
for loopback only, and ``cli/test_doctor.py`` ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import datetime
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    CaseLinksClient,
    ConfigurationError,
    ConnectError,
    RetryPolicy,
    TLSError,
    TransportError,
    case,
)
from tests.support.api import Api
from tests.support.authority import Authority
from tests.support.ids import some_id
from tests.support.server import Server
from tests.support.steps import created, listed
from tests.support.tcp import HOST

NEW: Final = case(some_id(1)).blocks(case(some_id(2)))
ONCE: Final = RetryPolicy(max_attempts=1, settle=0)
NOW: Final = datetime.datetime.now(datetime.UTC)
DAY: Final = datetime.timedelta(days=1)


def client(server: Server, context: ssl.SSLContext | None) -> CaseLinksClient:
    return CaseLinksClient(server.url, ApiKeys(api_key="api-key", app_key="app-key"), ssl=context, retry=ONCE)


def of_version(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Limit ``context`` to one version; old versions must be enabled in Python and in OpenSSL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    if version < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class TestVersions:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_those_of_today(self, authority: Authority, version: ssl.TLSVersion) -> None:
        """A server may use TLS 1.2 or TLS 1.3."""
        tls = of_version(authority.server("localhost"), version)
        async with (
            Server(created, tls=tls, host="localhost") as server,
            client(server, authority.client()) as links,
        ):
            assert (await links.create_link(NEW)).parent == NEW.parent

    async def test_an_old_one_is_refused(self, authority: Authority) -> None:
        """A server with TLS 1.1 gets no request by default, though a lenient context could reach it."""
        tls = of_version(authority.server("localhost"), ssl.TLSVersion.TLSv1_1)
        async with Server(created, tls=tls, host="localhost") as server:
            async with client(server, authority.client()) as links:
                with pytest.raises(ConnectError):
                    await links.create_link(NEW)
            assert server.seen == []
            async with client(server, of_version(authority.client(), ssl.TLSVersion.TLSv1_1)) as links:
                await links.create_link(NEW)
        assert len(server.seen) == 1


class TestTrust:
    async def test_by_the_path_of_a_file(self, authority: Authority, tmp_path: Path) -> None:
        """A private authority is trusted by the path of its file, as documented."""
        path = tmp_path / "ca.pem"
        authority.ca.cert_pem.write_to_path(str(path))
        async with Server(created, tls=authority.server("localhost"), host="localhost") as server:
            async with client(server, ssl.create_default_context(cafile=path)) as links:
                await links.create_link(NEW)
            async with client(server, None) as links:
                with pytest.raises(TLSError, match="set SSL_CERT_FILE to your CA"):
                    await links.create_link(NEW)
        assert len(server.seen) == 1

    async def test_by_way_of_an_intermediate_authority(self, authority: Authority) -> None:
        """A certificate of an intermediate authority is trusted if the server sends the chain."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.ca.create_child_ca().issue_cert("localhost").configure_cert(tls)
        async with (
            Server(created, tls=tls, host="localhost") as server,
            client(server, authority.client()) as links,
        ):
            await links.create_link(NEW)

    async def test_of_an_address(self, authority: Authority) -> None:
        """A certificate may be for the IP address in the URL."""
        async with (
            Server(created, tls=authority.server(HOST)) as server,
            client(server, authority.client()) as links,
        ):
            await links.create_link(NEW)

    @pytest.mark.parametrize(
        ("names", "validity", "reason"),
        [
            (["localhost"], {"not_after": NOW - DAY}, "certificate has expired"),
            (["localhost"], {"not_before": NOW + DAY}, "certificate is not yet valid"),
            (["other.example"], {}, "Hostname mismatch"),
            (["*.localhost"], {}, "Hostname mismatch"),
            ([HOST], {}, "Hostname mismatch"),
        ],
    )
    async def test_is_refused(
        self, authority: Authority, names: list[str], validity: dict[str, Any], reason: str
    ) -> None:
        """An invalid certificate is refused, with the reason, even from a trusted authority."""
        tls = authority.server(
            *names, **{"not_before": NOW - 9 * DAY, "not_after": NOW + 9 * DAY, **validity}
        )
        async with (
            Server(created, tls=tls, host="localhost") as server,
            client(server, authority.client()) as links,
        ):
            for call in (links.create_link(NEW), links.ensure_link(NEW), links.get_case("SHOP-1")):
                with pytest.raises(TLSError, match=rf"its certificate is not trusted \({reason}"):
                    await call
        assert server.seen == []

    async def test_of_another_authority_of_the_same_name(self, authority: Authority) -> None:
        """A certificate of another authority with the same name is refused, because the key differs."""
        other = Authority(trustme.CA())
        async with (
            Server(created, tls=other.server("localhost"), host="localhost") as server,
            client(server, authority.client()) as links,
        ):
            with pytest.raises(TLSError):
                await links.create_link(NEW)
        assert server.seen == []

    @pytest.mark.parametrize("url", ["http://proxy.example", "http://10.0.0.1", "http://localhost.example"])
    def test_without_tls_there_is_loopback_alone(self, url: str) -> None:
        """A client for an ``http`` URL that is not on loopback is not created."""
        with pytest.raises(ConfigurationError, match="would send the keys unencrypted"):
            CaseLinksClient(url, ApiKeys(api_key="api-key", app_key="app-key"))


@pytest.fixture
def wanting(authority: Authority) -> Callable[[ssl.TLSVersion], ssl.SSLContext]:
    """Return a function that creates the context of a server which requires a client certificate."""

    def context(version: ssl.TLSVersion) -> ssl.SSLContext:
        tls = of_version(authority.server("localhost"), version)
        tls.verify_mode = ssl.CERT_REQUIRED
        authority.ca.configure_trust(tls)
        return tls

    return context


class TestClientCertificate:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_from_a_file(
        self,
        authority: Authority,
        wanting: Callable[[ssl.TLSVersion], ssl.SSLContext],
        version: ssl.TLSVersion,
        tmp_path: Path,
    ) -> None:
        """``ssl`` sends a client certificate to a server that requires one, as documented."""
        path = tmp_path / "client.pem"
        authority.ca.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(str(path))
        context = authority.client()
        context.load_cert_chain(path)
        async with (
            Server(listed, tls=wanting(version), host="localhost") as server,
            client(server, context) as links,
        ):
            assert await links.list_links(NEW.parent) == []

    async def test_that_is_missing(
        self, authority: Authority, wanting: Callable[[ssl.TLSVersion], ssl.SSLContext]
    ) -> None:
        """A missing client certificate with TLS 1.2 fails in the handshake, with a readable message."""
        async with (
            Server(listed, tls=wanting(ssl.TLSVersion.TLSv1_2), host="localhost") as server,
            client(server, authority.client()) as links,
        ):
            with pytest.raises(TransportError) as raised:
                await links.list_links(NEW.parent)
        assert "connectionreset" not in str(raised.value).lower()  # which would be a class and not words

    async def test_that_is_missed_too_late(
        self, authority: Authority, wanting: Callable[[ssl.TLSVersion], ssl.SSLContext]
    ) -> None:
        """A missing client certificate with TLS 1.3 makes a create ambiguous, as it is noticed late."""
        api = Api()
        async with (
            Server(api, tls=wanting(ssl.TLSVersion.TLSv1_3), host="localhost") as server,
            client(server, authority.client()) as links,
        ):
            with pytest.raises(AmbiguousResultError):
                await links.create_link(NEW)
        assert api.links == []
