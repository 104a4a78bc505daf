"""A webhook that relates an incident to the cases that its title or message names, such as SHOP-1.

In Datadog, create a webhook with this payload, and an incident notification rule that calls it:

    {"incident": "$INCIDENT_UUID", "text": "$INCIDENT_TITLE $INCIDENT_MSG"}

Its custom headers are {"X-Hook-Secret": "…"}, with the value of HOOK_SECRET here. After a 5xx or a timeout,
Datadog sends the request again. That is safe: a link that exists is not created again.

Against a sandbox:  HOOK_SECRET=s3cret caselinks sandbox --seed demo -- python examples/incident_hook.py
Against Datadog:    HOOK_SECRET=… python examples/incident_hook.py   (with DD_* in the environment)
Try it:             curl http://127.0.0.1:8080/incidents -H 'X-Hook-Secret: s3cret' --json \
                    '{"incident": "1588a905-212d-5dcb-ad1b-15647f1ad62d", "text": "as in SHOP-1 and SHOP-2"}'
"""

import hmac
import os
import re
from collections.abc import AsyncIterator
from uuid import UUID

from aiohttp import web

import http_errors
from datadog_caselinks import AlreadyLinked, CaseLinksClient, Created, Failed, incident, parse_link

CLIENT = web.AppKey("CLIENT", CaseLinksClient)
SECRET = web.AppKey("SECRET", bytes)
CASE_KEY = re.compile(r"\b[A-Z][A-Z0-9_]*-\d+\b")


async def client_context(app: web.Application) -> AsyncIterator[None]:
    """Open the client when the application starts, and close it when it ends."""
    async with CaseLinksClient.from_env() as client:
        app[CLIENT] = client
        yield


async def receive(request: web.Request) -> web.Response:
    """``POST /incidents``: 200 once every possible link exists, 503 if sending it again may help."""
    # A comparison in constant time: its duration does not reveal how much of a guess was right.
    given = request.headers.get("X-Hook-Secret", "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(given, request.app[SECRET]):
        raise web.HTTPUnauthorized(text="the header X-Hook-Secret does not match HOOK_SECRET\n")
    try:
        payload = await request.json()
        declared = incident(UUID(payload["incident"]))
        keys = sorted(set(CASE_KEY.findall(payload["text"])))
    except (AttributeError, KeyError, TypeError, ValueError) as invalid:
        raise web.HTTPBadRequest(text=f"invalid payload: {invalid!r}\n") from invalid
    wanted = [parse_link(declared, "relates-to", key) for key in keys]
    results: dict[str, str] = {}
    status = 200
    async for outcome in request.app[CLIENT].create_links(wanted, ensure=True):
        match outcome:
            case Created():
                result = "linked"
            case AlreadyLinked():
                result = "already linked"
            case Failed(error=error):
                result = str(error)
                # UTF-8 looks like a case key too. If no such case exists, sending it again does not help.
                if http_errors.status(error) in (429, 502):
                    status = 503
                    request.app.logger.error("%s: %s", declared, error)
        results[keys[outcome.index]] = result
    return web.json_response(results, status=status)


def application(secret: str) -> web.Application:
    """Return the service. Anyone who knows ``secret`` may create links."""
    app = web.Application()
    app[SECRET] = secret.encode()
    app.cleanup_ctx.append(client_context)
    app.add_routes([web.post("/incidents", receive)])
    return app


if __name__ == "__main__":
    if not os.environ.get("HOOK_SECRET"):
        raise SystemExit("HOOK_SECRET is not set: set it to a long random string")
    web.run_app(
        application(os.environ["HOOK_SECRET"]), host="127.0.0.1", port=int(os.environ.get("PORT", "8080"))
    )
