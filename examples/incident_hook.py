"""A webhook that relates an incident to the cases that its title and message name, such as SHOP-1.

In Datadog make a webhook with this payload, and have a notification rule of incidents call it:

    {"incident": "$INCIDENT_UUID", "text": "$INCIDENT_TITLE $INCIDENT_MSG"}

Its custom headers are {"X-Hook-Secret": "…"}, the value of HOOK_SECRET here. Datadog sends again what was
answered by 5xx or too late; that is safe, as a link that is there is not made again.

Against a sandbox:  HOOK_SECRET=s3cret caselinks sandbox --seed demo -- python examples/incident_hook.py
Against Datadog:    HOOK_SECRET=… python examples/incident_hook.py   (with DD_* in the environment)
Try it:             curl http://127.0.0.1:8080/incidents -H 'X-Hook-Secret: s3cret' --json \
                    '{"incident": "1588a905-212d-5dcb-ad1b-15647f1ad62d", "text": "as in SHOP-1 and SHOP-2"}'
"""

import hmac
import os
import re
from collections.abc import AsyncIterator

from aiohttp import web

import http_errors
from datadog_caselinks import AlreadyLinked, CaseLinksClient, Created, Failed, incident, parse_link

LINKS = web.AppKey("LINKS", CaseLinksClient)
SECRET = web.AppKey("SECRET", bytes)
CASE_KEY = re.compile(r"\b[A-Z][A-Z0-9_]*-\d+\b")


async def client(app: web.Application) -> AsyncIterator[None]:
    """Open the client with the application, and close it with it."""
    async with CaseLinksClient.from_env() as links:
        app[LINKS] = links
        yield


async def receive(request: web.Request) -> web.Response:
    """``POST /incidents``: 200 once all is linked that can be, 503 if it is worth sending again."""
    # Compared in constant time: how long it takes tells nobody how much of a guess was right.
    given = request.headers.get("X-Hook-Secret", "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(given, request.app[SECRET]):
        raise web.HTTPUnauthorized(text="X-Hook-Secret is not what HOOK_SECRET is here\n")
    try:
        payload = await request.json()
        declared, keys = incident(payload["incident"]), sorted(set(CASE_KEY.findall(payload["text"])))
    except (ValueError, KeyError, TypeError) as flaw:
        raise web.HTTPBadRequest(text=f"the payload is not as it should be: {flaw!r}\n") from flaw
    wanted = [parse_link(declared, "relates-to", key) for key in keys]
    told: dict[str, str] = {}
    status = 200
    async for outcome in request.app[LINKS].create_links(wanted, ensure=True):
        match outcome:
            case Created():
                said = "linked"
            case AlreadyLinked():
                said = "linked already"
            case Failed(error=error):
                said = str(error)
                # UTF-8 looks like a case key too. That there is no such case is no reason to send it again.
                if http_errors.status(error) in (429, 502):
                    status = 503
                    request.app.logger.error("%s: %s", declared, error)
        told[keys[outcome.index]] = said
    return web.json_response(told, status=status)


def application(secret: str) -> web.Application:
    """The service; whoever knows ``secret`` may link."""
    app = web.Application()
    app[SECRET] = secret.encode()
    app.cleanup_ctx.append(client)
    app.add_routes([web.post("/incidents", receive)])
    return app


if __name__ == "__main__":
    if not os.environ.get("HOOK_SECRET"):
        raise SystemExit("HOOK_SECRET is not set: set it to a long random string")
    web.run_app(
        application(os.environ["HOOK_SECRET"]), host="127.0.0.1", port=int(os.environ.get("PORT", "8080"))
    )
