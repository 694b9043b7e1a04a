"""A headless Chromium for tests, driven by chromedriver's HTTP interface; needs nothing but the two programs."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import Request, urlopen

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver names an element."""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions"
)
KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Escape": "\ue00c", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014"}
KEYS |= {"Down": "\ue015", "End": "\ue010", "Home": "\ue011"}


def missing() -> str | None:
    """Why no browser can be started; None where one can."""
    programs = {"chromedriver": ("chromedriver",), "Chromium": ("chromium", "chromium-browser", "google-chrome")}
    absent = [name for name, names in programs.items() if not any(map(shutil.which, names))]
    return f"{' and '.join(absent)} not installed" if absent else None


class Browser:
    """One window. ``profile`` is an empty folder that it may fill."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self.driver.stdout is not None
        started = re.compile(r"started successfully on port (\d+)")
        port = next(found[1] for line in self.driver.stdout if (found := started.search(line)))
        self.address = f"http://127.0.0.1:{port}/session"
        flags = [*FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        wanted = {
            "goog:chromeOptions": {"args": flags, "perfLoggingPrefs": {"enableNetwork": True}},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/{made['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ending: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(10)

    def _ask(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, content, {"Content-Type": "application/json"}, method=verb)
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        self._ask("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript function body."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": arguments})

    def eventually(self, script: str, *arguments: Any, seconds: float = 10) -> bool:
        """Whether the value of a function body becomes true within so many seconds."""
        until = time.monotonic() + seconds
        while not self.run(script, *arguments):
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def click(self, selector: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/value", {"text": KEYS.get(text, text)})

    def press(self, key: str) -> None:
        """A key, to whatever has the focus."""
        presses = [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def told(self) -> list[str]:
        """What the console has said since the last question."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Every address that was asked for since the last question."""
        told = self._ask("POST", "/se/log", {"type": "performance"})
        entries = [json.loads(one["message"])["message"] for one in told]
        return [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]

    def tools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path: Path, whole: bool = False) -> None:
        """The window, or the whole page, as PNG."""
        taken = self.tools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _find(self, selector: str) -> str:
        return self._ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
