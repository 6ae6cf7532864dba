"""A headless Chromium, told through a pipe what to open: sizes, light and dark, what it complains of, pictures."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
VIEWS = [(width, scheme) for width in (1300, 400) for scheme in ("light", "dark")]

LOOK = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")  # two functions: overflowing(), unreadable()


class Browser:
    """One browser with one page; `complaints`: what went to the page's console as a warning or an error."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        reads_here, writes_there = os.pipe()
        reads_there, writes_here = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        program = f'exec "$@" 3<&{reads_there} 4>&{writes_there}'
        command = ["bash", "-c", program, "chromium", CHROMIUM, *options, "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(reads_there, writes_there), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(reads_there)
        os.close(writes_there)
        self._reads, self._writes = os.fdopen(reads_here, "rb"), os.fdopen(writes_here, "wb")
        self._number, self._rest = 0, b""
        self._session: str | None = None
        self.complaints: list[str] = []
        page = next(one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writes.write(json.dumps(message).encode() + b"\0")
        self._writes.flush()
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found.get('error')}"
                return found["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._reads.fileno(), 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        one, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(one)
        self._listen(message.get("method"), message.get("params", {}))
        return message

    def _listen(self, method: str | None, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent" and not said["request"]["url"].startswith(
            ("file:", "data:", "about:")
        ):
            self.complaints.append(f"asks the network for {said['request']['url']}")

    def open(self, path: Path, width: int = 1300, scheme: str = "light", height: int = 1000) -> None:
        """Open a file in a window of this width, for eyes that want it light or dark."""
        self.complaints = []
        phone = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=path.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def value(self, expression: str) -> Any:
        """What a line of JavaScript gives in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, selector: str, *kinds: str) -> None:
        """Move the mouse onto the first that is selected, and do this there (mousePressed, mouseReleased); no selector:
        to the corner."""
        middle = "(one => (one.scrollIntoView({block: 'center'}), one.getBoundingClientRect()))"
        found = f"{middle}(document.querySelector({json.dumps(selector)}))"
        place = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found})"
        x, y = self.value(place) if selector else (1, 1)
        for kind in ("mouseMoved", *kinds):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def problems(self) -> list[str]:
        """What is wrong with the page as it is shown: complaints, overflow, text that cannot be read."""
        found: list[str] = self.value(f"(() => {{ {LOOK}; return [...overflowing(), ...unreadable()]; }})()")
        return [*self.complaints, *found]

    def picture(self, path: Path, whole: bool = False) -> None:
        """What is seen, or the whole page, as PNG."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        try:
            self.ask("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(timeout=30)
        self._reads.close()
        self._writes.close()
