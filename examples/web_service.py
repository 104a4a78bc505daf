"""An aiohttp.web service that links an incident to the case that caused it.

One client serves every request, for as long as the application lives.

Against a sandbox:  caselinks sandbox -- python examples/web_service.py
Against Datadog:    python examples/web_service.py           (with DD_* in the environment)
Try it:             curl -X POST http://127.0.0.1:8080/incidents/UUID/causes/UUID
"""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from datadog_caselinks import CaseLinksClient, CaseLinksError, InvalidLinkError, case, incident

LINKS = web.AppKey("LINKS", CaseLinksClient)


async def client(app: web.Application) -> AsyncIterator[None]:
    """Open the client with the application, and close it with it."""
    async with CaseLinksClient.from_env() as links:
        app[LINKS] = links
        yield


async def link_cause(request: web.Request) -> web.Response:
    """``POST /incidents/{incident}/causes/{case}``: the case caused the incident."""
    try:
        new = case(request.match_info["case"]).causes(incident(request.match_info["incident"]))
        link = await request.app[LINKS].create_link(new)
    except InvalidLinkError as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    except CaseLinksError as error:
        raise web.HTTPBadGateway(text=str(error)) from error
    return web.json_response({"link": link.id}, status=201)


def application() -> web.Application:
    """The service."""
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.add_routes([web.post("/incidents/{incident}/causes/{case}", link_cause)])
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
