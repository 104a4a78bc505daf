"""Credentials: what is accepted, where they come from, and that they show nowhere."""

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
from datadog_caselinks.credentials import TOKEN_VARIABLES, AuthHeaders, Credentials, credentials_from_env
from datadog_caselinks.messages import is_in_quotes

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
    f"{SECRET}\udce9",  # what os.environ makes of a byte that is no UTF-8
    " ",
]


def _fits_a_variable(value: str) -> bool:
    """Whether an environment variable can hold ``value``."""
    return "\0" not in value and "\ud800" not in value


def returning(value: object) -> Callable[[], Awaitable[str]]:
    async def source() -> str:
        return cast("str", value)

    return source


class TestApiKeys:
    async def test_both_are_sent_in_their_headers(self) -> None:
        """The two keys are the two headers, and no other is added."""
        auth = await KEYS.authenticate()
        assert auth.headers == {"DD-API-KEY": SECRET, "DD-APPLICATION-KEY": OTHER_SECRET}

    @pytest.mark.parametrize("name", ["api_key", "app_key"])
    @pytest.mark.parametrize("value", MALFORMED)
    def test_what_no_header_can_hold_is_refused(self, name: str, value: str) -> None:
        """White space, control characters and what is not ASCII: the message names the key and hides it."""
        with pytest.raises(ConfigurationError, match=f"^{name} contains white space") as caught:
            ApiKeys(**{"api_key": "a", "app_key": "b", name: value})
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("name", ["api_key", "app_key"])
    def test_an_empty_key_is_refused(self, name: str) -> None:
        """An empty one is mostly a variable that was not set."""
        with pytest.raises(ConfigurationError, match=f"^{name} is empty$"):
            ApiKeys(**{"api_key": "a", "app_key": "b", name: ""})

    @pytest.mark.parametrize("name", ["api_key", "app_key"])
    @pytest.mark.parametrize("value", [None, 7, SECRET.encode(), [SECRET], lambda: SECRET])
    def test_what_is_no_string_is_refused(self, name: str, value: object) -> None:
        """The message tells the type and not the value, which may hold the key."""
        with pytest.raises(
            ConfigurationError, match=f"^{name} must be a string, not {type(value).__name__}$"
        ):
            ApiKeys(**cast("Any", {"api_key": "a", "app_key": "b", name: value}))

    @given(printable_ascii, printable_ascii)
    def test_no_format_is_asked_for(self, api_key: str, app_key: str) -> None:
        """Datadog changes the form of its keys: whatever a header can hold may be one, but not in quotes."""
        assume(not any(map(is_in_quotes, (api_key, app_key))))
        keys = ApiKeys(api_key=api_key, app_key=app_key)
        assert (keys.api_key, keys.app_key) == (api_key, app_key)

    def test_keys_are_given_by_name(self) -> None:
        """In the wrong order they would be refused by the server, and by it only."""
        with pytest.raises(TypeError):
            cast("Any", ApiKeys)(SECRET, OTHER_SECRET)

    def test_equal_keys_are_equal(self) -> None:
        """They are values."""
        assert ApiKeys(api_key=SECRET, app_key=OTHER_SECRET) == KEYS
        assert hash(ApiKeys(api_key=SECRET, app_key=OTHER_SECRET)) == hash(KEYS)
        assert ApiKeys(api_key=OTHER_SECRET, app_key=SECRET) != KEYS


class TestBearerToken:
    async def test_it_is_sent_as_authorization(self) -> None:
        """One header, by RFC 6750."""
        assert (await TOKEN.authenticate()).headers == {"Authorization": f"Bearer {SECRET}"}

    async def test_a_callable_is_asked_each_time(self) -> None:
        """So that it can refresh a token that ran out."""
        tokens = iter(["first", "second"])

        async def source() -> str:
            return next(tokens)

        token = BearerToken(source)
        assert (await token.authenticate()).headers == {"Authorization": "Bearer first"}
        assert (await token.authenticate()).headers == {"Authorization": "Bearer second"}

    @pytest.mark.parametrize("value", MALFORMED)
    def test_what_no_header_can_hold_is_refused_at_once(self, value: str) -> None:
        """A token given as a string is checked when it is given; the message hides it."""
        with pytest.raises(ConfigurationError, match=r"^token contains white space") as caught:
            BearerToken(value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("value", MALFORMED)
    async def test_what_a_callable_returns_is_checked_too(self, value: str) -> None:
        """By the call that asked for it; the message says where it came from and hides it."""
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
        """Nothing but a non-empty string is a token."""
        with pytest.raises(ConfigurationError, match=f"^the token that the callable returned .*{problem}"):
            await BearerToken(returning(value)).authenticate()

    @pytest.mark.parametrize(
        ("value", "problem"), [("", "is empty"), (None, "not NoneType"), (b"x", "not bytes")]
    )
    def test_what_is_no_token_is_refused(self, value: object, problem: str) -> None:
        """Nothing but a non-empty string or a callable."""
        with pytest.raises(ConfigurationError, match=rf"^token .*{problem}"):
            BearerToken(cast("Any", value))

    async def test_a_callable_that_raises_is_the_cause(self) -> None:
        """The message names the class alone, since that error's own words may hold the token."""

        async def source() -> str:
            raise LookupError(SECRET)

        with pytest.raises(ConfigurationError, match=r"^the token callable raised LookupError$") as caught:
            await BearerToken(source).authenticate()
        assert isinstance(caught.value.__cause__, LookupError)

    async def test_a_callable_that_is_not_async_is_told_so(self) -> None:
        """It did not raise: it returned a string where something to await was expected."""
        with pytest.raises(ConfigurationError, match="async") as caught:
            await BearerToken(cast("Any", lambda: SECRET)).authenticate()
        assert SECRET not in str(caught.value)
        assert SECRET not in _locals_of_ours(caught.value)

    async def test_cancelling_passes_through(self) -> None:
        """A task that is cancelled while it fetches a token is cancelled, and no error of ours."""
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
        """They are values."""
        assert BearerToken(SECRET) == TOKEN != BearerToken(OTHER_SECRET)


@pytest.mark.parametrize("credentials", [KEYS, TOKEN, BearerToken(returning(SECRET))])
class TestSecrecy:
    async def test_no_text_shows_a_secret(self, credentials: Credentials) -> None:
        """Neither of the credentials nor of the headers made of them, nor of what holds them."""
        auth = await credentials.authenticate()
        for value in (credentials, auth, [credentials], {"c": credentials}):
            for text in (repr(value), str(value), f"{value}", f"{value!s:>9}", ascii(value)):
                assert SECRET not in text
                assert OTHER_SECRET not in text
        assert repr(credentials) == f"{type(credentials).__name__}()"

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    async def test_none_pickles(self, credentials: Credentials, protocol: int) -> None:
        """A pickle is a file or a message in a queue, and a secret belongs in neither."""
        for value in (credentials, await credentials.authenticate(), {"c": [credentials]}):
            with pytest.raises(TypeError, match="contains secrets and cannot be pickled") as caught:
                pickle.dumps(value, protocol)
            assert SECRET not in str(caught.value)

    def test_a_copy_is_the_value_itself(self, credentials: Credentials) -> None:
        """Settings that hold credentials are copied by many a framework, which is no reason to fail."""

        @dataclasses.dataclass
        class Settings:
            datadog: Credentials

        assert copy.copy(credentials) is credentials
        assert copy.deepcopy(credentials) is credentials
        assert dataclasses.asdict(Settings(credentials)) == {"datadog": credentials}

    def test_there_is_no_dictionary_to_dump(self, credentials: Credentials) -> None:
        """``vars`` is what loggers and error trackers look at."""
        with pytest.raises(TypeError):
            vars(credentials)

    def test_credentials_do_not_change(self, credentials: Credentials) -> None:
        """Not under another task's hands, and an error about it shows nothing."""
        for name in ("api_key", "token", "misspelt"):
            with pytest.raises(AttributeError) as caught:
                setattr(credentials, name, SECRET)
            assert SECRET not in str(caught.value)


class TestRedact:
    async def test_each_secret_is_taken_out(self) -> None:
        """A server or proxy may echo the headers that it was sent."""
        auth = await KEYS.authenticate()
        body = f"DD-API-KEY: {SECRET}, DD-APPLICATION-KEY: {OTHER_SECRET}, again {SECRET}"
        assert auth.redact(body) == "DD-API-KEY: [redacted], DD-APPLICATION-KEY: [redacted], again [redacted]"

    async def test_a_token_is_taken_out(self) -> None:
        """The scheme in front of it is no secret."""
        auth = await TOKEN.authenticate()
        assert auth.redact(f"Authorization: Bearer {SECRET}") == "Authorization: Bearer [redacted]"

    @pytest.mark.parametrize("secrets", [("abcd", "abcdefgh"), ("abcdefgh", "abcd"), ("efgh", "abcdefgh")])
    async def test_a_secret_within_another_leaves_no_rest(self, secrets: tuple[str, str]) -> None:
        """Half of a key is still half of a secret."""
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
        """An error's text is mostly JSON or HTML, and what is shown of it may be unescaped later."""
        escaped = escape(secret)
        told = AuthHeaders({}, (secret,)).redact(f"before {escaped} after")
        assert "[redacted]" in told
        assert secret not in told
        assert escaped not in told
        assert told.startswith("before ")
        assert told.endswith(" after")

    def test_a_text_may_be_escaped_without_end(self) -> None:
        """A text with any number of escapes is returned unchanged if it contains no secret."""
        text = f"%{'25' * 100_000}41"
        assert AuthHeaders({}, (SECRET,)).redact(text) == text

    @given(st.text() | st.text("\\u0061%41&amp;#x;"))
    def test_another_text_is_left_alone(self, text: str) -> None:
        """Nothing but the secrets is replaced."""
        assert AuthHeaders({}, (SECRET,)).redact(text) == text


BOTH = "set DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN"
Environment = Callable[[dict[str, str]], None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Sets the given variables, and none but these of those that count."""
    for name in ("DD_API_KEY", "DD_APP_KEY", "DATADOG_API_KEY", "DATADOG_APP_KEY", *TOKEN_VARIABLES):
        monkeypatch.delenv(name, raising=False)

    def set_to(environ: dict[str, str]) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)

    return set_to


class TestFromEnv:
    def test_two_keys(self, environment: Environment) -> None:
        """The names that Datadog's own clients use."""
        environment({"DD_API_KEY": SECRET, "DD_APP_KEY": OTHER_SECRET})
        assert credentials_from_env() == KEYS

    def test_a_token(self, environment: Environment) -> None:
        """The name that the Terraform provider uses."""
        environment({"DD_BEARER_TOKEN": SECRET})
        assert credentials_from_env() == TOKEN

    @pytest.mark.parametrize("name", ["DD_API_KEY", "DD_APP_KEY"])
    def test_a_token_beside_one_key(self, environment: Environment, name: str) -> None:
        """A key alone is of no use: ``DD_API_KEY`` is mostly the Agent's."""
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
        """An empty variable counts as not set; which of two schemes was meant is not guessed."""
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
        """The names that Datadog's other tools use work too, and an empty variable does not count."""
        environment(environ)
        assert credentials_from_env() == expected

    def test_two_keys_of_one_spelling_go_together(self, environment: Environment) -> None:
        """An API key of the Agent is not combined with an application key that has its own API key."""
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
        """A new application key begins similarly, and still needs its API key."""
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
        """By the name of the variable, which is what can be set right; and it hides the value."""
        others = {} if name == "DD_BEARER_TOKEN" else {"DD_API_KEY": "a", "DD_APP_KEY": "b"}
        environment({**others, name: value})
        with pytest.raises(ConfigurationError, match=f"^{name} contains white space") as caught:
            credentials_from_env()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in _locals_of_ours(caught.value)


def _locals_of_ours(error: BaseException) -> str:
    """What an error tracker would store of the frames of this package."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [
        frame for frame in frames if frame.f_code.co_filename == credentials_from_env.__code__.co_filename
    ]
    assert ours
    return repr([frame.f_locals for frame in ours])
