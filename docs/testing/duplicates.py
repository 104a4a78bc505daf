"""The code under test on the page about testing."""

from datadog_caselinks import CaseLinksClient, CaseLinksError, RateLimitError, case


async def mark_duplicates(client: CaseLinksClient, original: str, copies: list[str]) -> list[str]:
    """Link each copy to its original, and return those that could not be linked."""
    failed = []
    for copy in copies:
        try:
            await client.ensure_link(case(copy).duplicates(case(original)))
        except RateLimitError:
            raise  # the other copies would fail too
        except CaseLinksError:
            failed.append(copy)
    return failed


async def main(original: str, copies: list[str]) -> list[str]:
    """Do so with a client that reads the environment."""
    async with CaseLinksClient.from_env() as client:
        return await mark_duplicates(client, original, copies)
