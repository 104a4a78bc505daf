"""An aiohttp.web service that links cases by their keys.

One client serves every request, for as long as the application lives. A link is put and not posted: it is
made if it is not there, so a caller that got no answer just asks again.

Against a sandbox:  caselinks sandbox --seed demo -- python examples/web_service.py
Against Datadog:    python examples/web_service.py           (with DD_* in the environment)
Try it:             curl -X PUT http://127.0.0.1:8080/links/SHOP-1/blocks/SHOP-9
                    curl http://127.0.0.1:8080/cases/SHOP-1/links
"""

import os
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

import http_errors
from datadog_caselinks import CaseLinksClient, CaseLinksError, parse_link

LINKS = web.AppKey("LINKS", CaseLinksClient)


async def client(app: web.Application) -> AsyncIterator[None]:
    """Open the client with the application, and close it with it."""
    async with CaseLinksClient.from_env() as links:
        app[LINKS] = links
        yield


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error of the client with its status and its message, which never holds a key."""
    try:
        return await handler(request)
    except CaseLinksError as error:
        status = http_errors.status(error)
        if status >= 500:
            request.app.logger.error("%s %s: %s", request.method, request.path, error)
        return web.json_response({"error": str(error)}, status=status, headers=http_errors.headers(error))


async def put_link(request: web.Request) -> web.Response:
    """``PUT /links/{parent}/{relationship}/{child}``: 201 if it was made, 200 if it was there.

    Each end is a case key, or a UUID with what it is of, such as ``incident:UUID``.
    """
    links, named = request.app[LINKS], request.match_info
    wanted = parse_link(named["parent"], named["relationship"], named["child"], site=links.site)
    link, is_new = await links.ensure_link(await links.resolver().link(wanted))
    return web.json_response({"id": link.id}, status=201 if is_new else 200)


async def get_links(request: web.Request) -> web.Response:
    """``GET /cases/{key}/links``: the case, and the links in which it stands on either side."""
    links = request.app[LINKS]
    case = await links.get_case(request.match_info["key"])
    found = [
        {"id": link.id, "parent": link.parent.id, "relationship": link.relationship, "child": link.child.id}
        for link in await links.list_links(case.entity)
    ]
    return web.json_response({"id": case.id, "title": case.title, "links": found})


def application() -> web.Application:
    """The service."""
    app = web.Application(middlewares=[errors])
    app.cleanup_ctx.append(client)
    app.add_routes(
        [
            web.put("/links/{parent}/{relationship}/{child}", put_link),
            web.get("/cases/{key}/links", get_links),
        ]
    )
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
