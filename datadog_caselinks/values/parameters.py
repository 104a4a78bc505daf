"""Check the arguments of public functions: an error names the parameter, and says what it takes."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import AsyncIterable, Iterable
from numbers import Integral, Real
from typing import TypeGuard

from datadog_caselinks.values.base_errors import ParameterError
from datadog_caselinks.values.messages import quoted


def require(name: str, value: object, kind: type | tuple[type, ...], takes: str) -> None:
    """Check that ``value`` is a ``kind``. ``takes`` says so in words, after "must be".

    Raises:
        ParameterError: It is something else.
    """
    if not isinstance(value, kind):
        raise ParameterError(f"{name} must be {takes}, not {quoted(value)}")


def require_number(name: str, value: object, *, at_least: int) -> None:
    """Check that ``value`` is a number of at least ``at_least``, and not a bool.

    Raises:
        ParameterError: It is something else.
    """
    if not is_number(value):
        raise ParameterError(f"{name} must be a number, not {quoted(value)}")
    if not value >= at_least:  # also refuses NaN
        raise ParameterError(f"{name} must be at least {at_least}, not {quoted(value)}")


def require_seconds(name: str, value: object) -> None:
    """Check that ``value`` is a finite number above 0, and not a bool.

    Raises:
        ParameterError: It is something else.
    """
    if not is_number(value) or not 0 < value < math.inf:
        raise ParameterError(f"{name} must be a number of seconds greater than 0, not {quoted(value)}")


def require_finite_number(name: str, value: object, *, at_least: int) -> None:
    """Check that ``value`` is a finite number of at least ``at_least``, and not a bool.

    Raises:
        ParameterError: It is something else.
    """
    require_number(name, value, at_least=at_least)
    if value == math.inf:
        raise ParameterError(f"{name} must be a finite number, not {quoted(value)}")


def require_whole_number(name: str, value: object, *, at_least: int) -> None:
    """Check that ``value`` is a whole number of at least ``at_least``, and not a bool.

    Raises:
        ParameterError: It is something else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ParameterError(f"{name} must be a whole number, not {quoted(value)}")
    require_number(name, value, at_least=at_least)


def require_function(name: str, value: object) -> None:
    """Check that ``value`` is ``None`` or a function that is not async: it is called, and not awaited.

    Raises:
        ParameterError: It is something else.
    """
    if value is None:
        return
    if not callable(value):
        raise ParameterError(f"{name} must be a function, not {quoted(value)}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ParameterError(f"{name} must be a plain function, not an async one: nothing would await it")


def require_items(name: str, value: object, of: str = "links") -> None:
    """Check that ``value`` is an iterable or an async iterable of other things than characters.

    Raises:
        ParameterError: It is something else.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable | AsyncIterable):
        is_path = of == "links" and isinstance(value, str | os.PathLike)
        hint = "; read_link_file reads the links of a file" if is_path else ""
        raise ParameterError(f"{name} must be an iterable of {of}, not {quoted(value)}{hint}")


def require_path(name: str, value: object) -> None:
    """Check that ``value`` is the path of a file.

    Raises:
        ParameterError: It is something else, or empty, or contains a null byte or a lone surrogate, which no
            path can.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ParameterError(f"{name} must be the path of a file, not {quoted(value)}")
    if not os.fspath(value):
        raise ParameterError(f"{name} is empty: it must be the path of a file")
    try:
        is_possible = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise ParameterError(
            f"{name} must be the path of a file, without null bytes and lone surrogates, not {quoted(value)}"
        )


def is_number(value: object) -> TypeGuard[float]:
    """Return whether ``value`` is a real number, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)
