"""Demo data: the cases of an outage of a web shop, and the links between them.

A configuration push halves the connection pool of a database; checkout, search and refunds fail one after
the other. The links show escalations, causes, duplicates and follow-up work. Three of the follow-up cases
block each other in a cycle, for examples that find cycles.

The cases of a second outage, of mail, are not linked; ``examples/postmortem.csv`` contains their links.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final

from datadog_caselinks.sandbox.statuses import usual_group, usual_name
from datadog_caselinks.sandbox.store import Draft, StoredCase, StoredIncident

_NAMESPACE: Final = uuid.UUID("6f1d7a52-9c0e-4a53-8a55-1b7f0f0c2d11")

# Key, status, priority, title.
_CASES: Final = """\
SHOP-1   CLOSED       P1  Checkout hangs at the payment step
SHOP-2   CLOSED       P1  orders-db has no free connections
SHOP-3   CLOSED       P2  Search results are hours old
SHOP-4   CLOSED       P2  Refunds wait for an hour
SHOP-5   CLOSED       P2  Configuration push 4711 halves the pool of orders-db
SHOP-6   IN_PROGRESS  P2  Configuration is pushed everywhere at once
SHOP-7   CLOSED       P3  Search indexer loses its connections
SHOP-8   CLOSED       P3  Payment webhooks time out and are sent again
SHOP-9   IN_PROGRESS  P2  Shoppers were charged twice
SHOP-10  OPEN         P3  A wave of calls at customer support
SHOP-11  OPEN         P2  No alert on the connections that are left
SHOP-12  OPEN         P4  The dashboard of orders-db shows the wrong host
SHOP-13  OPEN         P4  The runbook for checkout names a retired service
SHOP-14  CLOSED       P3  iOS: the spinner at checkout never ends
SHOP-15  CLOSED       P3  Android: error 500 at checkout
SHOP-16  CLOSED       P4  The cart is empty after payment
SHOP-17  CLOSED       P4  Gift cards are rejected
SHOP-18  CLOSED       P4  Sold-out goods in the search results
SHOP-19  IN_PROGRESS  P1  Recovery
SHOP-20  CLOSED       P1  Restore the size of the pool
SHOP-21  CLOSED       P2  Work off the queue of refunds
SHOP-22  IN_PROGRESS  P2  Pay back what was charged twice
SHOP-23  OPEN         P2  Make it impossible to happen again
SHOP-24  IN_PROGRESS  P2  Push configuration to one host first
SHOP-25  OPEN         P3  Refuse a pool of less than 20
SHOP-26  OPEN         P2  Page when 80 % of the connections are taken
SHOP-27  OPEN         P3  A pool of its own for search
SHOP-28  OPEN         P3  A second press on "Pay" does nothing
SHOP-29  CLOSED       P4  Correct the runbook for checkout
SHOP-30  CLOSED       P4  Search and orders share a pool (decision of 2023)
SHOP-31  OPEN         P3  Game day: exhaust the pool in staging
SHOP-32  OPEN         P3  Load test of the new limits
SHOP-33  OPEN         P4  Tell partners about repeated webhooks
SHOP-34  OPEN         P3  Support sees open incidents at a glance
SHOP-35  OPEN         P4  Dashboards are made from the inventory
SHOP-36  OPEN         P3  Review who may push configuration
MAIL-1   CLOSED       P1  Order confirmations do not arrive
MAIL-2   CLOSED       P1  The mail relay is trusted by nobody
MAIL-3   CLOSED       P2  Password resets do not arrive
MAIL-4   CLOSED       P1  No labels for parcels
MAIL-5   CLOSED       P1  The relay's certificate has expired
MAIL-6   IN_PROGRESS  P2  Certificates are renewed by hand
MAIL-7   CLOSED       P2  The queue of outgoing mail fills the disk
MAIL-8   CLOSED       P3  Labels are printed twice
MAIL-9   IN_PROGRESS  P2  Shoppers order twice
MAIL-10  OPEN         P3  Support is asked: where is my order?
MAIL-11  OPEN         P2  No alert on certificates that expire
MAIL-12  OPEN         P3  The status page stays green
MAIL-13  CLOSED       P4  The runbook for mail names the old relay
MAIL-14  CLOSED       P4  No confirmation, but the card was charged
MAIL-15  CLOSED       P4  No mail from the shop since 9:00
MAIL-16  CLOSED       P4  Android: "confirmation sent", and it was not
MAIL-17  CLOSED       P4  Cannot log in, the reset does not come
MAIL-18  CLOSED       P3  The printers in hall 2 are idle
MAIL-19  IN_PROGRESS  P1  Recovery of mail
MAIL-20  CLOSED       P1  Install a new certificate
MAIL-21  CLOSED       P1  Make room on the relay
MAIL-22  CLOSED       P2  Send the queue, oldest first
MAIL-23  IN_PROGRESS  P2  Cancel what was ordered twice
MAIL-24  OPEN         P2  Mail does not stop again
MAIL-25  OPEN         P2  Renew certificates by a program
MAIL-26  IN_PROGRESS  P2  Warn a month before a certificate expires
MAIL-27  OPEN         P3  A second relay
MAIL-28  OPEN         P3  Show the confirmation in the account too
MAIL-29  CLOSED       P4  Correct the runbook for mail
MAIL-30  CLOSED       P4  One relay is enough (decision of 2022)
"""

_LINKS: Final = """\
page:checkout          ESCALATES_TO  SHOP-1
page:orders-db         ESCALATES_TO  SHOP-2
page:search            ESCALATES_TO  SHOP-3
page:refunds           ESCALATES_TO  SHOP-4
SHOP-1                 ESCALATES_TO  incident:checkout
SHOP-3                 ESCALATES_TO  incident:search
SHOP-4                 ESCALATES_TO  incident:refunds
conversation:triage    RELATES_TO    SHOP-2
SHOP-6                 CAUSES        SHOP-5
SHOP-5                 CAUSES        SHOP-2
SHOP-2                 CAUSES        incident:checkout
SHOP-2                 CAUSES        SHOP-7
SHOP-7                 CAUSES        incident:search
SHOP-2                 CAUSES        SHOP-8
SHOP-8                 CAUSES        SHOP-4
incident:checkout      CAUSES        SHOP-9
incident:refunds       CAUSES        SHOP-10
SHOP-10                RELATES_TO    incident:checkout
incident:search        RELATES_TO    SHOP-2
SHOP-11                RELATES_TO    SHOP-2
SHOP-12                RELATES_TO    SHOP-2
SHOP-13                RELATES_TO    incident:checkout
SHOP-14                DUPLICATES    SHOP-1
SHOP-15                DUPLICATES    SHOP-1
SHOP-16                DUPLICATES    SHOP-1
SHOP-17                DUPLICATES    SHOP-1
SHOP-18                DUPLICATES    SHOP-7
SHOP-19                PARENT_OF     SHOP-20
SHOP-19                PARENT_OF     SHOP-21
SHOP-19                PARENT_OF     SHOP-22
SHOP-23                PARENT_OF     SHOP-24
SHOP-23                PARENT_OF     SHOP-25
SHOP-23                PARENT_OF     SHOP-26
SHOP-23                PARENT_OF     SHOP-27
SHOP-23                PARENT_OF     SHOP-28
SHOP-23                PARENT_OF     SHOP-29
SHOP-20                BLOCKS        SHOP-21
SHOP-21                BLOCKS        SHOP-22
SHOP-24                BLOCKS        SHOP-25
SHOP-25                BLOCKS        SHOP-26
SHOP-26                BLOCKS        SHOP-24
SHOP-23                SUCCESSOR_OF  SHOP-19
SHOP-27                SUCCESSOR_OF  SHOP-30
SHOP-26                SUCCESSOR_OF  SHOP-11
"""

# Name in the links, number, state, title.
_INCIDENTS: Final = """\
checkout  101  resolved  Checkout fails for most shoppers
search    102  resolved  Search shows goods that are sold out
refunds   103  stable    Refunds are delayed
"""

_TYPES: Final = {"incident": "INCIDENT", "page": "PAGE", "conversation": "AGENT_CONVERSATION"}


def cases() -> Iterator[StoredCase]:
    """Yield the cases in the order of their keys."""
    for line in _CASES.splitlines():
        key, status, priority, title = line.split(maxsplit=3)
        yield StoredCase(_id(key), key, title, status, priority, usual_name(status), usual_group(status))


def incidents() -> Iterator[StoredIncident]:
    """Yield the incidents in the order of their numbers."""
    for line in _INCIDENTS.splitlines():
        name, number, state, title = line.split(maxsplit=3)
        yield StoredIncident(_id(f"incident:{name}"), int(number), title, state)


def links() -> Iterator[Draft]:
    """Yield the links between the cases, incidents, pages and conversations of the outage."""
    for line in _LINKS.splitlines():
        parent, relationship, child = line.split()
        yield Draft(_type(parent), _id(parent), relationship, _type(child), _id(child))


def _type(name: str) -> str:
    return _TYPES.get(name.partition(":")[0], "CASE")


def _id(name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, name))
