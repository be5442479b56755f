"""A page in headless Chromium, driven from a test: load it, press keys, run JavaScript in it, take a screenshot.

It speaks the DevTools protocol over two pipes (file descriptors 3 and 4 of the browser: JSON, with a zero byte between messages), so
nothing but the browser has to be installed. https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

TIMEOUT = 60            # seconds without a message, after which the browser counts as hung


def chromium():
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Page:
    """One page: `with Page(folder, width, height) as page:`, where `folder` is for the browser's own files.

    Attributes: console, the messages on the page's console and every exception in it; requests, the URLs that it loaded.
    """

    def __init__(self, folder, width=1280, height=900):
        self.folder, self.size = folder, (width, height)
        self.console: list[str] = []
        self.requests: list[str] = []
        self.number, self.buffer, self.session = 0, b"", None

    def __enter__(self):
        read_by_browser, self.writes = os.pipe()
        self.reads, written_by_browser = os.pipe()

        def connect_pipes():                                # in the child process: its ends as descriptors 3 and 4
            high = os.dup(read_by_browser), os.dup(written_by_browser)
            for here, there in zip(high, (3, 4), strict=True):
                os.dup2(here, there)
        self.process = subprocess.Popen(
            [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
             "--hide-scrollbars", "--disable-background-networking",
             "--disable-dev-shm-usage", f"--user-data-dir={self.folder}", "about:blank"],
            preexec_fn=connect_pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(read_by_browser)
        os.close(written_by_browser)
        target = next(t for t in self.command("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")
        self.resize(*self.size)
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        os.close(self.reads)
        os.close(self.writes)

    def command(self, method, **params):
        """Send one command of the protocol; returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **({"sessionId": self.session} if self.session else {})}
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            reply = self.receive()
            if reply.get("id") == self.number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                return reply["result"]
            self.handle_event(reply)

    def receive(self):
        """The next message from the browser."""
        end = time.monotonic() + TIMEOUT
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reads], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self.reads, 1 << 20) if ready else b""
            if not chunk:
                raise RuntimeError("the browser has exited, or hangs")
            self.buffer += chunk
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def handle_event(self, event):
        """Record console messages, exceptions and requests."""
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, path, fragment=""):
        """Load a file, and wait until it is complete. `fragment`: "#..." of its address."""
        self.command("Page.navigate", url=pathlib.Path(path).resolve().as_uri() + fragment)
        end = time.monotonic() + TIMEOUT
        while self.run("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end
            time.sleep(0.01)

    def run(self, expression):
        """The value of a JavaScript expression."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def press(self, key, code=0):
        """Press and release a key, by its name: ArrowDown, Tab."""
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, nativeVirtualKeyCode=code)

    def resize(self, width, height):
        """The size of the window, in pixels."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def screenshot(self, path, whole=True):
        """Write a screenshot as a PNG; `whole`: of all of the page, else of the window."""
        data = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        pathlib.Path(path).write_bytes(base64.b64decode(data["data"]))
