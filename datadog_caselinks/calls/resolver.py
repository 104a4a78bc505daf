"""Look up the cases and incidents that references name, each once."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from datadog_caselinks.calls.concurrency import Progress, map_concurrently
from datadog_caselinks.isolation import log
from datadog_caselinks.values.errors import (
    BadRequestError,
    CaseLinksError,
    InvalidLinkError,
    MalformedResponseError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
)
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.models import (
    Case,
    CaseKey,
    Entity,
    EntityType,
    Incident,
    LinkReference,
    NewCaseLink,
    Reference,
    WantedLink,
    case_name,
    incident_name,
    is_uuid,
)
from datadog_caselinks.values.references import Details, parsed_reference
from datadog_caselinks.values.sites import Site

_logger = logging.getLogger(__name__)

_UNSTABLE: Final = (BadRequestError, MalformedResponseError, ServerError)
"""Failures of requests about incidents, an unstable part of the API, that must not hide the links."""

_CONCURRENCY: Final = 20
"""How many entities of :meth:`Resolver.all_details` are looked up at once."""

_LookUp = Callable[[str], Awaitable[Details | NotFoundError]]

_MAX_RESULTS: Final = 100_000
"""The maximum number of cached results. The oldest is dropped first, and requested again.

Measured on Python 3.11: 40 MB for cases under their keys and ids, 45 MB for keys that do not exist.
"""


async def look_up_details(resolver: Resolver, entity: Entity) -> Details | None:
    """Return the key, title and status of ``entity``. Pages and agent conversations have none.

    Raises:
        CaseLinksError: The lookup failed. :meth:`Resolver.details` ignores some of these errors.
    """
    if entity.type == EntityType.CASE:
        return await resolver.case(entity)
    return await resolver.incident(entity) if entity.type == EntityType.INCIDENT else None


class Resolver:
    """A lookup of cases and incidents, with a cache. :meth:`CaseLinksClient.resolver` returns one.

    Concurrent lookups of one entity share a single request. All results, including that an entity does not
    exist, stay in the cache until the resolver is discarded, so use one resolver for each run. A
    :class:`NotFoundError` from the cache has the message and the status of the first one, but not its headers
    and body.
    """

    def __init__(
        self,
        get_case: Callable[[str], Awaitable[Case]],
        get_incident: Callable[[str], Awaitable[Incident]],
        site: Site,
        *,
        found_for: float = math.inf,
        missing_for: float = math.inf,
    ) -> None:
        self._get_case = get_case
        self._get_incident = get_incident
        self._site = site
        self._found_for = found_for
        self._missing_for = missing_for
        # If nothing has the name, only the message: the error with headers and body takes six times as much.
        self._results: OrderedDict[str, tuple[Details | str, float]] = OrderedDict()
        self._in_flight: dict[str, asyncio.Future[Details | CaseLinksError]] = {}
        self._has_warned = False

    async def entity(self, reference: Reference | str) -> Entity:
        """Return the entity that ``reference`` names, after a lookup if it is a case key or a number.

        Args:
            reference: A reference, or a text that :func:`parse_reference` accepts.

        Raises:
            InvalidLinkError: The text does not name an entity, or is a URL of another site.
            MalformedResponseError: The id of the case or incident in the response is not a UUID.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_case` and
                :meth:`CaseLinksClient.get_incident`.
        """
        reference = parsed_reference(reference, self._site)
        if isinstance(reference, Entity):
            return reference
        found: Details
        if isinstance(reference, CaseKey):
            found, name = await self.case(reference), f"get case {reference}"
        else:
            found, name = await self.incident(reference), f"find incident {reference.number}"
        if not is_uuid(found.id):
            del found  # it may echo the keys, and tracebacks show local variables
            raise MalformedResponseError(f"cannot {name}: its id is not a UUID", body="")
        return found.entity

    async def link(self, reference: WantedLink) -> NewCaseLink:
        """Return ``reference`` as a link between entities, after lookups of its keys and numbers.

        Raises:
            InvalidLinkError: :class:`NewCaseLink` refuses the link.
            CaseLinksError: A lookup failed, as described for :meth:`CaseLinksClient.get_case` and
                :meth:`CaseLinksClient.get_incident`.
        """
        if isinstance(reference, NewCaseLink):
            return reference
        if not isinstance(reference, LinkReference):
            raise InvalidLinkError(
                "the link must be a NewCaseLink such as case(a).blocks(case(b)), or the result of "
                f"parse_link(…), not {quoted(reference)}"
            )
        parent = await self.entity(reference.parent)
        return NewCaseLink(parent, reference.relationship, await self.entity(reference.child))

    async def case(self, reference: Reference) -> Case:
        """Return the case with its key and title.

        Raises:
            InvalidLinkError: ``reference`` is not a reference to a case.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_case`.
        """
        found = await self._find_or_raise(case_name(reference), self._look_up_case)
        assert isinstance(found, Case)
        return found

    async def incident(self, reference: Reference) -> Incident:
        """Return the incident with its number and title.

        Raises:
            InvalidLinkError: ``reference`` is not a reference to an incident.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_incident`.
        """
        found = await self._find_or_raise(f"incident:{incident_name(reference)}", self._look_up_incident)
        assert isinstance(found, Incident)
        return found

    async def details(self, entity: Entity) -> Details | None:
        """Return the key, title and status of ``entity``, or ``None`` if they are not known.

        Pages and agent conversations have none, and these credentials may be unable to access others. The
        first failed request about an incident is logged.

        Raises:
            CaseLinksError: The lookup failed for another reason.
        """
        try:
            return await look_up_details(self, entity)
        except (NotFoundError, InvalidLinkError):
            return None
        except (PermissionDeniedError, *_UNSTABLE) as error:
            if entity.type == EntityType.INCIDENT:
                self._warn(error)
            elif isinstance(error, _UNSTABLE):
                raise
        return None

    async def all_details(self, entities: Iterable[Entity]) -> dict[Entity, Details]:
        """Return the details of ``entities``, as :meth:`details` does, without those that are not known."""
        found = await map_concurrently(
            self.details, list(dict.fromkeys(entities)), concurrency=_CONCURRENCY, progress=Progress(None)
        )
        return {entity: details for entity, details in found.items() if details}

    def _warn(self, error: CaseLinksError) -> None:
        if not self._has_warned:
            self._has_warned = True
            log(_logger, logging.WARNING, "an incident is shown without its number and title: %s", error)

    async def _find_or_raise(self, name: str, look_up: _LookUp) -> Details:
        result = await self._find(name, look_up)
        if isinstance(result, CaseLinksError):
            raise copy.copy(result)  # raising the cached error itself would extend its traceback each time
        return result

    async def _find(self, name: str, look_up: _LookUp) -> Details | CaseLinksError:
        """Return the result from the cache, of a lookup in flight, or of a new lookup.

        If a lookup in flight fails, the calls that wait for it fail too, and the next call looks the entity
        up again. If it is cancelled, one of the waiting calls looks the entity up again.
        """
        while in_flight := self._in_flight.get(name):
            await asyncio.wait([in_flight])
            if not in_flight.cancelled():
                return in_flight.result()
        now = asyncio.get_running_loop().time()
        cached, expires_at = self._results.get(name, (None, now))
        if cached and now < expires_at:
            return NotFoundError(cached, status=404) if isinstance(cached, str) else cached
        in_flight = self._in_flight[name] = asyncio.get_running_loop().create_future()
        try:
            result = await look_up(name)
            in_flight.set_result(result)
            return result
        except CaseLinksError as error:
            in_flight.set_result(error)
            raise
        finally:
            del self._in_flight[name]
            in_flight.cancel()  # unless it has a result

    async def _look_up_case(self, name: str) -> Details | NotFoundError:
        try:
            found = await self._get_case(name)
        except NotFoundError as error:
            if name.startswith("IR-"):  # probably the number of an incident, but a project may have this key
                error.args = (f"{error}. If {name} is an incident, write incident:{name}",)
            return self._cache_missing(name, error)
        if is_uuid(found.id):
            self._cache(found, self._found_for, name, found.entity.id, found.key.upper())
        return found

    async def _look_up_incident(self, name: str) -> Details | NotFoundError:
        try:
            found = await self._get_incident(name.removeprefix("incident:"))
        except NotFoundError as error:
            return self._cache_missing(name, error)
        if is_uuid(found.id):
            others = filter(None, (found.entity.id, found.key.upper(), found.number))
            self._cache(found, self._found_for, name, *(f"incident:{other}" for other in others))
        return found

    def _cache_missing(self, name: str, error: NotFoundError) -> NotFoundError:
        self._cache(str(error), self._missing_for, name)
        return error.with_traceback(None)

    def _cache(self, result: Details | str, seconds: float, *names: str) -> None:
        if not seconds:
            return
        expires_at = asyncio.get_running_loop().time() + seconds
        for name in filter(None, names):
            self._results[name] = result, expires_at
            self._results.move_to_end(name)
            if len(self._results) > _MAX_RESULTS:
                self._results.popitem(last=False)
