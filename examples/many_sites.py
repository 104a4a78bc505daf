"""Create the links of several organisations on their own sites, from one file each, all at once.

The variables of an organisation begin with its name: SHOP_DD_SITE, SHOP_DD_API_KEY, SHOP_DD_APP_KEY. Each of
them is required: a default could create links in another organisation.

Run it:             python examples/many_sites.py SHOP=shop.csv BANK=bank.csv
Against sandboxes:  start each with caselinks sandbox --port 8321 (8322, …); set the variables it prints
"""

import asyncio
import io
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack

from attrs import field, frozen

from datadog_caselinks import (
    AlreadyLinked,
    ApiKeys,
    CaseLinksClient,
    ConfigurationError,
    Created,
    Failed,
    LinkFileError,
    MalformedLine,
    SessionManager,
    WantedLink,
    read_link_file,
)


@frozen
class Organisation:
    """One organisation: its client, the file of its links, and the number of outcomes of each kind."""

    name: str
    client: CaseLinksClient
    file: io.RawIOBase
    counts: Counter[str] = field(factory=Counter, init=False)

    async def run(self) -> None:
        """Create the links in the file that do not exist yet, and print each failure."""
        try:
            async for outcome in self.client.create_links(self._wanted(), ensure=True):
                match outcome:
                    case Created():
                        self.counts["created"] += 1
                    case AlreadyLinked():
                        self.counts["already linked"] += 1
                    case Failed(new=new, error=error):
                        self._failed(f"{new}: {error}")
        except LinkFileError as error:
            self._failed(str(error))

    async def _wanted(self) -> AsyncIterator[WantedLink]:
        async for line in read_link_file(self.file, site=self.client.site):
            if isinstance(line, MalformedLine):
                self._failed(f"line {line.number}: {line.reason}")
            else:
                yield line.new

    def _failed(self, reason: str) -> None:
        self.counts["failed"] += 1
        print(f"{self.name}: {reason}")

    def __str__(self) -> str:
        counts = (f"{self.counts[status]} {status}" for status in ("created", "already linked", "failed"))
        return f"{self.name} ({self.client.site.api_url}): {', '.join(counts)}"


def organisation(argument: str, sessions: SessionManager, files: ExitStack) -> Organisation:
    """Return the organisation that ``NAME=FILE`` describes. Its file is added to ``files``."""
    name, _, path = argument.partition("=")
    variables = [f"{name}_{variable}" for variable in ("DD_SITE", "DD_API_KEY", "DD_APP_KEY")]
    if missing := [variable for variable in variables if not os.environ.get(variable)]:
        raise ConfigurationError(f"not set: {', '.join(missing)}")
    site, api_key, app_key = (os.environ[variable] for variable in variables)
    try:
        client = CaseLinksClient(site, ApiKeys(api_key=api_key, app_key=app_key), sessions=sessions)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    return Organisation(name, client, files.enter_context(open(path, "rb", buffering=0)))


async def main(arguments: list[str]) -> bool:
    """Link for all organisations at once, and print a summary of each. Return whether nothing failed."""
    with ExitStack() as files:
        async with SessionManager() as sessions:
            organisations = [organisation(argument, sessions, files) for argument in arguments]
            await asyncio.gather(*(organisation.run() for organisation in organisations))
    print(*organisations, sep="\n")
    return not any(organisation.counts["failed"] for organisation in organisations)


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("name organisations and their files, as in SHOP=shop.csv BANK=bank.csv")
    try:
        sys.exit(0 if asyncio.run(main(sys.argv[1:])) else 1)
    except (ConfigurationError, OSError) as error:
        sys.exit(str(error))
