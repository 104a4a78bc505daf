"""The command ``/link PARENT RELATIONSHIP CHILD`` of a chat: what it does, and what it says. Knows no chat.

slack_bot.py and discord_bot.py speak with it: copy it together with them.
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


async def make_link(links: CaseLinksClient, parent: str, relationship: str, child: str) -> str:
    """Link what the texts name, unless it is linked already, and say so with the titles of the cases.

    Raises :class:`CaseLinksError`, of which :func:`advice` is what to say.
    """
    resolver = links.resolver()  # of this command alone: by the next one a case may have another title
    wanted = parse_link(parent, relationship, child, site=links.site)
    link, is_new = await links.ensure_link(await resolver.link(wanted))
    ends = await title(resolver, link.parent), await title(resolver, link.child)
    verb = link.relationship.replace("_", " ").lower()
    return f"{'Linked' if is_new else 'Linked already'}: {f' → {verb} → '.join(ends)}"


async def title(resolver: Resolver, entity: Entity) -> str:
    """What people call ``entity``; its plain id where that cannot be had, since the link is made by now."""
    if entity.type == EntityType.CASE:
        try:
            return str(await resolver.case(entity))
        except CaseLinksError as error:
            logger.warning("%s", error)
    return str(entity)


def advice(error: CaseLinksError) -> str:
    """What a person in a channel can do about ``error``.

    What none of them can mend is logged as a whole, for those who run the bot.
    """
    if isinstance(error, InvalidLinkError | NotFoundError | BadRequestError):
        return f"Not linked: {error}"
    logger.error("%s", error)
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return "Not linked: Datadog does not let me. Please tell whoever runs this bot; its log says why."
        case AmbiguousResultError():
            return "Perhaps linked: Datadog did not say. Send it again in a minute; it is not linked twice."
        case RateLimitError(retry_after=float(seconds)):
            return f"Not linked: Datadog is asked too often. Send it again in {seconds:.0f} seconds."
        case _:
            return "Not linked: Datadog does not answer as it should. Send it again in a few minutes."
