# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium by its DevTools protocol: what the page asks for, what it complains about, what it shows."""
import asyncio
import base64
import json
import pathlib
import shutil
import subprocess
import threading

import websockets

from .client import fetch
from .util import DEADLINE, wait_until

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars",
         "--disable-default-apps", "--no-default-browser-check", "--lang=en-US", "--force-color-profile=srgb"]


class Browser:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", PROGRAM, *FLAGS, f"--user-data-dir={self.directory}", "--remote-debugging-port=0",
             "about:blank"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        port_file = self.directory / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and "\n" in port_file.read_text(), "chromium to listen", 120)
        port = int(port_file.read_text().split()[0])
        targets = wait_until(lambda: [t for t in json.loads(fetch(port, "GET", "/json/list", host=f"127.0.0.1:{port}").body)
                                      if t["type"] == "page"], "a page")
        self.next, self.answers, self.events = 0, {}, []
        self.ws = self._run(lambda: websockets.connect(targets[0]["webSocketDebuggerUrl"], max_size=None))
        asyncio.run_coroutine_threadsafe(self._listen(), self.loop)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def _run(self, make):
        async def run():  # made inside: it belongs to the loop it is made in
            return await make()
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE)

    async def _listen(self):
        try:
            async for text in self.ws:
                message = json.loads(text)
                if "id" in message:
                    self.answers.pop(message["id"]).set_result(message)
                else:
                    self.events.append(message)
        except websockets.ConnectionClosed:
            pass

    def call(self, method, **params):
        async def run():
            self.next += 1
            answer = self.answers[self.next] = self.loop.create_future()
            await self.ws.send(json.dumps({"id": self.next, "method": method, "params": params}))
            return await answer
        message = asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    # -- the page --

    def open(self, url):
        self.call("Page.navigate", url=url)
        return self

    def js(self, expression):
        r = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in r, r["exceptionDetails"]
        return r["result"].get("value")

    def wait(self, expression, what=None):
        return wait_until(lambda: self.js(expression), what or expression)

    def view(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        return self

    def key(self, name, shift=False):
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(name)
        more = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name if name != " " else "Space",
                      windowsVirtualKeyCode=codes[name], modifiers=8 if shift else 0, **(more if kind == "keyDown" else {}))

    def screenshot(self, path=None, whole=False):
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])
        if path:
            pathlib.Path(path).write_bytes(data)
        return data

    # -- what it did --

    def complaints(self):
        """Errors and warnings of the console, exceptions, violations of the content security policy."""
        out = []
        for e in list(self.events):
            p = e["params"]
            if e["method"] == "Runtime.exceptionThrown":
                out.append(str(p["exceptionDetails"]))
            elif e["method"] == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning", "assert"):
                out.append(str(p["args"]))
            elif e["method"] == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
                out.append(f"{p['entry']['text']} {p['entry'].get('url', '')}")
        return out

    def requests(self):
        return [e["params"]["request"]["url"] for e in list(self.events) if e["method"] == "Network.requestWillBeSent"]

    def close(self):
        try:
            self._run(self.ws.close)
        finally:
            self.process.terminate()
            self.process.wait(DEADLINE)
            self.loop.call_soon_threadsafe(self.loop.stop)
