"""Print the CPU time that each layer of one create costs beside HTTP, in microseconds.

Each layer runs many times with a constant in place of the layer below it. The rounds of all layers are
interleaved, and the fastest round of each counts, so that other programs disturb little.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from multidict import CIMultiDict

from benchmarks.contenders import API_KEY, APP_KEY
from datadog_caselinks import ApiKeys, CaseLinksClient, WantedLink, case
from datadog_caselinks.calls.retry import with_retries
from datadog_caselinks.http import wire
from datadog_caselinks.http.gate import Gate
from datadog_caselinks.http.outage import Outage
from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.transport import Transport
from datadog_caselinks.http.wire import Response
from datadog_caselinks.values.models import NewCaseLink

_ROUNDS: Final = 100
_CALLS: Final = 200

_PARENT: Final = "4417921d-0866-4a38-822c-6f2a0f65f77d"
_CHILD: Final = "c9a888ae-bfd4-5ac6-a16a-d64ccec67c1a"
_CREDENTIALS: Final = ApiKeys(api_key=API_KEY, app_key=APP_KEY)
_LIMIT: Final = {"Limit": "5000", "Remaining": "4000", "Period": "10", "Reset": "5", "Name": "case_links"}

Layer = Callable[[], Awaitable[object]]


class _Constant:
    """Takes the place of a layer that sends requests: the response is always the same."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def require_usable(self) -> None:
        """Do nothing: it is always usable."""

    async def authenticate(self) -> object:
        """Return the headers of the credentials."""
        return await _CREDENTIALS.authenticate()

    async def send(self, *_: object) -> Response:
        """Return the response."""
        return self._response


def _new() -> WantedLink:
    return case(_PARENT).blocks(case(_CHILD))


async def _layers() -> dict[str, Layer]:
    new = _new()
    assert isinstance(new, NewCaseLink)
    request = wire.create_request(new)
    assert isinstance(request.body, bytes)
    created = {"data": {**json.loads(request.body)["data"], "id": _CHILD}}
    headers = CIMultiDict({f"X-RateLimit-{name}": value for name, value in _LIMIT.items()})
    auth = await _CREDENTIALS.authenticate()
    response = Response(request, 201, headers, json.dumps(created).encode(), auth.redact)
    transport = cast("Transport", _Constant(response))
    requester = Requester(transport, Gate(), Outage(), max_in_flight=100, max_wait=120)
    client = CaseLinksClient("http://127.0.0.1:1", _CREDENTIALS)
    client._creator._requester = cast("Requester", _Constant(response))

    @with_retries
    async def attempt() -> None:
        pass

    def plain(function: Callable[..., object], *args: Any) -> Layer:
        async def call() -> object:
            return function(*args)

        return call

    return {
        "an empty coroutine, which each row below contains": plain(bool),
        "a link in the form case(a).blocks(case(b))": plain(_new),
        "the request, encoded by cattrs": plain(wire.create_request, new),
        "the response, decoded by cattrs, checked and compared": plain(wire.read_link, response),
        "the rate-limit headers": plain(response.rate_limit),
        "slot, gate and rate-limit headers": lambda: requester.send(request),
        "the backoff decorator": attempt,
        "the client's method, on a request that costs nothing": lambda: client.create_link(new),
    }


async def main() -> None:
    """Measure all layers, and print a row for each."""
    layers = await _layers()
    fastest = dict.fromkeys(layers, float("inf"))
    for _ in range(_ROUNDS):
        for name, layer in layers.items():
            start = time.thread_time()
            for _ in range(_CALLS):
                await layer()
            fastest[name] = min(fastest[name], (time.thread_time() - start) / _CALLS)
    for name, seconds in fastest.items():
        print(f"{1e6 * seconds:6.1f} µs  {name}")


if __name__ == "__main__":
    asyncio.run(main())
