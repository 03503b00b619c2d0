"""Chromium without a window, driven by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root in a container
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
)
# The protocol's pipes are the descriptors 3 and 4 of the browser. They are copied above 9 first,
# so that neither is closed by what is put there.
START = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
TIMEOUT_S = 90.0


class Browser:
    """A browser with one page.

    Attributes:
        problems: Console errors, warnings of the browser, exceptions that nobody caught.
        requests: Every address that the page asked for.
    """

    def __init__(self) -> None:
        assert CHROMIUM
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", START, str(read), str(write)),
                *(CHROMIUM, *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"),
            ],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._received, self._last = b"", 0
        self._session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def open(self, page: Path, *, width: int, dark: bool, height: int = 900) -> None:
        """Load a file, and wait until its script says that it is ready."""
        self.problems, self.requests = [], []
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=page.as_uri())
        self.until("document.documentElement.dataset.ready === 'yes'")

    def until(self, condition: str) -> None:
        """Wait, frame by frame, until a JavaScript expression is true."""
        self.value(
            "new Promise((done) => { const look = () => { let met = false;"
            f" try {{ met = Boolean({condition}); }} catch {{}}"
            " if (met) done(true); else requestAnimationFrame(look); }; look(); })"
        )

    def value(self, expression: str) -> Any:
        """What a JavaScript expression, or its promise, gives."""
        found = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def move(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        found = self.send("Page.captureScreenshot", captureBeyondViewport=full, **self._clip(full))
        path.write_bytes(base64.b64decode(found["data"]))

    def _clip(self, full: bool) -> dict[str, Any]:
        if not full:
            return {}
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def close(self) -> None:
        """End the browser, and wait for it."""
        self._session = None
        try:
            self.send("Browser.close")
        except (OSError, EOFError):  # TimeoutError is an OSError
            self._process.kill()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something; the events that arrive meanwhile are noted."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"the browser did not answer within {TIMEOUT_S:.0f} s")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._received += part
        line, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def _note(self, event: str, found: Mapping[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(found["exceptionDetails"])[:500])
        elif event == "Runtime.consoleAPICalled" and found["type"] in ("error", "assert"):
            self.problems.append(json.dumps(found["args"])[:500])
        elif event == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.problems.append(json.dumps(found["entry"])[:500])
        elif event == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"][:200])
