"""Tools for agents: a server of the Model Context Protocol (MCP) on top of a client.

Needs the extra ``mcp``.
"""

from datadog_caselinks.values.errors import ConfigurationError
from datadog_caselinks.values.messages import needs_extra
from datadog_caselinks.values.rate import DEFAULT_WRITE_RATE

try:
    from datadog_caselinks.mcp.server import AgentServer
    from datadog_caselinks.mcp.serving import serve_http, serve_stdio
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "pydantic", "starlette", "uvicorn"):
        raise
    raise ConfigurationError(needs_extra("datadog_caselinks.mcp", "mcp")) from None

__all__ = ["DEFAULT_WRITE_RATE", "AgentServer", "serve_http", "serve_stdio"]
