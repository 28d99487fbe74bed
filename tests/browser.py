"""A headless Chromium, driven over a pipe by its own protocol: nothing to install beside the browser."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars --mute-audio".split()
ANSWER_S = 60.0


def unpacked(page: str, name: str) -> bytes:
    """Of a viewer's file: what it packs under a name, `library`, `first` or `rest`."""
    found = re.search(f'id="{name}">(.*?)<', page)
    assert found
    return gzip.decompress(base64.b64decode(found[1]))


def part(page: str, name: str) -> dict[str, Any]:
    """Values of the figure's, `first` or `rest`, with its arrays."""
    content = unpacked(page, name)
    start = 4 + int.from_bytes(content[:4], "little")

    def with_arrays(value: dict[str, Any]) -> Any:
        if "array" not in value:
            return value
        kind = value["array"].removesuffix("Array").lower()
        return np.frombuffer(content, kind, value["length"], start + value["at"])

    return json.loads(content[4:start], object_hook=with_arrays)


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of a browser of its own. A context."""

    def __init__(self, browser: str, folder: Path, size_wh: tuple[int, int] = (1280, 800)) -> None:
        """folder: for the browser's own files."""
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        os.set_blocking(self._answers, False)
        flags = [*FLAGS, f"--window-size={size_wh[0]},{size_wh[1]}", f"--user-data-dir={folder}"]
        self._process = subprocess.Popen(
            # The protocol speaks through descriptors 3 and 4.
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", browser, *flags, "--remote-debugging-pipe"],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._number, self._buffer, self._session = 0, b"", ""
        self.complaints: list[str] = []  # errors and warnings of the console, and what was thrown
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S
        while (answer := self._next(deadline)).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if time.monotonic() > deadline:
                raise TimeoutError("the browser does not answer")
            try:
                self._buffer += os.read(self._answers, 1 << 20)
            except BlockingIOError:
                assert self._process.poll() is None, "the browser has died"
                time.sleep(0.005)
        answer, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(answer)

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(told["args"]))
        elif event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(str(told["entry"]))

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.resolve().as_uri())

    def value(self, expression: str) -> Any:
        """What a line of JavaScript, or the promise it gives, comes to."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait_for(self, expression: str, until: Callable[[Any], object] = bool, seconds: float = ANSWER_S) -> Any:
        """The expression's value, as soon as it is what it should be."""
        deadline = time.monotonic() + seconds
        while True:
            value = self.value(expression)
            if until(value):
                return value
            assert time.monotonic() < deadline, f"{expression} is still {value}"
            time.sleep(0.05)

    def mouse(self, kind: str, x: float, y: float, held: bool = False, clicks: int = 0) -> None:
        """kind: Moved, Pressed, Released."""
        button = "left" if held or kind != "Moved" else "none"
        self.call(
            "Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button=button, buttons=int(held),
            clickCount=clicks,
        )  # fmt: skip

    def click(self, x: float, y: float) -> None:
        self.mouse("Moved", x, y)
        time.sleep(0.3)  # as a hand does: plotly looks what lies under it
        self.mouse("Pressed", x, y, held=True, clicks=1)
        self.mouse("Released", x, y, clicks=1)

    def screenshot(self) -> bytes:
        """PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
