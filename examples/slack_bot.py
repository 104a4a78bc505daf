"""A Slack bot: ``/link SHOP-1 blocks SHOP-2``, or ``/link incident:UUID causes SHOP-3``.

It uses Socket Mode, so it needs no public address. Create a Slack app with Socket Mode, the slash command
``/link`` and the scope ``commands``, and put its two tokens into the environment.

Against a sandbox:  caselinks sandbox --seed demo -- python examples/slack_bot.py
Against Datadog:    python examples/slack_bot.py             (with DD_* in the environment)
Both need:          SLACK_BOT_TOKEN=xoxb-… SLACK_APP_TOKEN=xapp-…
"""

import asyncio
import html
import logging
import os
import signal
from collections.abc import Callable

import aiohttp
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from slack_sdk.web.async_client import AsyncWebClient

from datadog_caselinks import CaseLinksClient, CaseLinksError, Relationship
from link_command import advice, ensure_link

USAGE = f"""\
Write `/link SHOP-1 blocks SHOP-2`, or `/link incident:UUID causes SHOP-3`.
Relationships: {", ".join(Relationship).lower()}"""


def bot(slack: AsyncWebClient, client: CaseLinksClient) -> AsyncApp:
    """Return the bot. The caller closes both clients."""
    app = AsyncApp(client=slack)

    async def link(ack: AsyncAck, respond: AsyncRespond, command: dict[str, str]) -> None:
        await ack()  # within the three seconds that Slack allows; a reply may take half an hour
        match command.get("text", "").split():
            case [parent, relationship, child]:
                try:
                    reply = await ensure_link(client, parent, relationship, child)
                except CaseLinksError as error:
                    await respond(escaped(advice(error)))  # visible only to the person who sent the command
                else:
                    await respond(escaped(reply), response_type="in_channel")
            case _:
                await respond(USAGE)

    app.command("/link")(link)
    return app


def escaped(text: str) -> str:
    """Escape ``text`` for Slack: a title could otherwise mention the whole channel."""
    return html.escape(text, quote=False)


async def main(create: Callable[[AsyncWebClient, CaseLinksClient], AsyncApp] = bot) -> None:
    """Reply to commands until Ctrl-C or SIGTERM, with one client for all of them."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # Windows has no loop.add_signal_handler
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    api = os.environ.get("SLACK_API_URL", AsyncWebClient.BASE_URL)  # differs for GovSlack and in tests
    async with (
        aiohttp.ClientSession() as session,  # shared by Slack's client and ours
        CaseLinksClient.from_env(sessions=session) as client,
    ):
        slack = AsyncWebClient(os.environ["SLACK_BOT_TOKEN"], api, session=session)
        handler = AsyncSocketModeHandler(create(slack, client), os.environ["SLACK_APP_TOKEN"])
        try:
            await handler.connect_async()
            await stopped.wait()
        finally:
            await handler.close_async()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
