"""The base class of all errors, and the errors about arguments.

These are not in ``errors.py``, because the models raise them and ``errors.py`` imports the models.
"""

from __future__ import annotations

from typing import Any


class CaseLinksError(Exception):
    """The base class of all errors of this package.

    ``during_outage``
        Whether the client stopped retrying because most recent requests had failed.
    ``was_ambiguous``
        Whether an attempt to create or delete the link was ambiguous. If the error of a create is not an
        :class:`AmbiguousResultError`, the last lookup did not show the link. The server may create it later.
    """

    during_outage: bool = False
    was_ambiguous: bool = False

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
    """A link or an entity is invalid, as the API documents. Nothing was sent."""


class ConfigurationError(CaseLinksError, ValueError):
    """The site or the credentials are missing or malformed, or an optional dependency is not installed."""


class ParameterError(CaseLinksError, ValueError, TypeError):
    """An argument has an unusable value or type. The message names the parameter, and says what it takes."""
