"""The code that is tested on the page."""

from datadog_caselinks import CaseLinksClient, CaseLinksError, RateLimitError, case


async def mark_duplicates(links: CaseLinksClient, original: str, copies: list[str]) -> list[str]:
    """Link each copy to its original, and return those that could not be linked."""
    failed = []
    for copy in copies:
        try:
            await links.ensure_link(case(copy).duplicates(case(original)))
        except RateLimitError:
            raise  # the others would fare no better
        except CaseLinksError:
            failed.append(copy)
    return failed


async def main(original: str, copies: list[str]) -> list[str]:
    """Do so with the client that the environment names."""
    async with CaseLinksClient.from_env() as links:
        return await mark_duplicates(links, original, copies)
