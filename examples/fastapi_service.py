"""A FastAPI service that links cases by their keys: web_service.py, as FastAPI would have it.

The lifespan holds the one client, and a dependency hands it to whatever wants it.

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
    """Open the client with the application, and close it with it."""
    async with CaseLinksClient.from_env() as links:
        yield {"links": links}


async def client(request: Request) -> CaseLinksClient:
    """The one client; a test may put another in its place by ``app.dependency_overrides``."""
    links: CaseLinksClient = request.state.links
    return links


Links = Annotated[CaseLinksClient, Depends(client)]
app = FastAPI(title="Case links", lifespan=lifespan)


class Linked(BaseModel):
    """The link that is there now."""

    id: str


class Link(Linked):
    """A link, with the ids of what it links."""

    parent: str
    relationship: str
    child: str


class CaseWithLinks(BaseModel):
    """A case, and the links in which it stands on either side."""

    id: str
    title: str
    links: list[Link]


@app.exception_handler(CaseLinksError)
async def refuse(request: Request, error: CaseLinksError) -> JSONResponse:
    """Answer every error of the client with its status and its message, which never holds a key."""
    status = http_errors.status(error)
    if status >= 500:
        logger.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": str(error)}, status_code=status, headers=http_errors.headers(error))


@app.put("/links/{parent}/{relationship}/{child}")
async def put_link(links: Links, response: Response, parent: str, relationship: str, child: str) -> Linked:
    """Make the link, with 201, unless it is there already. An end is a case key, or as in incident:UUID."""
    wanted = parse_link(parent, relationship, child, site=links.site)
    link, is_new = await links.ensure_link(await links.resolver().link(wanted))
    response.status_code = 201 if is_new else 200
    return Linked(id=link.id)


@app.get("/cases/{key}/links")
async def get_links(links: Links, key: str) -> CaseWithLinks:
    """The case with this key, and its links."""
    case = await links.get_case(key)
    found = [
        Link(id=link.id, parent=link.parent.id, relationship=link.relationship, child=link.child.id)
        for link in await links.list_links(case.entity)
    ]
    return CaseWithLinks(id=case.id, title=case.title, links=found)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
