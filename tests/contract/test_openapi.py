"""The sandbox's OpenAPI document is valid, and the sandbox behaves as documented in it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from datadog_caselinks.sandbox import Sandbox, openapi

MAX_SECONDS = 240
SCHEMATHESIS = (
    *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
    *("--checks=all", "--max-examples=30", "--seed=1", "--no-color"),
)
KEYS = ["--header=DD-API-KEY: sandbox-api-key", "--header=DD-APPLICATION-KEY: sandbox-app-key"]
TOKEN = ["--header=Authorization: Bearer sandbox-token"]
LIMITED = {
    "rate_limit": "100000/1h",
    "faults": [f"{name}:3%" for name in ("429", "429-retry-after", "429-no-hint")],
    "fault_seed": 1,
}


def test_it_is_an_openapi_document() -> None:
    """The document is valid OpenAPI 3.1, and its only server is its own origin."""
    document = json.loads(json.dumps(openapi.document()))
    OpenAPIV31SpecValidator(document).validate()
    assert document["servers"] == [{"url": "/"}]


@pytest.mark.parametrize(
    ("credentials", "options"),
    [
        pytest.param(KEYS, {}, id="as known"),
        pytest.param(TOKEN, {**LIMITED, "duplicates": "conflict", "error_format": "strings"}, id="strings"),
        pytest.param(TOKEN, {**LIMITED, "buckets": "separate", "error_format": "objects"}, id="objects"),
    ],
)
async def test_the_sandbox_responds_as_the_document_says(
    credentials: list[str], options: dict[str, Any], tmp_path: Path
) -> None:
    """Schemathesis finds no undocumented response and no accepted invalid request."""
    async with Sandbox(seed="demo", **options) as sandbox:
        process = await asyncio.create_subprocess_exec(
            *(*SCHEMATHESIS, *credentials, f"{sandbox.url}/openapi.json"),
            cwd=tmp_path,  # it keeps what it found there
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), MAX_SECONDS)
        except BaseException:
            process.kill()
            await process.wait()
            raise
        seen = {(request.method, request.status) for request in sandbox.requests}
    assert process.returncode == 0, out.decode()
    assert seen >= {("POST", 201), ("POST", 400), ("GET", 200), ("GET", 401), ("DELETE", 204)}
