"""A Hugging Face hub on this machine, as far as a download asks it: the embedded model under several names."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from stages.core.model import demo_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    str(path.relative_to(demo_folder())): path
    for path in sorted(demo_folder().rglob("*"))
    if path.suffix in (".json", ".xml", ".bin")
}
REFUSED = {"org/gated": (403, "GatedRepo"), "org/nosuch": (404, "RepoNotFound"), "org/down": (503, "")}
"""Status and error code for these names; others are the embedded model."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main", "tree" in parts[4:5])
        else:
            self._send_file("/".join(parts[4:]))

    def _describe(self, name: str, revision: str, tree: bool) -> None:
        status, code = REFUSED.get(name, (200, ""))
        if revision not in ("main", COMMIT):
            status, code = 404, "RevisionNotFound"
        files = [file for file in FILES if name != "org/torch" or "openvino" not in file]
        if tree:  # what newer versions of huggingface_hub ask for
            listed = [{"type": "file", "path": file, "size": FILES[file].stat().st_size, "oid": "0"} for file in files]
            self._answer(json.dumps(listed).encode(), status, {"X-Error-Code": code} if code else {})
            return
        found = {"id": name, "sha": COMMIT, "private": False, "siblings": [{"rfilename": file} for file in files]}
        self._answer(json.dumps(found).encode(), status, {"X-Error-Code": code} if code else {})

    def _send_file(self, name: str) -> None:
        content = FILES[name].read_bytes()
        if self.command == "GET":
            self.server.sent.append(name)
        etag = hashlib.sha256(content).hexdigest()
        self._answer(content, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    sent: list[str]


class HfHub:
    """Serves until the end of the block; HF_ENDPOINT=`address` leads a download here."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.sent: list[str] = []
        """Names of the files that were fetched."""
        self._server.sent = self.sent
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
