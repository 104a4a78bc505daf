"""Common options, the client, and the handling of signals, for all subcommands."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Final, Protocol, TypeVar, Unpack

import click
from attrs import frozen

from datadog_caselinks.calls.retry import RetryPolicy
from datadog_caselinks.cli.again import longer_wait
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.proxies import proxy_for
from datadog_caselinks.cli.screen import Screen, ScreenHandler
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.client import CaseLinksClient, ClientOptions
from datadog_caselinks.values.errors import CaseLinksError, RateLimitError
from datadog_caselinks.values.rate import Rate, parsed_rate
from datadog_caselinks.values.sites import Site, site_from_env

T = TypeVar("T")

_package = logging.getLogger("datadog_caselinks")

_SPEAKING: Final = 0.5
"""Seconds for the last message of a process that has to end."""

_SAME_SIGINT: Final = 0.5
"""Seconds in which a further SIGINT is the same one: ``timeout -s INT`` signals a program and its group."""

_received = signal.SIGINT
"""The signal that ends the run; Ctrl-C does it without a handler of ours."""

_last_words = threading.Lock()
"""Held once the last message is due, by the run or by the code that ends the process. It appears once."""


@frozen
class Settings:
    """The values of the common options."""

    site: str | None
    in_sandbox: bool
    output: str
    quiet: bool
    verbose: bool
    max_wait: float = RetryPolicy().max_wait
    rate: Rate | None = None


site_option: Final[Callable[[Any], Any]] = click.option(
    "--site", metavar="SITE", help="Datadog's site, such as datadoghq.eu or EU1. Default: DD_SITE, or US1."
)
sandbox_option: Final[Callable[[Any], Any]] = click.option(
    "--sandbox",
    "in_sandbox",
    is_flag=True,
    help="Use a temporary local server with demo data instead of Datadog. Needs no keys.",
)
output_option: Final[Callable[[Any], Any]] = click.option(
    "--output",
    type=click.Choice(["table", "json", "jsonl"]),
    default="table",
    show_default=True,
    help="Output format. Tabs separate the columns of a table if the output is not a terminal.",
)
_VERBOSE: Final = "Show each retry and each wait for the rate limit."
verbose_option: Final[Callable[[Any], Any]] = click.option("--verbose", "-v", is_flag=True, help=_VERBOSE)


def parse_rate(context: click.Context, parameter: click.Parameter, given: str | None) -> Rate | None:
    """Return the rate that an option gives, or ``None`` if it is not given."""
    return parsed_rate(given)


rate_option: Final[Callable[[Any], Any]] = click.option(
    "--rate",
    metavar="REQUESTS/PERIOD",
    callback=parse_rate,
    help="Maximum number of requests per period, such as 50/1s. Default: what the rate limit allows.",
)
max_wait_option: Final[Callable[[Any], Any]] = click.option(
    "--max-wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=RetryPolicy().max_wait,
    help=f"Fail if the rate limit or the server requires a longer wait. Default: {RetryPolicy().max_wait:g}.",
)


def with_settings(
    *, quiet: str = "Show results and problems only.", verbose: str = _VERBOSE
) -> Callable[[Callable[..., T]], Any]:
    """Add the common options to a subcommand, as its parameter ``settings``.

    ``quiet`` and ``verbose`` are the help texts of these options.
    """

    def decorate(function: Callable[..., T]) -> Any:
        @site_option
        @sandbox_option
        @output_option
        @rate_option
        @max_wait_option
        @click.option("--quiet", "-q", is_flag=True, help=quiet)
        @click.option("--verbose", "-v", is_flag=True, help=verbose)
        @functools.wraps(function)
        def command(
            *arguments: Any,
            site: str | None,
            in_sandbox: bool,
            output: str,
            rate: Rate | None,
            max_wait: float,
            quiet: bool,
            verbose: bool,
            **options: Any,
        ) -> T:
            settings = Settings(site, in_sandbox, output, quiet, verbose, max_wait, rate)
            return function(*arguments, settings=settings, **options)

        return command

    return decorate


def resolve_site(given: str | None) -> Site:
    """Return the site named by ``given``, or else by the environment.

    Raises:
        ConfigurationError: ``given`` does not name a site.
    """
    return Site.parse(given) if given else site_from_env()


@contextlib.asynccontextmanager
async def open_client(settings: Settings, **options: Unpack[ClientOptions]) -> AsyncIterator[CaseLinksClient]:
    """Open the client for ``settings``. With ``--sandbox`` a sandbox starts and ends with it.

    An error about a wait for the rate limit that leaves the block says which option allows the wait.
    """
    options.setdefault("retry", RetryPolicy(max_wait=settings.max_wait))
    options["rate"] = settings.rate
    async with contextlib.AsyncExitStack() as stack:
        if settings.in_sandbox:
            from datadog_caselinks.sandbox import Sandbox  # imported lazily: slow, since it imports a server

            sandbox = await stack.enter_async_context(Sandbox(seed="demo"))
            client = CaseLinksClient(sandbox.site, sandbox.credentials, **options)
        else:
            site = resolve_site(settings.site)
            options["proxy"] = proxy_for(site).url
            client = CaseLinksClient.from_env(site, **options)
        try:
            yield await stack.enter_async_context(client)
        except RateLimitError as error:
            if advice := longer_wait(error, settings.max_wait):
                error.args = (f"{error}. To continue, {advice}",)
            raise


@contextlib.contextmanager
def logging_to(screen: Screen, settings: Settings) -> Iterator[None]:
    """Show log records on ``screen``: the first of each logger, or with ``--verbose`` all."""
    handler = ScreenHandler(screen, show_all=settings.verbose)
    with handling_log(handler, _package, verbose=settings.verbose):
        yield


@contextlib.contextmanager
def handling_log(handler: logging.Handler, logger: logging.Logger, *, verbose: bool) -> Iterator[None]:
    """Add ``handler`` to ``logger``, and let this package log at level INFO, or with ``verbose`` at DEBUG."""
    level = _package.level
    _package.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        _package.setLevel(level)


class Changes(Protocol):
    """Links that a command deletes or creates, one after the other."""

    @property
    def has_begun(self) -> bool:
        """Whether any link may have been changed."""

    def report_early_end(self) -> None:
        """Show the links that were not changed, and how to continue."""


@contextlib.contextmanager
def reporting_early_end(screen: Screen, changes: Changes) -> Iterator[None]:
    """Report how far the command has come if a signal or an error ends it, and close the screen."""
    try:
        yield
    except RunInterruptedError:
        changes.report_early_end()
        raise
    except (CaseLinksError, OutputError) as error:
        if not changes.has_begun:
            raise
        changes.report_early_end()
        raise click.ClickException(str(error)) from error
    finally:
        screen.close()


def run(
    work: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run ``work``. Raises :class:`RunInterruptedError` if Ctrl-C, SIGTERM or SIGHUP ends it."""
    global _last_words
    _last_words = threading.Lock()
    on_sigint = signal.getsignal(signal.SIGINT)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_cancel_on_signals(work))
    except RunInterruptedError:
        _last_words.acquire()  # forever if the process is being ended
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not on_sigint:
            signal.signal(signal.SIGINT, on_sigint)


def ending_signals() -> list[signal.Signals]:
    """Return the signals, apart from that of Ctrl-C, that ask a program to end on this system."""
    names = ("SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has the last one instead of the second
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


@contextlib.contextmanager
def on_signals(act: Callable[[signal.Signals], None], *numbers: signal.Signals) -> Iterator[None]:
    """Call ``act`` in the running event loop on each of the signals that is not ignored, as under nohup.

    Unlike ``loop.add_signal_handler``, it works on Windows too.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, _: object) -> None:
        loop.call_soon_threadsafe(act, signal.Signals(number))

    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, handle) for number in heard]
    try:
        yield
    finally:
        for number, handler in zip(heard, before, strict=True):
            signal.signal(number, handler or signal.SIG_DFL)


async def end_within(seconds: float, work: Coroutine[Any, Any, T], last_words: Callable[[], None]) -> T:
    """Run ``work``; once it is cancelled, end the process within ``seconds``, or at a second cancellation.

    It is for work that may be killed at any time, and that may wait for something that cannot be cancelled,
    such as the resolution of a host name. ``last_words`` writes what to say before such an end.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        watchdog = threading.Timer(seconds, _end_process, [last_words])
        watchdog.daemon = True
        watchdog.start()  # not ended with the work: the end of the event loop can hang too
        task.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            _end_process(last_words)
        if not task.cancelled() and task.exception():
            raise  # the error is of the end, such as that of a library whose streams close in any order
    return task.result()


def _end_process(last_words: Callable[[], None]) -> None:
    """End the process with the exit status of the received signal, even if standard error is blocked."""

    def speak() -> None:
        if _last_words.acquire(blocking=False):
            last_words()
            click.echo("Interrupted.", err=True)
        else:
            time.sleep(_SPEAKING)  # the run is writing the last message, and may then end the process

    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    speaking.join(_SPEAKING)
    os._exit(RunInterruptedError(_received).exit_status)


@contextlib.contextmanager
def default_sigint() -> Iterator[None]:
    """Let Ctrl-C end the process at once.

    For calls into compiled code, which Python's own handler cannot interrupt.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # not if it is ignored, as under nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


async def _cancel_on_signals(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``, and cancel it on SIGTERM and SIGHUP as Ctrl-C does."""
    global _received
    task = asyncio.current_task()
    assert task is not None
    _received = signal.SIGINT

    def cancel(number: signal.Signals) -> None:
        global _received
        _received = number
        task.cancel()

    _ignore_repeated_sigint()
    with on_signals(cancel, *ending_signals()):
        try:
            return await work
        except asyncio.CancelledError:
            raise RunInterruptedError(_received) from None


def _ignore_repeated_sigint() -> None:
    """Ignore each SIGINT that follows the first one immediately, until the loop is closed."""
    handle_sigint = signal.getsignal(signal.SIGINT)  # that of asyncio: it cancels, and then ends at once
    first: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first < _SAME_SIGINT:
            return
        assert callable(handle_sigint)
        handle_sigint(number, frame)

    if callable(handle_sigint):  # it is not if SIGINT is ignored, as under nohup
        signal.signal(signal.SIGINT, handle)
