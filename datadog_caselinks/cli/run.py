"""How a subcommand runs: the options that all have, the client that it asks with, how a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar, Unpack
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import click
from attrs import frozen

from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.screen import Log, Screen
from datadog_caselinks.client import CaseLinksClient, ClientOptions
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.sites import Site, site_from_env

T = TypeVar("T")


@frozen
class Settings:
    """What the options that every subcommand has were set to."""

    site: str | None
    in_sandbox: bool
    output: str
    quiet: bool
    verbose: bool


site_option: Final[Callable[[Any], Any]] = click.option(
    "--site", metavar="SITE", help="Such as datadoghq.eu or EU1. Default: DD_SITE, or US1."
)
output_option: Final[Callable[[Any], Any]] = click.option(
    "--output",
    type=click.Choice(["table", "json", "jsonl"]),
    default="table",
    show_default=True,
    help="A table is for people; without a terminal its columns have tabs between.",
)
verbose_option: Final[Callable[[Any], Any]] = click.option(
    "--verbose", "-v", is_flag=True, help="Tell of each retry and of each wait for the rate limit."
)


def with_settings(*, quiet: str = "Show results and problems only.") -> Callable[[Callable[..., T]], Any]:
    """Give a subcommand the common options as its parameter ``settings``; ``quiet`` is the help of one."""

    def decorate(function: Callable[..., T]) -> Any:
        @site_option
        @click.option(
            "--sandbox",
            "in_sandbox",
            is_flag=True,
            help="Ask a local Datadog, filled with a demo, which ends with the run. No keys are needed.",
        )
        @output_option
        @click.option("--quiet", "-q", is_flag=True, help=quiet)
        @verbose_option
        @functools.wraps(function)
        def command(
            *arguments: Any,
            site: str | None,
            in_sandbox: bool,
            output: str,
            quiet: bool,
            verbose: bool,
            **options: Any,
        ) -> T:
            settings = Settings(site, in_sandbox, output, quiet, verbose)
            return function(*arguments, settings=settings, **options)

        return command

    return decorate


def site_of(given: str | None) -> Site:
    """The site that ``given`` names, or the environment. Raises :class:`ConfigurationError` for another."""
    return Site.parse(given) if given else site_from_env()


def proxy_to(site: Site) -> str | None:
    """The proxy that the environment names, by ``HTTPS_PROXY`` and ``NO_PROXY``, as other commands read them.

    There is none to a server on loopback.
    """
    url = urlsplit(site.api_url)
    if url.scheme != "https" or proxy_bypass(url.netloc):
        return None
    proxy = getproxies().get("https")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


@contextlib.asynccontextmanager
async def client(settings: Settings, **options: Unpack[ClientOptions]) -> AsyncIterator[CaseLinksClient]:
    """The client that ``settings`` ask for; with ``--sandbox``, of a sandbox that ends with it."""
    async with contextlib.AsyncExitStack() as stack:
        if settings.in_sandbox:
            sandbox = await stack.enter_async_context(Sandbox(seed="demo"))
            links = CaseLinksClient(sandbox.site, sandbox.credentials, **options)
        else:
            site = site_of(settings.site)
            options["proxy"] = proxy_to(site)
            links = CaseLinksClient.from_env(site, **options)
        yield await stack.enter_async_context(links)


@contextlib.contextmanager
def logging_to(screen: Screen, settings: Settings) -> Iterator[None]:
    """Show on ``screen`` what holds the run up: the first of each kind, or with ``--verbose`` all."""
    logger = logging.getLogger("datadog_caselinks")
    logger.setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    handler = Log(screen, all_of_a_kind=settings.verbose)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end. Raises :class:`RunInterruptedError` if Ctrl-C, SIGTERM or SIGHUP ends it."""
    return asyncio.run(_ended_by_signals(work))


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """Let Ctrl-C end the program without a word, while a library computes that hears of no signal."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # and not ignored, as by nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


async def _ended_by_signals(work: Coroutine[Any, Any, T]) -> T:
    """Let what ends services end ``work`` as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    ended_by = signal.SIGINT

    def end(by: signal.Signals) -> None:
        nonlocal ended_by
        ended_by = by
        task.cancel()

    for by in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(by) is not signal.SIG_IGN:  # as nohup leaves it
            asyncio.get_running_loop().add_signal_handler(by, end, by)
    try:
        return await work
    except asyncio.CancelledError:
        raise RunInterruptedError(ended_by) from None
