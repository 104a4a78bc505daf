"""Headless Chromium, controlled by the DevTools protocol, for tests that need a browser."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MAX_SECONDS = 60.0


class Tab:
    """A page in the browser. ``problems`` has its logged errors, including policy violations."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self.problems: list[str] = []
        self.requests: list[str] = []

    async def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    async def open(self, address: str, *, width: int, height: int, dark: bool = False) -> None:
        """Open a page in a window of the given size in pixels."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        await self.send(
            "Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in features.items()]
        )
        await self.send("Page.navigate", url=address)
        while (await self._next()).get("method") != "Page.loadEventFired":
            pass

    async def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression after the page has been drawn with its effects."""
        two_frames = "requestAnimationFrame(() => requestAnimationFrame(() => done(made)))"
        drawn = f"new Promise(done => {{ const made = {expression}; {two_frames}; }})"
        answer = await self.send("Runtime.evaluate", expression=drawn, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def click(self, selector: str) -> None:
        """Click the middle of an element."""
        at = await self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **at
            )

    async def drag(self, selector: str, x: float, y: float) -> None:
        """Drag an element by the given distance."""
        at = await self.middle(selector)
        to = {"x": at["x"] + x, "y": at["y"] + y}
        for kind, where in (("mousePressed", at), ("mouseMoved", to), ("mouseReleased", to)):
            await self.send(
                "Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **where
            )

    async def middle(self, selector: str) -> dict[str, float]:
        """Return the position of an element's middle in the window."""
        box = await self.value(
            f"(e => e.getBoundingClientRect().toJSON())(document.querySelector({json.dumps(selector)}))"
        )
        return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}

    async def press(self, key: str) -> None:
        """Press a key on the focused element."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, **text)

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(MAX_SECONDS):
            message: dict[str, Any] = await self._socket.receive_json()
        match message:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.problems.append(str(details))
            case {"method": "Runtime.consoleAPICalled" | "Log.entryAdded", "params": said}:
                self.problems.append(str(said))
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                self.requests.append(url)
        return message


@contextlib.asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Tab]:
    """Start a browser with an empty profile, yield its tab, and close it."""
    assert FOUND
    process = await asyncio.create_subprocess_exec(
        FOUND,
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr
        async with asyncio.timeout(MAX_SECONDS):
            while not (line := await process.stderr.readline()).startswith(b"DevTools listening on "):
                assert line, "the browser has ended"
        port = line.decode().split("127.0.0.1:")[1].partition("/")[0]
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                address = next(
                    each["webSocketDebuggerUrl"] for each in await answer.json() if each["type"] == "page"
                )
            async with http.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                yield tab
                await tab.send("Browser.close")
                await process.wait()  # any other end leaves folders behind
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
