"""The base class of all errors, and the errors about what a caller passed in.

They are apart from ``errors.py``, which imports the models: the models raise these.
"""

from __future__ import annotations

from typing import Any


class CaseLinksError(Exception):
    """The base class of every error of this package.

    ``during_outage`` is true if the client did not retry because most of its recent requests had failed.
    """

    during_outage: bool = False

    @property
    def may_have_been_applied(self) -> bool:
        """Whether the server may have carried out the request although this error was raised."""
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle as cls(*args), which leaves out keyword-only parameters.
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[CaseLinksError], args: tuple[Any, ...]) -> CaseLinksError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InvalidLinkError(CaseLinksError, ValueError):
    """A link, or one of its ends, that the API documents as invalid. Nothing was sent."""


class ConfigurationError(CaseLinksError, ValueError):
    """The site or the credentials are missing or malformed, or an optional dependency is not installed."""


class ParameterError(CaseLinksError, ValueError):
    """An argument has a value or a type that cannot work. The message names the parameter."""
