"""A chat bot that links cases, over the HTTP session that it has anyway.

It reads messages such as ``/link UUID blocks UUID`` from standard input, and answers on standard output, or
to an incoming webhook of your chat if CHAT_WEBHOOK_URL is set.

Against a sandbox:  caselinks sandbox -- python examples/bot.py
Against Datadog:    python examples/bot.py                   (with DD_* in the environment)
"""

import asyncio
import os
import sys

import aiohttp

from datadog_caselinks import (
    CaseLinksClient,
    CaseLinksError,
    InvalidLinkError,
    NewCaseLink,
    Relationship,
    case,
)

USAGE = f"Write: /link UUID RELATIONSHIP UUID. Relationships: {', '.join(Relationship).lower()}"


def understand(message: str) -> NewCaseLink:
    """The link that ``/link PARENT RELATIONSHIP CHILD`` asks for; raises what the user did wrong."""
    match message.split():
        case ["/link", parent, relationship, child]:
            return NewCaseLink(case(parent), relationship.upper(), case(child))
        case _:
            raise InvalidLinkError(USAGE)


async def answer(links: CaseLinksClient, message: str) -> str:
    """What the bot says to ``message``."""
    try:
        link = await links.create_link(understand(message))
    except CaseLinksError as error:
        return f"Sorry: {error}"
    return f"Done: {link} (link {link.id})"


async def say(session: aiohttp.ClientSession, text: str) -> None:
    """Post ``text`` to the chat, or print it where there is none."""
    if webhook := os.environ.get("CHAT_WEBHOOK_URL"):
        async with session.post(webhook, json={"text": text}) as response:
            response.raise_for_status()
    else:
        print(text)


async def main() -> None:
    """Answer each message; the session is the bot's own, and the client leaves it open."""
    async with (
        aiohttp.ClientSession() as session,
        CaseLinksClient.from_env(sessions=session) as links,
    ):
        print(USAGE)
        while message := await asyncio.to_thread(sys.stdin.readline):
            await say(session, await answer(links, message))


if __name__ == "__main__":
    asyncio.run(main())
