"""The pictures of how-it-works.md, drawn from real runs: ``python -m docs.pictures`` writes them.

The sandbox loses the responses, and the real gate runs against its rate limit, in an event loop whose
time jumps from one timer to the next. The pictures are therefore reproducible, and a test compares the files.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar
from xml.sax.saxutils import escape

from attrs import frozen
from multidict import CIMultiDict

from benchmarks.picture import WIDTH, svg
from datadog_caselinks import CaseLinksClient, RateLimit, RetryPolicy, TransportError, case
from datadog_caselinks.http.gate import Gate
from datadog_caselinks.http.headers import read_rate_limit
from datadog_caselinks.sandbox import Fault, RateLimitRule, RecordedRequest, Sandbox
from datadog_caselinks.sandbox.limits import Limiter

T = TypeVar("T")

_MARGIN: Final = 20


def pictures() -> dict[str, str]:
    """Return all pictures by file name."""
    return {
        "lost-response.svg": sequence("Lost after the link was created", Fault.LOST_RESPONSE),
        "lost-request.svg": sequence("Lost before the link was created", Fault.RESET),
        "gate.svg": gate(),
    }


def _text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    shown_as = f' class="{kind}"' if kind else ""
    return f'<text{shown_as} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


# A create that hits a fault

_CLIENT: Final = 62
_DATADOG: Final = WIDTH - 62
_MIDDLE: Final = WIDTH / 2
_SENDS, _RECEIVES, _RECEIVES_NOTHING, _DOES = "sends", "receives", "receives nothing", "does"


def sequence(title: str, fault: Fault) -> str:
    """Draw the requests and responses of a create that hits ``fault`` as arrows, top to bottom."""
    y = 104.0
    heads = [
        _text(_MARGIN, 32, title, kind="title"),
        _text(_CLIENT, 62, "this client", anchor="middle"),
        _text(_DATADOG, 62, "Datadog", anchor="middle"),
    ]
    parts, steps = list[str](), list[str]()
    for kind, words in _steps(asyncio.run(_requests(fault))):
        steps.append(f"the client {words}" if kind == _DOES else f"the client {kind}: {words}")
        if kind == _DOES:
            parts.append(_text(_CLIENT + 10, y - 4, words, kind="quiet"))
            y += 40
        else:
            parts += [_text(_MIDDLE, y - 9, words, anchor="middle"), _ARROWS[kind](y)]
            y += 46
    ends = y - 40
    lines = [f'<path class="line" d="M{x} 72V{ends:g}"/>' for x in (_CLIENT, _DATADOG)]
    return svg(title, "; ".join(steps), ends + 18, [*heads, *lines, *parts])


async def _requests(fault: Fault) -> list[RecordedRequest]:
    at_once = RetryPolicy(base=0, settle=0)
    new = case("4417921d-0866-4a38-822c-6f2a0f65f77d").blocks(case("c9a888ae-bfd4-5ac6-a16a-d64ccec67c1a"))
    async with (
        Sandbox() as sandbox,
        CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as client,
    ):
        sandbox.fail_next(fault)
        created = await client.create_link(new)
        assert [link.id for link in sandbox.links] == [created.id]
        return list(sandbox.requests)


def _steps(requests: list[RecordedRequest]) -> Iterator[tuple[str, str]]:
    """Yield the steps of the client in words."""
    wait = RetryPolicy().wait_before_lookup(TransportError("the connection was lost"))
    creating = [request for request in requests if request.method == "POST"][-1]
    for request in requests:
        result = "the link is created" if request is creating else "the link is not created"
        if request.method == "GET":
            yield _DOES, f"waits {wait:g} s, then looks up the link"
            yield _SENDS, "GET the links of the parent"
            yield (
                _RECEIVES,
                f"{request.status}: {'it is listed' if request is requests[-1] else 'it is not listed'}",
            )
            continue
        yield _SENDS, "POST the link"
        if request.status is None:
            yield _RECEIVES_NOTHING, f"{result}; no response"
        else:
            yield _RECEIVES, f"{request.status}: {result}"
    yield _DOES, "returns the link"


_ARROWS: Final = {
    _SENDS: lambda y: f'<path class="line" d="M{_CLIENT} {y:g}H{_DATADOG}m-9 -5l9 5l-9 5"/>',
    _RECEIVES: lambda y: f'<path class="line" d="M{_DATADOG} {y:g}H{_CLIENT}m9 -5l-9 5l9 5"/>',
    _RECEIVES_NOTHING: lambda y: (
        f'<path class="window" d="M{_DATADOG} {y:g}H{_MIDDLE + 10:g}"/>'
        f'<path class="broken" d="M{_MIDDLE - 6:g} {y - 4:g}l12 12m0 -12l-12 12"/>'
    ),
}


# The gate against a limit

_RULE: Final = RateLimitRule.parse("200/2s")
_SLOTS: Final = 100
_INTO_THE_WINDOW: Final = 0.6
"""Seconds of the first window that have passed when a run starts."""

_SHOWN: Final = 6.2
"""Length of a run in seconds."""

_KINDS: Final = {"other": "the other process", "ours": "this client", "refused": "refused (429)"}
"""The CSS class and the label of each part of a bar, from bottom to top."""

_PLOT: Final = 110
_HIGHEST: Final = 150
"""The number of requests that fills the height of a plot."""


class _Jump(selectors.SelectSelector):
    """A selector that never waits: it advances the loop's time instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def in_no_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``coroutine``, which may only wait for timers."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        return runner.run(coroutine)


@frozen
class Request:
    """A request: when it was sent (seconds), by which process, and whether it was refused."""

    at: float
    is_ours: bool
    is_refused: bool

    @property
    def kind(self) -> str | None:
        """The part of a bar it counts for; refused requests of the other process are ignored."""
        if self.is_ours:
            return "refused" if self.is_refused else "ours"
        return None if self.is_refused else "other"


async def run(count: int, others: float = 0) -> list[Request]:
    """Gather ``count`` requests through the gate, while another process sends ``others`` a second without."""
    loop, draw = asyncio.get_running_loop(), random.Random(1)
    limiter, the_gate, slots = Limiter(_RULE), Gate(), asyncio.Semaphore(_SLOTS)
    sent, foreign = list[Request](), list[asyncio.Task[Any]]()

    async def send(*, is_ours: bool) -> tuple[bool, RateLimit | None]:
        at, one_way = loop.time(), draw.uniform(0.02, 0.08)
        await asyncio.sleep(one_way)
        is_refused = not limiter.admit(_INTO_THE_WINDOW + loop.time(), "create")
        window = limiter.window(_INTO_THE_WINDOW + loop.time(), "create")
        assert window
        await asyncio.sleep(one_way)
        sent.append(Request(at, is_ours, is_refused))
        return is_refused, read_rate_limit(CIMultiDict(window.headers()))

    async def call() -> None:
        async with slots:
            is_refused = True
            while is_refused:
                with await the_gate.acquire("create", max_wait=60, slots=slots) as permit:
                    is_refused, limit = await send(is_ours=True)
                    permit.on_response(limit, is_rate_limited=is_refused, retry_after=None)

    async def another_process() -> None:
        while others and loop.time() < _SHOWN:
            await asyncio.sleep(draw.expovariate(others))
            foreign.append(asyncio.create_task(send(is_ours=False)))

    await asyncio.gather(another_process(), *(call() for _ in range(count)))
    await asyncio.gather(*foreign)
    return sent


def gate() -> str:
    """Draw two runs against one limit: alone, and next to a process that uses the same limit."""
    alone, shared = in_no_time(run(700)), in_no_time(run(500, others=50))
    title = f"A limit of {_RULE.limit} requests in {_RULE.period:g} seconds"
    headings = (
        f"700 requests, alone: {_refused(alone)}",
        f"500, beside another process: {_refused(shared)}",
    )
    first, second, bottom = 84, 84 + 66 + _PLOT, 84 + 66 + 62 + 2 * _PLOT
    parts = [
        _text(_MARGIN, 32, title, kind="title"),
        _text(_MARGIN, 54, "sent in each tenth of a second; a line begins a window", kind="quiet"),
        *_plot(first, headings[0], alone),
        *_plot(second, headings[1], shared),
        *_legend(bottom),
    ]
    return svg(title, "; ".join(headings), bottom + 16, parts)


def _refused(requests: list[Request]) -> str:
    ours = [request.is_refused for request in requests if request.is_ours]
    return f"{sum(ours)} of {len(ours)} refused" if any(ours) else "none refused"


def _plot(top: int, heading: str, requests: list[Request]) -> list[str]:
    """Draw one run, with a bar for each tenth of a second and a line at the start of each window."""
    bottom = top + 14 + _PLOT
    windows = range(1, int((_SHOWN + _INTO_THE_WINDOW) / _RULE.period) + 1)
    begins = [_x(window * _RULE.period - _INTO_THE_WINDOW) for window in windows]
    return [
        _text(_MARGIN, top, heading),
        *(f'<path class="window" d="M{x:.1f} {top + 12}V{bottom}"/>' for x in begins),
        *_bars(bottom, requests),
        f'<path class="line" d="M{_MARGIN} {bottom}H{WIDTH - _MARGIN}"/>',
        *(_text(_x(at), bottom + 18, f"{at} s", anchor="middle" if at else "start") for at in range(7)),
    ]


def _bars(bottom: int, requests: list[Request]) -> Iterator[str]:
    counts = Counter((int(request.at * 10), request.kind) for request in requests)
    width = _x(0.1) - _x(0) - 1
    for tenth in range(int(_SHOWN * 10)):
        y = float(bottom)
        for kind in _KINDS:
            if count := counts[tenth, kind]:
                height = max(count / _HIGHEST * _PLOT, 2.0)  # keeps a single request visible
                y -= height
                size = f'width="{width:.1f}" height="{height:.1f}"'
                yield f'<rect class="{kind}" x="{_x(tenth / 10):.1f}" y="{y:.1f}" {size}/>'


def _x(seconds: float) -> float:
    return _MARGIN + seconds * (WIDTH - 2 * _MARGIN) / _SHOWN


def _legend(y: int) -> Iterator[str]:
    x = float(_MARGIN)
    for kind, words in _KINDS.items():
        yield f'<rect class="{kind}" x="{x:g}" y="{y - 11}" width="12" height="12" rx="2"/>'
        yield _text(x + 18, y, words)
        x += 40 + 7.6 * len(words)


if __name__ == "__main__":
    for name, picture in pictures().items():
        (Path(__file__).parent / name).write_text(picture, "utf-8")
