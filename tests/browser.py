"""A headless Chromium, driven through the WebDriver protocol of the system's chromedriver."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from urllib.error import URLError

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""How the protocol names a reference to an element."""

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-proxy-server", "--disable-background-networking", "--hide-scrollbars"),
)


def find_browser():
    """Paths of browser and driver; None if one of them is missing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """One window, closed at the end of a `with` block.

    Args:
        folder: of its profile.
        size: width and height of the page, in pixels.
    """

    def __init__(self, folder, size=(1280, 1000)):
        browser, driver = find_browser()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self._address.rpartition(":")[2]
        self._process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        profile = f"--user-data-dir={folder}"
        options = {"binary": browser, "args": [*ARGUMENTS, profile]}
        asked = {"browserName": "chrome", "goog:chromeOptions": options}
        session = self._patiently("POST", "/session", {"capabilities": {"alwaysMatch": asked}})
        self._session = f"/session/{session['sessionId']}"
        self.resize(*size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", self._session)
        finally:
            self._process.terminate()
            self._process.wait(timeout=30)

    def resize(self, width, height):
        """Sets the size of the page, as of a device; windows cannot be as narrow as a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self._call("POST", f"{self._session}/goog/cdp/execute", command)

    def open(self, url):
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script, *arguments):
        """Returns what JavaScript returns."""
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def wait_for(self, condition, seconds=60):
        """Waits until an expression of JavaScript is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (found := self.run(f"return {condition}")):
            assert time.monotonic() < end, f"{condition} is still {found!r}: {self.text('body')}"
            time.sleep(0.05)
        return found

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText", selector)

    def click(self, selector, across=0.5, down=0.5):
        """Clicks an element as a mouse does, at shares of its width and height."""
        element = self._find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        width, height = self.run(
            "const r = arguments[0].getBoundingClientRect(); return [r.width, r.height]", element
        )
        offset = {"x": round((across - 0.5) * width), "y": round((down - 0.5) * height)}
        move = {"type": "pointerMove", "origin": element, "duration": 0, **offset}
        press = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        mouse = {"type": "pointer", "id": "mouse", "actions": [move, *press]}
        self._call("POST", f"{self._session}/actions", {"actions": [mouse]})

    def type(self, selector, text):
        """Types into an element; for one that takes files, the path of a file."""
        element = self._find(selector)[ELEMENT]
        self._call("POST", f"{self._session}/element/{element}/value", {"text": str(text)})

    def choose(self, selector, value):
        """Chooses an option or sets a value, as if by hand."""
        self.run(
            "const it = document.querySelector(arguments[0]); it.value = arguments[1];"
            "for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind));",
            *(selector, value),
        )

    def screenshot(self):
        """A PNG of the whole page."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return window.innerWidth")
        shown = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        params = {"format": "png", "captureBeyondViewport": True, "clip": shown}
        command = {"cmd": "Page.captureScreenshot", "params": params}
        found = self._call("POST", f"{self._session}/goog/cdp/execute", command)
        return base64.b64decode(found["data"])

    def _find(self, selector):
        body = {"using": "css selector", "value": selector}
        return self._call("POST", f"{self._session}/element", body)

    def _patiently(self, *arguments):
        """Calls a driver that may not listen yet."""
        for _ in range(100):
            try:
                return self._call(*arguments)
            except (ConnectionError, URLError) as error:
                if hasattr(error, "code"):
                    raise
                time.sleep(0.1)
        raise AssertionError("the driver does not answer")

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]
