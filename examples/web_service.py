"""An aiohttp.web service that links cases by their keys.

One client serves every request for the life of the application. A PUT creates a link only if it does not
exist, so a caller that got no response can send it again.

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

CLIENT = web.AppKey("CLIENT", CaseLinksClient)


async def client_context(app: web.Application) -> AsyncIterator[None]:
    """Open the client when the application starts, and close it when it ends."""
    async with CaseLinksClient.from_env() as client:
        app[CLIENT] = client
        yield


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Respond to each error of the client with a status and its message, which never contains a key."""
    try:
        return await handler(request)
    except CaseLinksError as error:
        status = http_errors.status(error)
        if status >= 500:
            request.app.logger.error("%s %s: %s", request.method, request.path, error)
        return web.json_response({"error": str(error)}, status=status, headers=http_errors.headers(error))


async def put_link(request: web.Request) -> web.Response:
    """``PUT /links/{parent}/{relationship}/{child}``: 201 if the link was created, 200 if it existed.

    Each end is a case key, or a type and a UUID, such as ``incident:UUID``.
    """
    client, ends = request.app[CLIENT], request.match_info
    wanted = parse_link(ends["parent"], ends["relationship"], ends["child"], site=client.site)
    link, created = await client.ensure_link(wanted)
    return web.json_response({"id": link.id}, status=201 if created else 200)


async def get_links(request: web.Request) -> web.Response:
    """``GET /cases/{key}/links``: the case, and the links that have it as parent or child."""
    client = request.app[CLIENT]
    case = await client.get_case(request.match_info["key"])
    found = [
        {"id": link.id, "parent": link.parent.id, "relationship": link.relationship, "child": link.child.id}
        for link in await client.list_links(case.entity)
    ]
    return web.json_response({"id": case.id, "title": case.title, "links": found})


def application() -> web.Application:
    """Return the service."""
    app = web.Application(middlewares=[errors])
    app.cleanup_ctx.append(client_context)
    app.add_routes(
        [
            web.put("/links/{parent}/{relationship}/{child}", put_link),
            web.get("/cases/{key}/links", get_links),
        ]
    )
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
