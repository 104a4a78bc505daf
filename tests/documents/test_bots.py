"""The bots create links and send messages, without a network connection to Slack or Discord."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import discord
import pytest
from slack_bolt.async_app import AsyncBoltRequest
from slack_sdk.web.async_client import AsyncWebClient

import discord_bot
import slack_bot
from datadog_caselinks import (
    ApiKeys,
    CaseLinksClient,
    CaseLinksError,
    Relationship,
    RetryPolicy,
    SessionError,
)
from datadog_caselinks.sandbox import Fault, Sandbox
from link_command import advice, ensure_link
from tests.documents.discord_api import DiscordApi
from tests.documents.processes import ended, running
from tests.documents.slack import Slack
from tests.support.server import Server
from tests.support.steps import Held, answers

INCIDENT = "1588a905-212d-5dcb-ad1b-15647f1ad62d"
CASE = "4417921d-0866-4a38-822c-6f2a0f65f77d"


@pytest.fixture
async def slack() -> AsyncIterator[Slack]:
    async with Slack() as slack:
        yield slack


class TestLinkCommand:
    async def test_shows_the_titles(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """The message about a new link has the keys and titles of both cases and the direction."""
        assert await ensure_link(client, "shop-1", "blocks", "SHOP-2") == (
            "Linked: SHOP-1 Checkout hangs → blocks → SHOP-2 orders-db connection pool exhausted"
        )
        assert len(sandbox.links) == 1

    async def test_asks_for_no_title_twice(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """A title that the lookup of the key returned is not requested again."""
        await ensure_link(client, "SHOP-1", "blocks", "SHOP-2")
        assert len(sandbox.requests) == 2 + 1 + 1  # two cases, a lookup of the link, and the create

    async def test_a_second_time_makes_no_second_link(
        self, client: CaseLinksClient, sandbox: Sandbox
    ) -> None:
        """Repeating a command of the bot creates no second link."""
        await ensure_link(client, "SHOP-1", "relates-to", "SHOP-2")
        said = await ensure_link(client, "SHOP-2", "RELATES_TO", "SHOP-1")
        assert said.startswith("Already linked: ")
        assert " → relates to → " in said
        assert len(sandbox.links) == 1

    async def test_an_incident_has_no_title(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """An incident is shown by its id, and no request is sent for it."""
        said = await ensure_link(client, f"incident:{INCIDENT}", "causes", "SHOP-1")
        assert said == f"Linked: INCIDENT {INCIDENT} → causes → SHOP-1 Checkout hangs"
        assert len(sandbox.requests) == 1 + 1 + 1  # the case, a lookup of the link, and the create

    async def test_a_title_that_cannot_be_had_is_no_failure(self, client: CaseLinksClient) -> None:
        """A case whose title cannot be read is shown by its id, and the link is created."""
        said = await ensure_link(client, CASE, "causes", "SHOP-1")
        assert said == f"Linked: CASE {CASE} → causes → SHOP-1 Checkout hangs"

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (
                ("SHOP-1", "likes", "SHOP-2"),
                "Not linked: unknown relationship 'likes'; use one of relates to,",
            ),
            (
                ("it", "blocks", "SHOP-2"),
                "Not linked: 'it' does not name an entity; write a case key such as SHOP-1,",
            ),
            (
                ("SHOP-1", "blocks", "SHOP-99"),
                "Not linked: cannot get case SHOP-99: 404 case not found. ",
            ),
        ],
    )
    async def test_says_what_to_write_instead(
        self,
        client: CaseLinksClient,
        caplog: pytest.LogCaptureFixture,
        command: tuple[str, str, str],
        said: str,
    ) -> None:
        """A mistake in the command is reported to the user and not logged."""
        with pytest.raises(CaseLinksError) as refused:
            await ensure_link(client, *command)
        assert advice(refused.value).startswith(said)
        assert said.removeprefix("Not linked: ") not in caplog.text

    @pytest.mark.parametrize(
        ("fault", "count", "operation", "seconds", "said"),
        [
            (Fault.HTTP_429_RETRY_AFTER, 1, None, 1000, "Try again in 1000 seconds"),
            (Fault.HTTP_502, 3, "list", None, "Not linked: Datadog cannot be reached or failed"),
            (Fault.HTTP_503_RETRY_AFTER, 1, "create", 1000, "Perhaps linked: Datadog did not confirm it"),
        ],
    )
    async def test_says_whether_to_try_again(
        self,
        client: CaseLinksClient,
        sandbox: Sandbox,
        caplog: pytest.LogCaptureFixture,
        fault: Fault,
        count: int,
        operation: Any,
        seconds: float | None,
        said: str,
    ) -> None:
        """The user is advised whether to try again, and the log has the whole error."""
        sandbox.fail_next(fault, count=count, operation=operation, seconds=seconds)
        with pytest.raises(CaseLinksError) as failed:
            await ensure_link(client, "SHOP-1", "blocks", "SHOP-2")
        assert said in advice(failed.value)
        assert str(failed.value) in caplog.text

    @pytest.mark.parametrize(
        ("keys", "logged"),
        [
            (Sandbox().credentials_without_scope, "scope cases_write"),
            (ApiKeys(api_key="of-another", app_key="organisation"), "Check DD_API_KEY and DD_APP_KEY"),
        ],
        ids=["no-scope", "unknown-keys"],
    )
    async def test_refers_to_the_operators(
        self, sandbox: Sandbox, caplog: pytest.LogCaptureFixture, keys: ApiKeys, logged: str
    ) -> None:
        """Missing access is logged for the operators, and the user is referred to them."""
        async with CaseLinksClient(sandbox.site, keys) as client:
            with pytest.raises(CaseLinksError) as failed:
                await ensure_link(client, "SHOP-1", "blocks", "SHOP-2")
        assert advice(failed.value).startswith("Not linked: Datadog denied access. Please ask the operators")
        assert logged in caplog.text


class TestSlackBot:
    async def dispatch(self, slack: Slack, client: CaseLinksClient, text: str) -> int:
        """Return the status with which the bot acknowledges the command ``text``."""
        app = slack_bot.bot(AsyncWebClient("xoxb-1", slack.api_url), client)
        request = AsyncBoltRequest(body=slack.command(text), mode="socket_mode")
        return (await app.async_dispatch(request)).status

    async def test_announces_the_link_in_the_channel(
        self, slack: Slack, client: CaseLinksClient, sandbox: Sandbox
    ) -> None:
        """A created link is announced in the channel."""
        assert await self.dispatch(slack, client, "SHOP-1 blocks  SHOP-2") == 200
        said = await slack.heard()
        assert said["text"].startswith("Linked: SHOP-1 Checkout hangs")
        assert said["response_type"] == "in_channel"
        assert len(sandbox.links) == 1

    async def test_acknowledges_before_datadog_responds(self, slack: Slack, at_once: RetryPolicy) -> None:
        """The bot acknowledges before Datadog responds, because Slack waits for only 3 seconds."""
        held = Held(answers(404))
        async with Server(held) as server:
            credentials = Sandbox().credentials
            async with CaseLinksClient(server.url, credentials, retry=at_once) as client:
                assert await self.dispatch(slack, client, "SHOP-1 blocks SHOP-2") == 200
                await server.until_seen(1)
                assert slack.is_silent
                held.release()
                assert (await slack.heard())["text"].startswith("Not linked: cannot get case SHOP-1")

    @pytest.mark.parametrize("text", ["", "help", "SHOP-1 blocks", "SHOP-1 blocks SHOP-2 please"])
    async def test_explains_itself_to_the_one_who_asks(
        self, slack: Slack, client: CaseLinksClient, sandbox: Sandbox, text: str
    ) -> None:
        """The response to an incomplete command is the usage, which only its sender sees."""
        assert await self.dispatch(slack, client, text) == 200
        said = await slack.heard()
        assert said["text"] == slack_bot.USAGE
        assert "response_type" not in said
        assert not sandbox.requests

    async def test_shows_an_error_only_to_the_sender(self, slack: Slack, client: CaseLinksClient) -> None:
        """An error is shown only to the sender of the command."""
        assert await self.dispatch(slack, client, "SHOP-1 blocks SHOP-99") == 200
        said = await slack.heard()
        assert said["text"].startswith("Not linked: cannot get case SHOP-99: 404")
        assert "response_type" not in said

    async def test_mentions_nobody(self, slack: Slack, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """A title that looks like a mention of the whole channel is shown as plain text."""
        sandbox.add_case("SHOP-3", "Tell <!channel> & co")
        await self.dispatch(slack, client, "SHOP-3 blocks SHOP-1")
        assert "Tell &lt;!channel&gt; &amp; co" in (await slack.heard())["text"]
        await self.dispatch(slack, client, "<!channel> blocks SHOP-1")
        assert "&lt;!channel&gt;" in (await slack.heard())["text"]

    @pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
    async def test_runs_in_socket_mode_until_it_is_ended(
        self, slack: Slack, sandbox: Sandbox, end: signal.Signals
    ) -> None:
        """The example runs in Socket Mode, responds, and leaves nothing open when a signal ends it."""
        tokens = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1"}
        async with running(sandbox, "slack_bot.py", SLACK_API_URL=slack.api_url, **tokens) as process:
            await slack.send("SHOP-1 blocks SHOP-2")
            assert (await slack.heard())["text"].startswith("Linked: SHOP-1")
            process.send_signal(end)
            printed = await ended(process)
        assert not [token for token in tokens.values() if token in printed]


class TestDiscordBot:
    async def invoke(self, client: CaseLinksClient, parent: str, child: str) -> list[str]:
        """Return the messages to a user who links ``parent`` BLOCKS ``child``."""
        seen: list[str] = []

        async def defer(*, thinking: bool) -> None:
            assert thinking
            seen.append("…")

        async def send(content: str) -> None:
            seen.append(content)

        callback: Any = discord_bot.link.callback  # its type requires more of an interaction than is used
        await callback(
            SimpleNamespace(
                client=discord_bot.LinkBot(client),
                response=SimpleNamespace(defer=defer),
                followup=SimpleNamespace(send=send),
            ),
            parent,
            Relationship.BLOCKS,
            child,
        )
        return seen

    async def test_links_and_describes_the_link(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """The bot defers its response, creates the link and describes it."""
        thinking, said = await self.invoke(client, "SHOP-1", "SHOP-2")
        assert thinking == "…"
        assert said.startswith("Linked: SHOP-1 Checkout hangs → blocks → SHOP-2")
        assert len(sandbox.links) == 1

    async def test_responds_with_an_error(self, client: CaseLinksClient) -> None:
        """An error is sent as the response to the command."""
        _, said = await self.invoke(client, "SHOP-1", "SHOP-99")
        assert said.startswith("Not linked: cannot get case SHOP-99: 404")

    async def test_registers_its_command(
        self, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After login, the command is registered with every relationship as a choice."""
        async with DiscordApi() as discord_api, discord_bot.LinkBot(client) as bot:
            monkeypatch.setattr(discord.http.Route, "BASE", discord_api.url)
            await bot.login("a-token")
        (command,) = discord_api.commands
        options = {option["name"]: option for option in command["options"]}
        assert (command["name"], list(options)) == ("link", ["parent", "relationship", "child"])
        assert [choice["value"] for choice in options["relationship"]["choices"]] == list(Relationship)

    async def test_a_title_is_no_markup(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """A title is escaped, mentions no one and is cut to the maximum length of Discord."""
        sandbox.add_case("SHOP-3", "@everyone **orders_db**" + "x" * 2000)
        _, said = await self.invoke(client, "SHOP-3", "SHOP-1")
        assert r"\*\*orders\_db\*\*" in said
        assert len(said) == 2000
        bot = discord_bot.LinkBot(client)
        assert bot.allowed_mentions
        assert bot.allowed_mentions.to_dict() == discord.AllowedMentions.none().to_dict()

    async def test_closes_the_client_at_its_end(self, client: CaseLinksClient) -> None:
        """The client is closed together with the bot."""
        async with discord_bot.LinkBot(client):
            await client.get_case("SHOP-1")
        with pytest.raises(SessionError, match="this client is closed"):
            await client.get_case("SHOP-1")
