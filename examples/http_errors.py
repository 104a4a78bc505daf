"""Which HTTP status tells a caller what went wrong with a link, in any web framework.

web_service.py, fastapi_service.py and incident_hook.py answer with it: copy it together with them.
"""

import math

from datadog_caselinks import CaseLinksError, InvalidLinkError, ResponseError


def status(error: CaseLinksError) -> int:
    """4xx is for the caller to mend; 502 is between this service and Datadog, its credentials included."""
    match error:
        case InvalidLinkError():
            return 400
        case ResponseError(status=400 | 404 | 409 | 422 | 429 as status):
            return status
        case _:
            return 502


def headers(error: CaseLinksError) -> dict[str, str]:
    """``Retry-After``, in whole seconds, where Datadog said how long to wait."""
    if isinstance(error, ResponseError) and error.retry_after is not None:
        return {"Retry-After": str(math.ceil(error.retry_after))}
    return {}
