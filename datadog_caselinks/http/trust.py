"""Which certificate authorities a client trusts, and what to do about a certificate that is not trusted."""

from __future__ import annotations

import functools
import os
import ssl as tls
from typing import Final, Literal

from attrs import frozen

from datadog_caselinks.values.base_errors import ParameterError
from datadog_caselinks.values.messages import is_in_quotes, quoted

_FILE: Final = "SSL_CERT_FILE"
_DIRECTORY: Final = "SSL_CERT_DIR"

_NOT_READ: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Variables of other programs that name a CA."""

_PASS: Final = 'pass ssl.create_default_context(cafile="ca.pem") with your CA, or set SSL_CERT_FILE to it'

_WRONG_HOST: Final = (62, 64)
_WRONG_TIME: Final = (9, 10)
_UNKNOWN_AUTHORITY: Final = (2, 18, 19, 20, 21)
_STRICT: Final = range(80, 94)
"""OpenSSL's codes of what is wrong with a certificate. Python checks the last ones since 3.13."""

_Variables = tuple[tuple[str | None, int, int], ...]
"""The value of each variable, with the time of change and the size of the file that it names."""


def require_verifying(name: str, ssl: object) -> None:
    """Check that ``ssl`` is a context that checks certificates, or ``None`` or ``True`` for the default.

    Raises:
        ParameterError: It is something else, or it switches the checks off. The keys would then be sent to
            any server.
    """
    if ssl is None or ssl is True:
        return
    if ssl is False:
        raise ParameterError(f"{name}=False would send the keys to an unverified server: {_PASS}")
    if not isinstance(ssl, tls.SSLContext):
        raise ParameterError(f"{name} must be an ssl.SSLContext, not {quoted(ssl)}: {_PASS}")
    if ssl.verify_mode is tls.CERT_NONE or not ssl.check_hostname:
        unchecked = "host name" if ssl.verify_mode else "certificate"
        raise ParameterError(
            f"{name} does not check the {unchecked} of the server, and would send the keys to an unverified "
            f"server: {_PASS}"
        )


@frozen
class Trust:
    """The TLS settings of requests, and where they come from.

    ``ssl``
        What aiohttp takes: a context, or ``True`` for its own.
    ``source``
        ``parameter``, the connector of a ``session``, or the ``environment``.
    """

    ssl: tls.SSLContext | bool
    source: Literal["parameter", "session", "environment"]
    _variables: _Variables

    @classmethod
    def of_parameter(cls, ssl: tls.SSLContext) -> Trust:
        """Return the trust of a client that was given a context."""
        return cls(ssl, "parameter", ())

    @classmethod
    def of_session(cls, ssl: object) -> Trust:
        """Return the trust of a session whose connector has these settings."""
        # True: the settings of the connector apply.
        return cls(True, "session", () if ssl is not True else _variables())

    @classmethod
    def of_environment(cls) -> Trust:
        """Return the trust that the variables describe now. aiohttp reads them only when it is imported."""
        variables = _variables()
        is_set = any(value for value, *_ in variables)
        return cls(_context(variables) if is_set else True, "environment", variables)

    def advice(self, error: Exception) -> str:
        """Return what to do about ``error``, by which the handshake refused a certificate."""
        code = getattr(error, "verify_code", 0)
        if code in _WRONG_HOST:
            return "check the site"
        if code in _WRONG_TIME:
            return "check the clock of this machine, or have the certificate renewed"
        if code in _STRICT:
            return (
                "Python 3.13 and later require what RFC 5280 says of certificates: have it issued again in "
                "that way, or use Python 3.12"
            )
        if code not in _UNKNOWN_AUTHORITY:
            return "the server needs another certificate"
        if self.source == "parameter":
            return "add its CA to the ssl.SSLContext that was passed as ssl"
        if self.source == "session" and not self._variables:
            return "add its CA to the ssl.SSLContext of the session's connector"
        advice = _advice_about_variables()
        if self.source == "session":
            return f"{advice}; or pass ssl=, since aiohttp reads the variable only when it is imported"
        if self._variables != _variables():
            return f"{_FILE} or its file was changed after this client was created: create a new client"
        return advice


@functools.lru_cache(4)
def _context(_: _Variables) -> tls.SSLContext:
    """Return the default context. Cached, because it takes a tenth of a second to read all public CAs."""
    context = tls.create_default_context()
    context.set_alpn_protocols(("http/1.1",))  # as in the context of aiohttp
    return context


def _variables() -> _Variables:
    return tuple(_signature(os.environ.get(name)) for name in (_FILE, _DIRECTORY))


def _signature(path: str | None) -> tuple[str | None, int, int]:
    try:
        found = os.stat(path or "")
    except OSError:
        return path, 0, 0
    return path, found.st_mtime_ns, found.st_size


def _advice_about_variables() -> str:
    if path := os.environ.get(_FILE):
        if problem := _problem_of_file(*_signature(path)):
            return f"{_FILE} is {path}, which {problem}"
        return f"set {_FILE} to your CA file, or add your CA to the file that it names now, {path}"
    if path := os.environ.get(_DIRECTORY):
        problem = "does not contain its CA under a name that openssl rehash gives it"
        return f"{_DIRECTORY} is {path}, which {problem if os.path.exists(path) else 'does not exist'}"
    others = [name for name in _NOT_READ if os.environ.get(name)]
    return f"set {_FILE} to your CA file{', because ' + others[0] + ' is not read' if others else ''}"


@functools.lru_cache(4)
def _problem_of_file(path: str, *_: int) -> str | None:
    """Return what is wrong with the file of a CA, or ``None``. Cached by the time of change and the size."""
    try:
        tls.SSLContext(tls.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except tls.SSLError:
        with open(path, "rb") as file:
            begin = file.read(1)
        if not begin:
            return "is empty"
        if begin == b"\x30":  # ASN.1
            return "is in DER format: convert it with openssl x509 -inform der"
        return "contains no valid certificate in PEM format"
    except OSError as error:
        hint = ": remove the quotation marks" if is_in_quotes(path) else ""
        return f"cannot be read ({(error.strerror or str(error)).lower()}){hint}"
    return None
