"""The rules of the errors: their tree, their documentation, and that they can be pickled."""

from __future__ import annotations

import copy
import pickle
import re
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import datadog_caselinks.sandbox  # noqa: F401 - so that a class hidden there is found
from datadog_caselinks import CaseLink
from datadog_caselinks.values import errors
from datadog_caselinks.values.errors import (
    AmbiguousResultError,
    CaseLinksError,
    ConfigurationError,
    ConflictError,
    CycleError,
    InvalidLinkError,
    LinkFileError,
    MalformedResponseError,
    ParameterError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    SessionError,
)
from datadog_caselinks.values.rate_limit import RateLimit
from tests.support.ids import case

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))
LINK = CaseLink("804cd682-55f6-4541-ab00-b608b282ea7d", NEW.parent, NEW.relationship, NEW.child)
RESPONSE: dict[str, Any] = {
    "status": 418,
    "errors": ("a: b", "c"),
    "raw_errors": ({"title": "a", "detail": "b", "meta": {"deep": [1, None]}}, "c"),
    "retry_after": 1.5,
    "rate_limit": RateLimit(limit=60, reset=7.0, name="case_links"),
    "body": "<html>",
}


def all_classes(root: type[CaseLinksError] = CaseLinksError) -> Iterator[type[CaseLinksError]]:
    """Yield ``root`` and its public subclasses in this package, in the order of definition."""
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("datadog_caselinks") and not child.__name__.startswith("_"):
            yield from all_classes(child)


def made(kind: type[CaseLinksError]) -> CaseLinksError:
    """Return an error of ``kind`` with a value for every attribute."""
    error = _constructed(kind)
    error.during_outage = True
    if isinstance(error, ConflictError):
        error.existing = LINK
    return error


def _constructed(kind: type[CaseLinksError]) -> CaseLinksError:
    if issubclass(kind, ResponseError):
        return kind("what happened", **RESPONSE)
    if issubclass(kind, AmbiguousResultError):
        return kind("what happened", new=NEW, reason=ServerError("the reason", **RESPONSE))
    if issubclass(kind, CycleError):
        return kind("what happened", links=(LINK,))
    if issubclass(kind, MalformedResponseError):
        return kind("what happened", body="{}")
    return kind("what happened")


def parts(error: BaseException) -> dict[str, Any]:
    """Return the contents of an error for comparison, since errors only equal themselves."""
    held = {
        name: parts(value) if isinstance(value, BaseException) else value
        for name, value in vars(error).items()
    }
    return {"class": type(error), "args": error.args, **held}


CLASSES = list(all_classes())
HOMES = {errors.__name__, "datadog_caselinks.values.base_errors"}


@pytest.mark.parametrize("kind", CLASSES)
class TestEveryError:
    def test_pickles_with_everything(self, kind: type[CaseLinksError]) -> None:
        """An error survives pickling with its message, attributes and class, in every protocol."""
        error = made(kind)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))
            assert parts(again) == parts(error)
            assert str(again) == "what happened"

    def test_pickles_with_its_notes(self, kind: type[CaseLinksError]) -> None:
        """An error survives pickling with its notes."""
        error = made(kind)
        error.add_note("while linking the backlog")
        assert pickle.loads(pickle.dumps(error)).__notes__ == ["while linking the backlog"]

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
    def test_copies_with_everything(self, kind: type[CaseLinksError], duplicate: Any) -> None:
        """A copy of an error has all of its attributes."""
        assert parts(duplicate(made(kind))) == parts(made(kind))

    def test_shows_its_message(self, kind: type[CaseLinksError]) -> None:
        """The traceback of an error ends with the class and the message."""
        error = made(kind)
        assert str(error) == "what happened"
        assert traceback.format_exception_only(error) == [
            f"{kind.__module__}.{kind.__qualname__}: what happened\n"
        ]

    def test_says_in_its_docstring_what_it_means(self, kind: type[CaseLinksError]) -> None:
        """Each error has a docstring of its own."""
        assert kind.__dict__["__doc__"].strip()

    def test_is_defined_in_the_one_tree(self, kind: type[CaseLinksError]) -> None:
        """Each error is defined in the tree of ``errors``."""
        assert getattr(errors, kind.__name__) is kind
        assert kind.__module__ in HOMES


def test_the_tree_is_as_drawn() -> None:
    """The tree in the docstring of ``errors`` has every class in its place, and no other."""
    drawn = [
        (len(match["branch"]) // 4, match["name"])
        for line in (errors.__doc__ or "").splitlines()
        if (match := re.match(r"    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+Error)\b", line))
    ]

    def walk(kind: type[CaseLinksError], depth: int) -> Iterator[tuple[int, str]]:
        yield depth, kind.__name__
        for child in kind.__subclasses__():
            if child.__module__ in HOMES:
                yield from walk(child, depth + 1)

    assert drawn == list(walk(CaseLinksError, 0))


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InvalidLinkError, ValueError),
        (LinkFileError, ValueError),
        (ConfigurationError, ValueError),
        (SessionError, RuntimeError),
    ],
)
def test_a_wrong_call_is_what_python_calls_it(kind: type[CaseLinksError], builtin: type[Exception]) -> None:
    """An error of misuse is also a ``ValueError`` or a ``RuntimeError``."""
    assert issubclass(kind, builtin)


def test_no_other_error_is_a_builtin() -> None:
    """Other errors are no subclasses of builtin errors, so that ``except OSError`` does not catch them."""
    also_builtin = (
        InvalidLinkError,
        LinkFileError,
        ConfigurationError,
        ParameterError,
        SessionError,
        RequestTimeoutError,
    )
    for kind in CLASSES:
        if not issubclass(kind, also_builtin):
            foreign = [base for base in kind.__mro__ if base.__module__ == "builtins"]
            assert foreign == [Exception, BaseException, object]


def test_the_parts_of_a_response_are_optional() -> None:
    """The attributes of a response are optional in its error, except the status."""
    error = ResponseError("what happened", status=302)
    assert (error.errors, error.raw_errors, error.retry_after, error.rate_limit, error.body) == (
        (),
        (),
        None,
        None,
        "",
    )


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_is_of_no_outage_unless_it_says_so(kind: type[CaseLinksError]) -> None:
    """An error is not marked as part of an outage by default, even after another one was."""
    made(kind)
    assert _constructed(kind).during_outage is False


class TestConflictError:
    @pytest.mark.parametrize(
        "duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
    )
    def test_the_existing_link_travels_with_it(self, duplicate: Any) -> None:
        """The existing link of a conflict survives copying and pickling."""
        error = ConflictError("what happened", **RESPONSE)
        error.existing = LINK
        assert duplicate(error).existing == LINK

    def test_there_may_be_none(self) -> None:
        """A conflict has no existing link by default, even after another one had."""
        ConflictError("what happened", **RESPONSE).existing = LINK
        assert ConflictError("what happened", **RESPONSE).existing is None
