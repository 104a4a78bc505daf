"""The Slack bot of slack_bot.py with one more command: ``/fixes IR-101 SHOP-20 SHOP-21``.

It links an incident to the cases that fix it. Copy it together with slack_bot.py and link_command.py.
Install:  pip install '/path/to/datadog_caselinks[cli]' slack-bolt

Create a Slack app with Socket Mode, the slash commands ``/link`` and ``/fixes`` and the scope ``commands``,
and put its two tokens into the environment.

Against a sandbox:  caselinks sandbox --seed demo -- python examples/slack_incident.py
Against Datadog:    python examples/slack_incident.py        (with DD_* in the environment)
Both need:          SLACK_BOT_TOKEN=xoxb-… SLACK_APP_TOKEN=xapp-…
"""

import asyncio
import logging

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from slack_sdk.web.async_client import AsyncWebClient

import slack_bot
from datadog_caselinks import CaseLinksClient, CaseLinksError, Created, Failed, parse_link
from link_command import advice

USAGE = "Write `/fixes IR-101 SHOP-20 SHOP-21`: an incident, then the cases that fix it."


async def link_cases(client: CaseLinksClient, number: str, keys: list[str]) -> str:
    """Link the incident to each case unless they are linked, and return a reply with a line for each case.

    Raises :class:`CaseLinksError` if a text is neither a case nor an incident; nothing is linked then.
    """
    wanted = [parse_link(f"incident:{number}", "causes", key, site=client.site) for key in keys]
    lines = [""] * len(keys)
    async for outcome in client.create_links(wanted, ensure=True):
        match outcome:
            case Failed(error=error):
                result = advice(error)
            case Created():
                result = "linked"
            case _:
                result = "already linked"
        lines[outcome.index] = f"{keys[outcome.index]}: {result}"
    return "\n".join(lines)


def bot(slack: AsyncWebClient, client: CaseLinksClient) -> AsyncApp:
    """Return the bot with both commands. The caller closes both clients."""
    app = slack_bot.bot(slack, client)

    async def fixes(ack: AsyncAck, respond: AsyncRespond, command: dict[str, str]) -> None:
        await ack()  # within the three seconds that Slack allows
        match command.get("text", "").split():
            case [number, _, *_] as words:
                try:
                    reply = await link_cases(client, number, words[1:])
                except CaseLinksError as error:
                    await respond(slack_bot.escaped(advice(error)))
                else:
                    await respond(slack_bot.escaped(f"{number}\n{reply}"), response_type="in_channel")
            case _:
                await respond(USAGE)

    app.command("/fixes")(fixes)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(slack_bot.main(bot))
