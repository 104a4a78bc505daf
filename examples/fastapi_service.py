"""A FastAPI service that links cases by their keys: the same service as web_service.py.

The lifespan opens one client for the whole application, and a dependency passes it to the endpoints.

Against a sandbox:  caselinks sandbox --seed demo -- python examples/fastapi_service.py
Against Datadog:    python examples/fastapi_service.py       (with DD_* in the environment)
Try it:             curl -X PUT http://127.0.0.1:8080/links/SHOP-1/blocks/SHOP-9
                    or in a browser, http://127.0.0.1:8080/docs
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import http_errors
from datadog_caselinks import CaseLinksClient, CaseLinksError, parse_link

logger = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, CaseLinksClient]]:
    """Open the client when the application starts, and close it when it ends."""
    async with CaseLinksClient.from_env() as client:
        yield {"client": client}


async def get_client(request: Request) -> CaseLinksClient:
    """Return the client. A test can replace it with ``app.dependency_overrides``."""
    client: CaseLinksClient = request.state.client
    return client


Client = Annotated[CaseLinksClient, Depends(get_client)]
app = FastAPI(title="Case links", lifespan=lifespan)


class Linked(BaseModel):
    """The link that exists now."""

    id: str


class Link(Linked):
    """A link, with the ids of its ends."""

    parent: str
    relationship: str
    child: str


class CaseWithLinks(BaseModel):
    """A case, and the links that have it as parent or child."""

    id: str
    title: str
    links: list[Link]


@app.exception_handler(CaseLinksError)
async def refuse(request: Request, error: CaseLinksError) -> JSONResponse:
    """Respond to each error of the client with a status and its message, which never contains a key."""
    status = http_errors.status(error)
    if status >= 500:
        logger.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": str(error)}, status_code=status, headers=http_errors.headers(error))


@app.put("/links/{parent}/{relationship}/{child}")
async def put_link(client: Client, response: Response, parent: str, relationship: str, child: str) -> Linked:
    """Create the link (201) unless it exists (200). An end is a case key, or written like incident:UUID."""
    wanted = parse_link(parent, relationship, child, site=client.site)
    link, created = await client.ensure_link(wanted)
    response.status_code = 201 if created else 200
    return Linked(id=link.id)


@app.get("/cases/{key}/links")
async def get_links(client: Client, key: str) -> CaseWithLinks:
    """Return the case with this key, and its links."""
    case = await client.get_case(key)
    found = [
        Link(id=link.id, parent=link.parent.id, relationship=link.relationship, child=link.child.id)
        for link in await client.list_links(case.entity)
    ]
    return CaseWithLinks(id=case.id, title=case.title, links=found)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
