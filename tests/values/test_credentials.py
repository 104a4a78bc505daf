"""The rules of credentials: accepted values, environment variables, and no secret in any output."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import html
import json
import pickle
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from datadog_caselinks import ApiKeys, BearerToken, ConfigurationError
from datadog_caselinks.values.credentials import (
    TOKEN_VARIABLES,
    AuthHeaders,
    Credentials,
    credentials_from_env,
)
from datadog_caselinks.values.messages import is_in_quotes
from tests.support.waiting import settle

SECRET = "hunter2hunter2hunter2"
OTHER_SECRET = "swordfishswordfish"

KEYS = ApiKeys(api_key=SECRET, app_key=OTHER_SECRET)
TOKEN = BearerToken(SECRET)

printable_ascii = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)

MALFORMED = [
    f"{SECRET}\n",
    f"{SECRET}\r\n",
    f" {SECRET}",
    f'"{SECRET} "',
    f"{SECRET}\t",
    f"{SECRET}\0",
    f"{SECRET}\x7f",
    f"{SECRET}\u00a0",
    f"\u201c{SECRET}\u201d",
    f"{SECRET}\u00e9",
    f"{SECRET}\ud800",
    f"{SECRET}\udce9",  # how os.environ decodes a byte that is not UTF-8
    " ",
]


def _fits_a_variable(value: str) -> bool:
    """Return whether an environment variable can contain ``value``."""
    return "\0" not in value and "\ud800" not in value


def returning(value: object) -> Callable[[], Awaitable[str]]:
    async def source() -> str:
        return cast("str", value)

    return source


class TestApiKeys:
    async def test_both_are_sent_in_their_headers(self) -> None:
        """The two keys are sent in their two headers, and nothing else is."""
        auth = await KEYS.authenticate()
        assert auth.headers == {"DD-API-KEY": SECRET, "DD-APPLICATION-KEY": OTHER_SECRET}

    @pytest.mark.parametrize("name", ["api_key", "app_key"])
    @pytest.mark.parametrize("value", MALFORMED)
    def test_what_no_header_can_hold_is_refused(self, name: str, value: str) -> None:
        """A key with white space, control characters or non-ASCII characters is refused by name only."""
        with pytest.raises(ConfigurationError, match=f"^{name} contains white space") as caught:
            ApiKeys(**{"api_key": "a", "app_key": "b", name: value})
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("name", ["api_key", "app_key"])
    def test_an_empty_key_is_refused(self, name: str) -> None:
        """An empty key is refused, since its variable was probably not set."""
        with pytest.raises(ConfigurationError, match=f"^{name} is empty$"):
            ApiKeys(**{"api_key": "a", "app_key": "b", name: ""})

    @pytest.mark.parametrize("name", ["api_key", "app_key"])
    @pytest.mark.parametrize("value", [None, 7, SECRET.encode(), [SECRET], lambda: SECRET])
    def test_what_is_no_string_is_refused(self, name: str, value: object) -> None:
        """A key of another type is refused; the message has the type and not the value."""
        with pytest.raises(
            ConfigurationError, match=f"^{name} must be a string, not {type(value).__name__}$"
        ):
            ApiKeys(**cast("Any", {"api_key": "a", "app_key": "b", name: value}))

    @given(printable_ascii, printable_ascii)
    def test_no_format_is_asked_for(self, api_key: str, app_key: str) -> None:
        """Any value that fits into a header is accepted as a key, unless it is in quotation marks."""
        assume(not any(map(is_in_quotes, (api_key, app_key))))
        keys = ApiKeys(api_key=api_key, app_key=app_key)
        assert (keys.api_key, keys.app_key) == (api_key, app_key)

    def test_keys_are_given_by_name(self) -> None:
        """Keys are keyword arguments, since only the server would notice the wrong order."""
        with pytest.raises(TypeError):
            cast("Any", ApiKeys)(SECRET, OTHER_SECRET)

    def test_equal_keys_are_equal(self) -> None:
        """Keys are values: equal keys compare equal."""
        assert ApiKeys(api_key=SECRET, app_key=OTHER_SECRET) == KEYS
        assert hash(ApiKeys(api_key=SECRET, app_key=OTHER_SECRET)) == hash(KEYS)
        assert ApiKeys(api_key=OTHER_SECRET, app_key=SECRET) != KEYS


class TestBearerToken:
    async def test_it_is_sent_as_authorization(self) -> None:
        """A token is sent as Authorization, as in RFC 6750."""
        assert (await TOKEN.authenticate()).headers == {"Authorization": f"Bearer {SECRET}"}

    async def test_a_callable_is_asked_each_time(self) -> None:
        """A token callable is called for each request, so that it can refresh an expired token."""
        tokens = iter(["first", "second"])

        async def source() -> str:
            return next(tokens)

        token = BearerToken(source)
        assert (await token.authenticate()).headers == {"Authorization": "Bearer first"}
        assert (await token.authenticate()).headers == {"Authorization": "Bearer second"}

    @pytest.mark.parametrize("value", MALFORMED)
    def test_what_no_header_can_hold_is_refused_at_once(self, value: str) -> None:
        """A malformed token is refused when it is given, without being quoted."""
        with pytest.raises(ConfigurationError, match=r"^token contains white space") as caught:
            BearerToken(value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("value", MALFORMED)
    async def test_what_a_callable_returns_is_checked_too(self, value: str) -> None:
        """A malformed token from a callable is refused by the call, without being quoted."""
        with pytest.raises(
            ConfigurationError, match=r"^the token that the callable returned contains"
        ) as caught:
            await BearerToken(returning(value)).authenticate()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in _locals_of_ours(caught.value)

    @pytest.mark.parametrize(
        ("value", "problem"), [("", "is empty"), (None, "not NoneType"), (b"x", "not bytes")]
    )
    async def test_a_callable_that_returns_no_token_is_refused(self, value: object, problem: str) -> None:
        """A callable that returns anything but a non-empty string is refused."""
        with pytest.raises(ConfigurationError, match=f"^the token that the callable returned .*{problem}"):
            await BearerToken(returning(value)).authenticate()

    @pytest.mark.parametrize(
        ("value", "problem"), [("", "is empty"), (None, "not NoneType"), (b"x", "not bytes")]
    )
    def test_what_is_no_token_is_refused(self, value: object, problem: str) -> None:
        """A token is a non-empty string or a callable."""
        with pytest.raises(ConfigurationError, match=rf"^token .*{problem}"):
            BearerToken(cast("Any", value))

    async def test_a_callable_that_awaits_a_cancelled_task(self) -> None:
        """A cancelled task that the callable awaits fails the call: nobody cancelled the call itself."""
        refresh = asyncio.create_task(asyncio.Event().wait())
        refresh.cancel()

        async def source() -> str:
            await refresh
            return SECRET

        with pytest.raises(ConfigurationError, match=r"^the token callable raised CancelledError$"):
            await BearerToken(source).authenticate()

    async def test_a_call_that_is_cancelled_in_the_callable(self) -> None:
        """Cancelling a call while it reads the token cancels the call."""

        async def source() -> str:
            await asyncio.Event().wait()
            raise AssertionError

        call = asyncio.create_task(BearerToken(source).authenticate())
        await settle()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    async def test_a_callable_that_raises_is_the_cause(self) -> None:
        """The message for a callable that raises has the class only, since the text may contain the token."""

        async def source() -> str:
            raise LookupError(SECRET)

        with pytest.raises(ConfigurationError, match=r"^the token callable raised LookupError$") as caught:
            await BearerToken(source).authenticate()
        assert isinstance(caught.value.__cause__, LookupError)

    async def test_a_callable_that_is_not_async_is_refused(self) -> None:
        """The message for a callable that is not async says so."""
        with pytest.raises(ConfigurationError, match="async") as caught:
            await BearerToken(cast("Any", lambda: SECRET)).authenticate()
        assert SECRET not in str(caught.value)
        assert SECRET not in _locals_of_ours(caught.value)

    async def test_cancelling_passes_through(self) -> None:
        """A task that is cancelled while it fetches a token is cancelled."""
        asked = asyncio.Event()

        async def source() -> str:
            asked.set()
            await asyncio.Event().wait()
            return SECRET

        task = asyncio.create_task(BearerToken(source).authenticate())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def test_equal_tokens_are_equal(self) -> None:
        """Tokens are values: equal tokens compare equal."""
        assert BearerToken(SECRET) == TOKEN != BearerToken(OTHER_SECRET)


@pytest.mark.parametrize("credentials", [KEYS, TOKEN, BearerToken(returning(SECRET))])
class TestSecrecy:
    async def test_no_text_shows_a_secret(self, credentials: Credentials) -> None:
        """No text of credentials, their headers or their containers shows a secret."""
        auth = await credentials.authenticate()
        for value in (credentials, auth, [credentials], {"c": credentials}):
            for text in (repr(value), str(value), f"{value}", f"{value!s:>9}", ascii(value)):
                assert SECRET not in text
                assert OTHER_SECRET not in text
        assert repr(credentials) == f"{type(credentials).__name__}()"

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    async def test_none_pickles(self, credentials: Credentials, protocol: int) -> None:
        """Credentials cannot be pickled, because a secret does not belong in a file or a queue."""
        for value in (credentials, await credentials.authenticate(), {"c": [credentials]}):
            with pytest.raises(TypeError, match="contains secrets and cannot be pickled") as caught:
                pickle.dumps(value, protocol)
            assert SECRET not in str(caught.value)

    def test_a_copy_is_the_value_itself(self, credentials: Credentials) -> None:
        """A copy of credentials is the same object, since frameworks copy their settings."""

        @dataclasses.dataclass
        class Settings:
            datadog: Credentials

        assert copy.copy(credentials) is credentials
        assert copy.deepcopy(credentials) is credentials
        assert dataclasses.asdict(Settings(credentials)) == {"datadog": credentials}

    def test_there_is_no_dictionary_to_dump(self, credentials: Credentials) -> None:
        """Credentials have no ``__dict__``, which loggers and error trackers would store."""
        with pytest.raises(TypeError):
            vars(credentials)

    def test_credentials_do_not_change(self, credentials: Credentials) -> None:
        """Credentials are immutable, and the error of an assignment does not show the value."""
        for name in ("api_key", "token", "misspelt"):
            with pytest.raises(AttributeError) as caught:
                setattr(credentials, name, SECRET)
            assert SECRET not in str(caught.value)


class TestRedact:
    async def test_each_secret_is_taken_out(self) -> None:
        """Each secret in a text is redacted, since a server may echo the headers."""
        auth = await KEYS.authenticate()
        body = f"DD-API-KEY: {SECRET}, DD-APPLICATION-KEY: {OTHER_SECRET}, again {SECRET}"
        assert auth.redact(body) == "DD-API-KEY: [redacted], DD-APPLICATION-KEY: [redacted], again [redacted]"

    async def test_a_token_is_taken_out(self) -> None:
        """A token is redacted without its scheme."""
        auth = await TOKEN.authenticate()
        assert auth.redact(f"Authorization: Bearer {SECRET}") == "Authorization: Bearer [redacted]"

    @pytest.mark.parametrize("secrets", [("abcd", "abcdefgh"), ("abcdefgh", "abcd"), ("efgh", "abcdefgh")])
    async def test_a_secret_within_another_leaves_no_rest(self, secrets: tuple[str, str]) -> None:
        """A secret within another secret is redacted completely."""
        auth = await ApiKeys(api_key=secrets[0], app_key=secrets[1]).authenticate()
        assert auth.redact("<abcdefgh>") == "<[redacted]>"

    @pytest.mark.parametrize("secret", ["a/b+c==", 'quote"d', "<tag>&", "per%41cent", "back\\slash", "&amp;"])
    @pytest.mark.parametrize(
        "escape",
        [
            pytest.param(json.dumps, id="JSON"),
            pytest.param(lambda text: json.dumps(text).replace("/", "\\/"), id="JSON of PHP"),
            pytest.param(lambda text: json.dumps(json.dumps(text)), id="JSON within JSON"),
            pytest.param(lambda text: "".join(f"\\u{ord(char):04X}" for char in text), id="JSON by numbers"),
            pytest.param(html.escape, id="HTML"),
            pytest.param(lambda text: "".join(f"&#x{ord(char):x};" for char in text), id="HTML by numbers"),
            pytest.param(quote, id="URL"),
            pytest.param(lambda text: json.dumps(html.escape(quote(text))), id="URL within HTML within JSON"),
        ],
    )
    def test_an_escaped_secret_is_taken_out(self, secret: str, escape: Callable[[str], str]) -> None:
        """An escaped secret is redacted, since the text may be unescaped later."""
        escaped = escape(secret)
        reported = AuthHeaders({}, (secret,)).redact(f"before {escaped} after")
        assert "[redacted]" in reported
        assert secret not in reported
        assert escaped not in reported
        assert reported.startswith("before ")
        assert reported.endswith(" after")

    def test_a_text_may_be_escaped_without_end(self) -> None:
        """A text with any number of escapes is returned unchanged if it contains no secret."""
        text = f"%{'25' * 100_000}41"
        assert AuthHeaders({}, (SECRET,)).redact(text) == text

    @given(st.text() | st.text("\\u0061%41&amp;#x;"))
    def test_another_text_is_left_alone(self, text: str) -> None:
        """A text without secrets is returned unchanged."""
        assert AuthHeaders({}, (SECRET,)).redact(text) == text


BOTH = "set DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN"
Environment = Callable[[dict[str, str]], None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Return a function that sets the given variables; all other variables for credentials are unset."""
    for name in ("DD_API_KEY", "DD_APP_KEY", "DATADOG_API_KEY", "DATADOG_APP_KEY", *TOKEN_VARIABLES):
        monkeypatch.delenv(name, raising=False)

    def set_to(environ: dict[str, str]) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)

    return set_to


class TestFromEnv:
    def test_two_keys(self, environment: Environment) -> None:
        """The two keys are read from the variables of Datadog's own clients."""
        environment({"DD_API_KEY": SECRET, "DD_APP_KEY": OTHER_SECRET})
        assert credentials_from_env() == KEYS

    def test_a_token(self, environment: Environment) -> None:
        """A token is read from the variable of the Terraform provider."""
        environment({"DD_BEARER_TOKEN": SECRET})
        assert credentials_from_env() == TOKEN

    @pytest.mark.parametrize("name", ["DD_API_KEY", "DD_APP_KEY"])
    def test_a_token_beside_one_key(self, environment: Environment, name: str) -> None:
        """A token is used even if one key is set, since ``DD_API_KEY`` is often the Agent's."""
        environment({"DD_BEARER_TOKEN": SECRET, name: OTHER_SECRET})
        assert credentials_from_env() == TOKEN

    @pytest.mark.parametrize(
        ("environ", "message"),
        [
            ({}, f"DD_API_KEY and DD_APP_KEY are not set: {BOTH}"),
            ({"DD_API_KEY": SECRET}, f"DD_APP_KEY is not set: {BOTH}"),
            ({"DD_APP_KEY": SECRET}, f"DD_API_KEY is not set: {BOTH}"),
            (
                {"DD_API_KEY": "", "DD_APP_KEY": "", "DD_BEARER_TOKEN": ""},
                f"DD_API_KEY and DD_APP_KEY are not set: {BOTH}",
            ),
            (
                {"DD_API_KEY": SECRET, "DD_APP_KEY": "", "DD_BEARER_TOKEN": ""},
                f"DD_APP_KEY is not set: {BOTH}",
            ),
            (
                {"DD_API_KEY": SECRET, "DD_APP_KEY": OTHER_SECRET, "DD_BEARER_TOKEN": SECRET},
                "DD_BEARER_TOKEN, DD_API_KEY and DD_APP_KEY are all set: unset those that you do not use",
            ),
        ],
    )
    def test_the_message_names_what_is_missing_or_too_much(
        self, environment: Environment, environ: dict[str, str], message: str
    ) -> None:
        """The message names the missing or contradictory variables; an empty variable counts as not set."""
        environment(environ)
        with pytest.raises(ConfigurationError) as caught:
            credentials_from_env()
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({"DATADOG_API_KEY": SECRET, "DATADOG_APP_KEY": OTHER_SECRET}, KEYS),
            ({"DD_API_KEY": SECRET, "DATADOG_APP_KEY": OTHER_SECRET}, KEYS),
            ({"DD_API_KEY": "", "DATADOG_API_KEY": SECRET, "DD_APP_KEY": OTHER_SECRET}, KEYS),
            ({"DATADOG_BEARER_TOKEN": SECRET}, TOKEN),
            ({"DD_ACCESS_TOKEN": SECRET}, TOKEN),
            ({"DD_ACCESS_TOKEN": SECRET, "DATADOG_API_KEY": OTHER_SECRET}, TOKEN),
            ({"DD_BEARER_TOKEN": SECRET, "DD_ACCESS_TOKEN": SECRET}, TOKEN),
        ],
    )
    def test_other_spellings(
        self, environment: Environment, environ: dict[str, str], expected: Credentials
    ) -> None:
        """The variables of Datadog's other tools are read too, unless they are empty."""
        environment(environ)
        assert credentials_from_env() == expected

    def test_two_keys_of_one_spelling_go_together(self, environment: Environment) -> None:
        """Keys of one prefix are used together, so that the Agent's key is not combined with another."""
        environment(
            {"DD_API_KEY": "of-the-agent", "DATADOG_API_KEY": SECRET, "DATADOG_APP_KEY": OTHER_SECRET}
        )
        assert credentials_from_env() == KEYS
        environment({"DD_API_KEY": OTHER_SECRET, "DD_APP_KEY": SECRET})
        assert credentials_from_env() == ApiKeys(api_key=OTHER_SECRET, app_key=SECRET)

    @pytest.mark.parametrize("name", ["DD_APP_KEY", "DATADOG_APP_KEY"])
    @pytest.mark.parametrize("kind", ["ddpat_", "ddsat_"])
    @pytest.mark.parametrize("others", [{}, {"DD_API_KEY": SECRET}, {"DATADOG_API_KEY": SECRET}])
    def test_an_application_key_that_is_a_token(
        self, environment: Environment, name: str, kind: str, others: dict[str, str]
    ) -> None:
        """An access token in place of the application key is sent as a token, and needs no API key."""
        environment({**others, name: kind + SECRET})
        assert credentials_from_env() == BearerToken(kind + SECRET)

    def test_an_application_key_is_not_a_token(self, environment: Environment) -> None:
        """An application key with the prefix ``ddapp_`` is not a token, and needs an API key."""
        environment({"DD_APP_KEY": f"ddapp_{SECRET}"})
        with pytest.raises(ConfigurationError, match=r"^DD_API_KEY is not set"):
            credentials_from_env()

    @pytest.mark.parametrize(
        ("environ", "message"),
        [
            (
                {"DD_BEARER_TOKEN": SECRET, "DD_ACCESS_TOKEN": OTHER_SECRET},
                "DD_BEARER_TOKEN and DD_ACCESS_TOKEN are different tokens: unset those that you do not use",
            ),
            (
                {"DD_BEARER_TOKEN": SECRET, "DD_APP_KEY": f"ddpat_{SECRET}"},
                "DD_BEARER_TOKEN and DD_APP_KEY are different tokens: unset those that you do not use",
            ),
            (
                {"DD_ACCESS_TOKEN": "a", "DATADOG_API_KEY": SECRET, "DATADOG_APP_KEY": OTHER_SECRET},
                "DD_ACCESS_TOKEN, DATADOG_API_KEY and DATADOG_APP_KEY are all set: "
                "unset those that you do not use",
            ),
            ({"DATADOG_API_KEY": SECRET}, f"DD_APP_KEY is not set: {BOTH}"),
            ({"DATADOG_APP_KEY": f'"ddpat_{SECRET}"'}, "DATADOG_APP_KEY is in quotation marks"),
        ],
    )
    def test_what_cannot_be_chosen_is_refused(
        self, environment: Environment, environ: dict[str, str], message: str
    ) -> None:
        """Variables that contradict each other are refused by their names, without their values."""
        environment(environ)
        with pytest.raises(ConfigurationError) as caught:
            credentials_from_env()
        assert str(caught.value).startswith(message)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("value", [value for value in MALFORMED if _fits_a_variable(value)])
    @pytest.mark.parametrize("name", ["DD_API_KEY", "DD_APP_KEY", "DD_BEARER_TOKEN"])
    def test_the_message_names_what_is_malformed(
        self, environment: Environment, name: str, value: str
    ) -> None:
        """The message for a malformed value names its variable, and hides the value."""
        others = {} if name == "DD_BEARER_TOKEN" else {"DD_API_KEY": "a", "DD_APP_KEY": "b"}
        environment({**others, name: value})
        with pytest.raises(ConfigurationError, match=f"^{name} contains white space") as caught:
            credentials_from_env()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in _locals_of_ours(caught.value)


def _locals_of_ours(error: BaseException) -> str:
    """Return the local variables that an error tracker would store of this package's frames."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [
        frame for frame in frames if frame.f_code.co_filename == credentials_from_env.__code__.co_filename
    ]
    assert ours
    return repr([frame.f_locals for frame in ours])
