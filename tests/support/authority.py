"""A private certificate authority for tests of TLS."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import trustme
from attrs import Factory, frozen


@frozen
class Authority:
    """A private certificate authority that creates TLS contexts for servers and clients."""

    ca: trustme.CA = Factory(trustme.CA)

    def server(self, *names: str, **validity: Any) -> ssl.SSLContext:
        """Return the context of a server with a certificate for ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, **validity).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority alone, since to read all takes 30 ms."""
        return ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())


@contextlib.contextmanager
def counting_handshakes(context: ssl.SSLContext) -> Iterator[list[str]]:
    """Yield a list to which each TLS handshake with ``context`` appends the requested server name."""
    names: list[str] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    yield names
