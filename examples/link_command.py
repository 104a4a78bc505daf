"""The chat command ``/link PARENT RELATIONSHIP CHILD``, independent of any chat.

slack_bot.py and discord_bot.py use this module: copy it together with them.
"""

import logging

from datadog_caselinks import (
    AmbiguousResultError,
    AuthenticationError,
    BadRequestError,
    CaseLinksClient,
    CaseLinksError,
    Entity,
    EntityType,
    InvalidLinkError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    Resolver,
    parse_link,
)

logger = logging.getLogger(__name__)


async def ensure_link(client: CaseLinksClient, parent: str, relationship: str, child: str) -> str:
    """Link the two entities unless they are linked, and return a reply with the titles of the cases.

    Raises :class:`CaseLinksError`; :func:`advice` returns the reply for it.
    """
    resolver = client.resolver()  # for this command only: before the next one, a title may change
    wanted = parse_link(parent, relationship, child, site=client.site)
    link, created = await client.ensure_link(await resolver.link(wanted))
    ends = await title(resolver, link.parent), await title(resolver, link.child)
    verb = link.relationship.replace("_", " ").lower()
    return f"{'Linked' if created else 'Already linked'}: {f' → {verb} → '.join(ends)}"


async def title(resolver: Resolver, entity: Entity) -> str:
    """Return the key and title of a case, or the type and id of an entity whose title cannot be read."""
    if entity.type == EntityType.CASE:
        try:
            return str(await resolver.case(entity))
        except CaseLinksError as error:
            logger.warning("%s", error)  # not a failure: the link exists
    return str(entity)


def advice(error: CaseLinksError) -> str:
    """Return a reply that says what people in the channel can do about ``error``.

    Errors that only the operators of the bot can fix are logged in full.
    """
    if isinstance(error, InvalidLinkError | NotFoundError | BadRequestError):
        return f"Not linked: {error}"
    logger.error("%s", error)
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return "Not linked: Datadog denied access. Please ask the operators of this bot to check its log."
        case AmbiguousResultError():
            return "Perhaps linked: Datadog did not confirm it. Try again in a minute; this is safe."
        case RateLimitError(retry_after=float(seconds)):
            return f"Not linked: Datadog's rate limit is used up. Try again in {seconds:.0f} seconds."
        case _:
            return "Not linked: Datadog cannot be reached or failed. Try again in a few minutes."
