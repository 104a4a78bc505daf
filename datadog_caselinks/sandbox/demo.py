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
SHOP-2   CLOSED       P1  orders-db connection pool exhausted
SHOP-3   CLOSED       P2  Search results are hours out of date
SHOP-4   CLOSED       P2  Refunds delayed by an hour
SHOP-5   CLOSED       P2  Config push 4711 halves the orders-db pool
SHOP-6   IN_PROGRESS  P2  Config is pushed to all hosts at once
SHOP-7   CLOSED       P3  Search indexer loses database connections
SHOP-8   CLOSED       P3  Payment webhooks time out and are retried
SHOP-9   IN_PROGRESS  P2  Customers charged twice
SHOP-10  OPEN         P3  Spike in customer support calls
SHOP-11  OPEN         P2  No alert on free database connections
SHOP-12  OPEN         P4  orders-db dashboard shows the wrong host
SHOP-13  OPEN         P4  Checkout runbook refers to a retired service
SHOP-14  CLOSED       P3  iOS: endless spinner at checkout
SHOP-15  CLOSED       P3  Android: error 500 at checkout
SHOP-16  CLOSED       P4  Cart is empty after payment
SHOP-17  CLOSED       P4  Gift cards are rejected
SHOP-18  CLOSED       P4  Sold-out items in search results
SHOP-19  IN_PROGRESS  P1  Recover from the checkout outage
SHOP-20  CLOSED       P1  Restore the orders-db pool size
SHOP-21  CLOSED       P2  Drain the refund queue
SHOP-22  IN_PROGRESS  P2  Refund double charges
SHOP-23  OPEN         P2  Prevent a recurrence
SHOP-24  IN_PROGRESS  P2  Push config to a canary host first
SHOP-25  OPEN         P3  Reject pool sizes below 20
SHOP-26  OPEN         P2  Page when 80% of connections are in use
SHOP-27  OPEN         P3  Separate connection pool for search
SHOP-28  OPEN         P3  Make the "Pay" button idempotent
SHOP-29  CLOSED       P4  Fix the checkout runbook
SHOP-30  CLOSED       P4  Decision (2023): search and orders share a pool
SHOP-31  OPEN         P3  Game day: exhaust the pool in staging
SHOP-32  OPEN         P3  Load-test the new limits
SHOP-33  OPEN         P4  Notify partners about duplicate webhooks
SHOP-34  OPEN         P3  Show open incidents to support agents
SHOP-35  OPEN         P4  Generate dashboards from the inventory
SHOP-36  OPEN         P3  Audit who can push config
MAIL-1   CLOSED       P1  Order confirmation emails not delivered
MAIL-2   CLOSED       P1  Mail servers reject the relay's certificate
MAIL-3   CLOSED       P2  Password reset emails not delivered
MAIL-4   CLOSED       P1  Parcel labels not printed
MAIL-5   CLOSED       P1  Mail relay certificate expired
MAIL-6   IN_PROGRESS  P2  Certificates are renewed manually
MAIL-7   CLOSED       P2  Outgoing mail queue fills the disk
MAIL-8   CLOSED       P3  Parcel labels printed twice
MAIL-9   IN_PROGRESS  P2  Customers place duplicate orders
MAIL-10  OPEN         P3  Spike in "where is my order?" calls
MAIL-11  OPEN         P2  No alert on expiring certificates
MAIL-12  OPEN         P3  Status page stays green
MAIL-13  CLOSED       P4  Mail runbook refers to the old relay
MAIL-14  CLOSED       P4  Card charged, but no confirmation
MAIL-15  CLOSED       P4  No email from the shop since 9:00
MAIL-16  CLOSED       P4  Android: "confirmation sent", but no email
MAIL-17  CLOSED       P4  Cannot log in: no password reset email
MAIL-18  CLOSED       P3  Label printers in hall 2 are idle
MAIL-19  IN_PROGRESS  P1  Recover from the mail outage
MAIL-20  CLOSED       P1  Install a new certificate
MAIL-21  CLOSED       P1  Free disk space on the relay
MAIL-22  CLOSED       P2  Drain the mail queue, oldest first
MAIL-23  IN_PROGRESS  P2  Cancel duplicate orders
MAIL-24  OPEN         P2  Prevent another mail outage
MAIL-25  OPEN         P2  Automate certificate renewal
MAIL-26  IN_PROGRESS  P2  Alert 30 days before a certificate expires
MAIL-27  OPEN         P3  Add a second mail relay
MAIL-28  OPEN         P3  Show order confirmations in the account
MAIL-29  CLOSED       P4  Fix the mail runbook
MAIL-30  CLOSED       P4  Decision (2022): one mail relay is enough
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
checkout  101  resolved  Checkout fails for most customers
search    102  resolved  Search shows sold-out items
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
