"""The rules of certificates that are not trusted: the message names the file and its problem."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient, RetryPolicy, TLSError, case
from datadog_caselinks.http.trust import Trust
from tests.support.authority import Authority
from tests.support.ids import some_id
from tests.support.server import Server
from tests.support.steps import listed

CASE: Final = case(some_id(1))
KEYS: Final = ApiKeys(api_key="an-api-key", app_key="an-app-key")
ONCE: Final = RetryPolicy(max_attempts=1)
VARIABLES: Final = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    """Return the file of the authority."""
    path = tmp_path / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(path))
    return path


async def refusal(authority: Authority, make: Callable[[str], CaseLinksClient]) -> str:
    """Return the message of a client that does not trust a server with a certificate of ``authority``."""
    async with (
        Server(listed, tls=authority.server("localhost"), host="localhost") as server,
        make(server.url) as client,
    ):
        with pytest.raises(TLSError) as caught:
            await client.list_links(CASE)
    assert server.seen == []
    return str(caught.value)


def default(url: str) -> CaseLinksClient:
    return CaseLinksClient(url, KEYS, retry=ONCE)


class TestVariable:
    async def test_set_after_the_imports(
        self, authority: Authority, ca: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client trusts the file that ``SSL_CERT_FILE`` names when the client is created."""
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        async with (
            Server(listed, tls=authority.server("localhost"), host="localhost") as server,
            default(server.url) as client,
        ):
            assert await client.list_links(CASE) == []

    async def test_set_after_the_client_was_created(
        self, authority: Authority, ca: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message says if ``SSL_CERT_FILE`` was changed after the client was created."""

        def then_set(url: str) -> CaseLinksClient:
            client = default(url)
            monkeypatch.setenv("SSL_CERT_FILE", str(ca))
            return client

        message = await refusal(authority, then_set)
        assert "SSL_CERT_FILE or its file was changed after this client was created" in message

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "is empty"),
            (b"not a certificate", "contains no valid certificate in PEM format"),
            (
                b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
                "contains no valid certificate in PEM format",
            ),
            (b"\x30\x82\x01\x01", "is in DER format: convert it with openssl x509 -inform der"),
        ],
    )
    async def test_a_file_without_certificates(
        self,
        authority: Authority,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        content: bytes,
        problem: str,
    ) -> None:
        """The message for a file without certificates names the file and its problem."""
        path = tmp_path / "ca.pem"
        path.write_bytes(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        message = await refusal(authority, default)
        assert f"SSL_CERT_FILE is {path}, which {problem}; nothing was sent" in message
        assert "set SSL_CERT_FILE" not in message

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("missing.pem", "cannot be read (no such file or directory)"),
            ("", "cannot be read (is a directory)"),
            ("'ca.pem'", "cannot be read (no such file or directory): remove the quotation marks"),
        ],
    )
    async def test_a_file_that_cannot_be_read(
        self,
        authority: Authority,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        problem: str,
    ) -> None:
        """The message for a file that cannot be read says why: missing, a directory, or quotation marks."""
        monkeypatch.chdir(tmp_path)
        path = name or str(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", path)
        assert f"SSL_CERT_FILE is {path}, which {problem};" in await refusal(authority, default)

    async def test_a_file_with_other_certificates(
        self, authority: Authority, ca: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message for a file without the CA names the file, so that the CA can be added to it."""
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        message = await refusal(Authority(), default)
        assert f"add your CA to the file that it names now, {ca};" in message

    async def test_a_directory(
        self, authority: Authority, ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message for ``SSL_CERT_DIR`` says what is wrong with the directory."""
        missing = tmp_path / "missing"
        monkeypatch.setenv("SSL_CERT_DIR", str(missing))
        assert f"SSL_CERT_DIR is {missing}, which does not exist;" in await refusal(authority, default)
        monkeypatch.setenv("SSL_CERT_DIR", str(ca.parent))
        expected = f"SSL_CERT_DIR is {tmp_path}, which does not contain its CA under a name that openssl"
        assert expected in await refusal(authority, default)

    async def test_the_variables_of_other_programs(
        self, authority: Authority, ca: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message names ``SSL_CERT_FILE`` if it is not set, and a variable that is not read."""
        assert "set SSL_CERT_FILE to your CA file;" in await refusal(authority, default)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca))
        expected = "set SSL_CERT_FILE to your CA file, because REQUESTS_CA_BUNDLE is not read;"
        assert expected in await refusal(authority, default)


class TestSource:
    async def test_a_context_of_the_user(self, authority: Authority) -> None:
        """The message for a client with ``ssl`` says that this context needs the CA."""

        def with_context(url: str) -> CaseLinksClient:
            return CaseLinksClient(url, KEYS, retry=ONCE, ssl=ssl.create_default_context())

        message = await refusal(authority, with_context)
        assert "add its CA to the ssl.SSLContext that was passed as ssl;" in message

    async def test_a_session_of_the_user(self, authority: Authority) -> None:
        """A session trusts what its connector trusts, or what aiohttp read when it was imported."""
        for settings, advice in (
            (ssl.create_default_context(), "add its CA to the ssl.SSLContext of the session's connector;"),
            (True, "or pass ssl=, since aiohttp reads the variable only when it is imported;"),
        ):
            connector = aiohttp.TCPConnector(ssl=settings)
            async with aiohttp.ClientSession(connector=connector) as session:

                def with_session(url: str, session: aiohttp.ClientSession = session) -> CaseLinksClient:
                    return CaseLinksClient(url, KEYS, retry=ONCE, sessions=session)

                assert advice in await refusal(authority, with_session)


class RefusedError(Exception):
    """An error of a handshake with OpenSSL's code."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.verify_code = code


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (62, "check the site"),
        (64, "check the site"),
        (9, "check the clock of this machine, or have the certificate renewed"),
        (10, "check the clock of this machine, or have the certificate renewed"),
        (66, "the server needs another certificate"),
        (85, "have it issued again in that way"),
        (89, "have it issued again in that way"),
    ],
)
def test_what_no_ca_file_solves(code: int, advice: str, monkeypatch: pytest.MonkeyPatch, ca: Path) -> None:
    """The message does not mention a CA file if no CA file would help."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    given = Trust.of_environment().advice(RefusedError(code))
    assert advice in given
    assert "SSL_CERT_FILE" not in given


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python checks RFC 5280 since 3.13")
async def test_a_certificate_without_a_key_identifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message for a CA without a key identifier, on Python 3.13 and later, says how to fix that."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "9", "-subj", "/CN=CA")
    openssl("req", *key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=localhost")
    (tmp_path / "extensions").write_text("subjectAltName=DNS:localhost\nauthorityKeyIdentifier=none\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "9")
    openssl("x509", "-req", "-in", "request.pem", *signing, "-extfile", "extensions", "-out", "cert.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with Server(listed, tls=tls, host="localhost") as server, default(server.url) as client:
        with pytest.raises(TLSError, match=r"Missing Authority Key Identifier\): Python 3\.13 and later"):
            await client.list_links(CASE)
