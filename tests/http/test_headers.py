"""The rules of response headers: how the rate limit is read, and that no header does harm."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from datadog_caselinks.http.headers import read_rate_limit, request_id, retry_after
from datadog_caselinks.values.rate_limit import RateLimit

NAMES = [
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Period",
    "X-RateLimit-Reset",
    "X-RateLimit-Name",
    "Retry-After",
    "Date",
]
NOON = "Wed, 21 Oct 2015 12:00:00 GMT"
NOON_TIMESTAMP = 1_445_428_800

_VALUES = (
    st.text(max_size=30)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    | st.from_regex(
        r"[A-Z][a-z]{2}, ?\d{1,3} (Jan|Feb|Dec) \d{1,20} \d{1,3}:\d{1,3}:\d{1,3} ([+-]\d{1,9}|GMT)?",
        fullmatch=True,
    )
    | st.lists(st.floats().map(str), max_size=3).map(",".join)
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), _VALUES), max_size=10).map(CIMultiDict[str])


def headers(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(pairs)


class TestFromHeaders:
    def test_all_five_are_read(self) -> None:
        """Each rate limit header becomes the attribute of its name, and counts are integers."""
        found = read_rate_limit(
            headers(
                ("X-RateLimit-Limit", "60"),
                ("X-RateLimit-Remaining", "59"),
                ("X-RateLimit-Period", "10"),
                ("X-RateLimit-Reset", "7"),
                ("X-RateLimit-Name", "case_links"),
            )
        )
        assert found == RateLimit(limit=60, remaining=59, period=10, reset=7, name="case_links")
        assert isinstance(found, RateLimit)
        assert (type(found.limit), type(found.remaining)) == (int, int)

    @pytest.mark.parametrize(
        ("remaining", "period"), [("7.5", "10"), ("7, 8", "10"), ("+7", "10"), ("7", "1e1")]
    )
    def test_one_odd_value_spoils_no_other(self, remaining: str, period: str) -> None:
        """One odd value does not change how the other headers are read."""
        found = read_rate_limit(
            headers(
                ("X-RateLimit-Limit", "60"),
                ("X-RateLimit-Remaining", remaining),
                ("X-RateLimit-Period", period),
                ("X-RateLimit-Reset", "7"),
                ("X-RateLimit-Name", "case_links"),
            )
        )
        assert found == RateLimit(limit=60, remaining=7, period=10, reset=7, name="case_links")

    @pytest.mark.parametrize("remaining", ["-1", "9" * 400])
    def test_what_is_no_count_is_not_there_among_others(self, remaining: str) -> None:
        """A negative or enormous count is dropped, and the other four headers are kept."""
        found = read_rate_limit(
            headers(
                ("X-RateLimit-Limit", "60"),
                ("X-RateLimit-Remaining", remaining),
                ("X-RateLimit-Period", "10"),
                ("X-RateLimit-Reset", "7"),
                ("X-RateLimit-Name", "case_links"),
            )
        )
        assert found == RateLimit(limit=60, period=10, reset=7, name="case_links")

    @pytest.mark.parametrize("value", ["1.7e308", "9" * 12, "9" * 90])
    @pytest.mark.parametrize("others", [{"Limit": "60", "Period": "10", "Name": "case_links"}, {}])
    def test_every_number_is_bounded(self, others: dict[str, str], value: str) -> None:
        """Every number is bounded: a count by a thousand million, and a time by three years."""
        given = {"Limit": value, "Remaining": value, "Period": value, **others}
        found = read_rate_limit(headers(*((f"X-RateLimit-{name}", text) for name, text in given.items())))
        assert found
        assert found.remaining == 10**9
        assert found.limit == (60 if others else 10**9)
        assert found.period == (10 if others else 1e8)
        moment = ("X-RateLimit-Reset", value), ("Retry-After", value), ("Date", NOON)
        assert read_rate_limit(headers(*moment)) == RateLimit(reset=1e8)
        assert retry_after(headers(*moment)) == 1e8

    def test_letter_case_of_names_does_not_matter(self) -> None:
        """Header names are read in any letter case, since HTTP/2 sends them in lower case."""
        assert read_rate_limit(headers(("x-ratelimit-limit", "3"))) == RateLimit(limit=3)

    def test_none_at_all_is_none(self) -> None:
        """A response without rate limit headers has no ``RateLimit``."""
        assert read_rate_limit(headers(("Content-Type", "text/html"))) is None

    @pytest.mark.parametrize(
        "name", [name for name in NAMES if name.startswith("X-") and name != "X-RateLimit-Name"]
    )
    @pytest.mark.parametrize(
        "value", ["", "soon", "-1", "nan", "inf", "-inf", "1e999", "0x10", "1 2", "7;w=1"]
    )
    def test_what_is_no_number_is_not_there(self, name: str, value: str) -> None:
        """Negative, infinite and unreadable values are ignored."""
        assert read_rate_limit(headers((name, value))) is None

    def test_an_empty_name_is_not_there(self) -> None:
        """An empty name of a limit is ignored."""
        assert read_rate_limit(headers(("X-RateLimit-Name", " "))) is None

    def test_the_name_is_trimmed_and_the_first_that_is_one(self) -> None:
        """The name of a limit is the first that is not empty, without the surrounding white space."""
        found = read_rate_limit(
            headers(("X-RateLimit-Name", " "), ("X-RateLimit-Name", " a "), ("X-RateLimit-Name", "b"))
        )
        assert found == RateLimit(name="a")

    def test_zero_is_a_value(self) -> None:
        """Zero is a value: nothing remains, or the window ends now."""
        found = read_rate_limit(headers(("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "0")))
        assert found == RateLimit(remaining=0, reset=0.0)

    @pytest.mark.parametrize(
        "pairs",
        [
            (("X-RateLimit-Limit", "9"), ("X-RateLimit-Limit", "5")),
            (("X-RateLimit-Limit", "5, 9"),),
            (("X-RateLimit-Limit", "x"), ("X-RateLimit-Limit", "9,5")),
        ],
    )
    def test_of_repeated_counts_the_fewest_count(self, pairs: tuple[tuple[str, str], ...]) -> None:
        """The smallest of repeated or joined counts is used, since proxies may repeat headers."""
        assert read_rate_limit(headers(*pairs)) == RateLimit(limit=5)
        remaining = ((name.replace("Limit-Limit", "Limit-Remaining"), value) for name, value in pairs)
        assert read_rate_limit(headers(*remaining)) == RateLimit(remaining=5)

    def test_of_repeated_seconds_the_longest_count(self) -> None:
        """The longest of repeated times is used, because too short a wait leads to another rejection."""
        found = read_rate_limit(
            headers(
                ("X-RateLimit-Reset", "3"), ("X-RateLimit-Reset", "8, 2"), ("X-RateLimit-Period", "10, 60")
            )
        )
        assert found == RateLimit(reset=8, period=60)

    def test_fractions_of_seconds_are_kept_and_of_requests_dropped(self) -> None:
        """Fractions of seconds are kept, and fractions of requests are dropped."""
        found = read_rate_limit(headers(("X-RateLimit-Remaining", "1.9"), ("X-RateLimit-Reset", "1.5")))
        assert found == RateLimit(remaining=1, reset=1.5)

    def test_a_timestamp_is_relative_to_the_responses_own_date(self) -> None:
        """A timestamp in ``Reset`` is relative to the ``Date`` of the response, not to the local clock."""
        moment = ("X-RateLimit-Reset", str(NOON_TIMESTAMP + 30))
        assert read_rate_limit(headers(moment, ("Date", NOON))) == RateLimit(reset=30)

    def test_a_timestamp_of_the_past_is_zero(self) -> None:
        """A timestamp in the past means a ``Reset`` of zero."""
        moment = ("X-RateLimit-Reset", str(NOON_TIMESTAMP - 30))
        assert read_rate_limit(headers(moment, ("Date", NOON))) == RateLimit(reset=0)

    def test_of_a_timestamp_and_seconds_the_longer_counts(self) -> None:
        """The longer of a timestamp and a number of seconds is used."""
        for seconds, longer in [(7, 30), (70, 70)]:
            pairs = ("X-RateLimit-Reset", f"{seconds}, {NOON_TIMESTAMP + 30}"), ("Date", NOON)
            assert read_rate_limit(headers(*pairs)) == RateLimit(reset=longer)

    @pytest.mark.parametrize("date", [(), (("Date", "yesterday"),), (("Date", ""),)])
    def test_a_timestamp_without_a_date_is_not_there(self, date: tuple[tuple[str, str], ...]) -> None:
        """A timestamp without a valid ``Date`` is ignored, since it would mean fifty years as seconds."""
        assert read_rate_limit(headers(("X-RateLimit-Reset", str(NOON_TIMESTAMP)), *date)) is None

    def test_three_years_of_waiting_are_a_timestamp(self) -> None:
        """A number above three years of seconds is a timestamp."""
        assert read_rate_limit(headers(("X-RateLimit-Reset", "99999999"))) == RateLimit(reset=99_999_999)
        timestamp = ("X-RateLimit-Reset", "100000000")
        assert read_rate_limit(headers(timestamp)) is None
        assert read_rate_limit(headers(timestamp, ("Date", NOON))) == RateLimit(reset=0)

    @given(HEADERS)
    @example(headers(("X-RateLimit-Limit", "1e308")))
    @example(headers(("X-RateLimit-Limit", "9" * 5000)))
    def test_no_header_does_harm(self, any_headers: CIMultiDict[str]) -> None:
        """Any headers give finite numbers that are not negative, or nothing."""
        found = read_rate_limit(any_headers)
        assert found != RateLimit()
        for number in (found.limit, found.remaining, found.period, found.reset) if found else ():
            assert number is None or (number >= 0 and math.isfinite(number))

    @given(HEADERS)
    def test_a_rate_limit_pickles(self, any_headers: CIMultiDict[str]) -> None:
        """A ``RateLimit`` can be pickled, since errors carry it to other processes."""
        found = read_rate_limit(any_headers)
        assert pickle.loads(pickle.dumps(found)) == found


class TestRetryAfter:
    @pytest.mark.parametrize(("value", "seconds"), [("120", 120), ("0", 0), ("1.5", 1.5), (" 3 ", 3)])
    def test_seconds(self, value: str, seconds: float) -> None:
        """A number in ``Retry-After`` is the seconds to wait; zero is a valid number."""
        assert retry_after(headers(("Retry-After", value))) == seconds

    @pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "inf"])
    def test_what_is_no_wait_is_none(self, value: str) -> None:
        """Unreadable, negative and infinite values of ``Retry-After`` are ignored."""
        assert retry_after(headers(("Retry-After", value), ("Date", NOON))) is None

    def test_no_header_is_none(self) -> None:
        """A response without ``Retry-After`` has no wait, which differs from a wait of zero."""
        assert retry_after(headers()) is None

    def test_the_longest_counts(self) -> None:
        """The longest of repeated ``Retry-After`` values is used."""
        assert retry_after(headers(("Retry-After", "3"), ("Retry-After", "5"))) == 5

    @pytest.mark.parametrize(
        "until",
        [
            "Wed, 21 Oct 2015 12:01:30 GMT",
            "Wed, 21 Oct 2015 12:01:30 -0000",
            "Wed, 21 Oct 2015 14:01:30 +0200",
            "Wednesday, 21-Oct-15 12:01:30 GMT",
            "Wed Oct 21 12:01:30 2015",
        ],
    )
    @pytest.mark.usefixtures("far_from_greenwich")
    def test_a_date_is_relative_to_the_responses_own(self, until: str) -> None:
        """A date in any form of RFC 9110, 5.6.7 is read as UTC, in any local time zone."""
        assert retry_after(headers(("Retry-After", until), ("Date", NOON))) == 90

    def test_a_date_of_the_past_is_zero(self) -> None:
        """A date in the past means a wait of zero."""
        assert retry_after(headers(("Retry-After", "Wed, 21 Oct 2015 11:00:00 GMT"), ("Date", NOON))) == 0

    def test_a_date_without_the_responses_own_is_none(self) -> None:
        """A date in ``Retry-After`` is ignored without a ``Date``, since the local clock may be wrong."""
        assert retry_after(headers(("Retry-After", NOON))) is None

    @given(HEADERS)
    @example(headers(("Retry-After", "Mon, 01 Jan 0001 00:00:00 +2359"), ("Date", NOON)))
    @example(headers(("Retry-After", "Fri, 31 Dec 9999 23:59:59 -2359"), ("Date", NOON)))
    @example(headers(("Retry-After", "Mon Jan 1 00:00:00 0001"), ("Date", NOON)))
    def test_no_header_does_harm(self, any_headers: CIMultiDict[str]) -> None:
        """Any headers give a finite wait that is not negative, or none."""
        wait = retry_after(any_headers)
        assert wait is None or (wait >= 0 and math.isfinite(wait))


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change the time zone of a process")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


class TestRequestId:
    @pytest.mark.parametrize(
        "name", ["X-Request-Id", "x-request-id", "Request-Id", "X-Amzn-RequestId", "X-Amz-Cf-Id", "CF-Ray"]
    )
    def test_any_common_header(self, name: str) -> None:
        """Each common header for a request id is read, since Datadog documents none."""
        assert request_id(headers(("Date", NOON), (name, "a-1"))) == "a-1"

    def test_the_servers_own_comes_first(self) -> None:
        """The id of the server is preferred to the id of a CDN, and the first of two ids is used."""
        assert request_id(headers(("CF-Ray", "c"), ("X-Request-Id", "a"), ("X-Request-Id", "b"))) == "a"

    def test_none(self) -> None:
        """A response without such a header has no request id."""
        assert request_id(headers(("Date", NOON))) is None
