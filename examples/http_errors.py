"""The HTTP status and headers with which a web service reports an error, in any framework.

web_service.py, fastapi_service.py and incident_hook.py use this module: copy it together with them.
"""

import math

from datadog_caselinks import CaseLinksError, InvalidLinkError, ResponseError


def status(error: CaseLinksError) -> int:
    """Return 4xx for what the caller can fix, and 502 for what is between this service and Datadog."""
    match error:
        case InvalidLinkError():
            return 400
        case ResponseError(status=400 | 404 | 409 | 422 | 429 as status):
            return status
        case _:
            return 502


def headers(error: CaseLinksError) -> dict[str, str]:
    """Return ``Retry-After`` in whole seconds, if Datadog said how long to wait."""
    if isinstance(error, ResponseError) and error.retry_after is not None:
        return {"Retry-After": str(math.ceil(error.retry_after))}
    return {}
