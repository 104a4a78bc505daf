"""List the links of cases with a token for the AWS role of this workload, without any Datadog key.

In Datadog, map the ARN of the role to a service account with the scope ``cases_read``.
Install:  pip install '/path/to/datadog_caselinks' datadog-api-client

Against Datadog:  DD_SITE=datadoghq.eu DD_ORG_UUID=… python examples/aws_token.py SHOP-1
On AWS Lambda, the credentials of the role are in the environment. Elsewhere, set AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or override ``get_credentials`` of ``AWSAuth``.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import datetime, timedelta

from datadog_api_client import Configuration
from datadog_api_client.aws import AWSAuth
from datadog_api_client.delegated_auth import DelegatedTokenConfig, DelegatedTokenCredentials

from datadog_caselinks import BearerToken, CaseLinksClient, Site, case


class AwsToken:
    """Returns a token for an AWS identity, and keeps it until a minute before it expires."""

    def __init__(self, site: Site, organisation: str, auth: Callable[[], AWSAuth] = AWSAuth) -> None:
        self._configuration = Configuration(host=site.api_url)
        self._organisation = organisation
        self._auth = auth
        self._lock = asyncio.Lock()
        self._token = ""
        self._expires = datetime.min

    async def __call__(self) -> str:
        """Return the token; the client awaits this before each attempt."""
        async with self._lock:  # many calls need a token at the same time, and one request is enough
            soon = datetime.now() + timedelta(minutes=1)
            if not self._token or self._expires <= soon:
                credentials = await asyncio.to_thread(self._authenticate)
                self._token, self._expires = credentials.delegated_token, credentials.expiration
            return self._token

    def _authenticate(self) -> DelegatedTokenCredentials:
        auth = self._auth()  # one for each token: datadog-api-client 2.62 cannot reuse its connection
        config = DelegatedTokenConfig(self._organisation, "aws", auth)
        return auth.authenticate(config, self._configuration)


async def main(*keys: str) -> None:
    """Print the links of each case."""
    site = Site.parse(os.environ.get("DD_SITE", "datadoghq.com"))
    token = AwsToken(site, os.environ["DD_ORG_UUID"])
    async with CaseLinksClient(site, BearerToken(token)) as client:
        for key in keys:
            for link in await client.list_links(case(key)):
                print(link.id, link)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
