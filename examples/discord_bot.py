"""A Discord bot: ``/link parent: SHOP-1 relationship: BLOCKS child: SHOP-2``.

Create a Discord application with a bot, invite the bot with the scope ``applications.commands``, and put its
token into the environment.

Against a sandbox:  caselinks sandbox --seed demo -- python examples/discord_bot.py
Against Datadog:    python examples/discord_bot.py           (with DD_* in the environment)
Both need:          DISCORD_TOKEN=…
"""

import os

import discord
from discord import app_commands

from datadog_caselinks import CaseLinksClient, CaseLinksError, Relationship
from link_command import advice, ensure_link

MAX_MESSAGE = 2000  # characters; Discord refuses a longer one


class LinkBot(discord.Client):
    """The bot, which uses one client for all commands and closes it on exit."""

    def __init__(self, client: CaseLinksClient) -> None:
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),  # a title may contain @everyone
        )
        self.case_links = client
        self.tree = app_commands.CommandTree(self)
        self.tree.add_command(link)

    async def setup_hook(self) -> None:
        """Register the command with Discord, once after each start."""
        await self.tree.sync()

    async def close(self) -> None:
        """Disconnect from Discord, then close the client."""
        await super().close()
        await self.case_links.close()


@app_commands.command()
@app_commands.describe(
    parent="SHOP-1, the URL of a case, or incident:UUID",
    relationship="How the parent relates to the child",
    child="SHOP-2, the URL of a case, or incident:UUID",
)
async def link(
    interaction: discord.Interaction[LinkBot], parent: str, relationship: Relationship, child: str
) -> None:
    """Link two cases, or a case and an incident."""
    await interaction.response.defer(thinking=True)  # within the three seconds that Discord allows
    try:
        reply = await ensure_link(interaction.client.case_links, parent, relationship, child)
    except CaseLinksError as error:
        reply = advice(error)
    await interaction.followup.send(discord.utils.escape_markdown(reply)[:MAX_MESSAGE])


if __name__ == "__main__":
    LinkBot(CaseLinksClient.from_env()).run(os.environ["DISCORD_TOKEN"])
