"""A real web server for the reader tests: with and without ranges, and one that breaks off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What a server serves, and how. `asked` are the ranges (or "all") that were asked for; `status` is all it says."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    sized: bool = True
    etag: str = '"1"'
    fail_next: int = 0
    status: int = 0
    address: str = ""
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        site, path = self.site, self.path.partition("?")[0]
        if body and site.fail_next:
            site.fail_next -= 1
            self.send_error(503)
            return
        if site.status:
            self.send_error(site.status)
            return
        if path not in site.files:
            self.send_error(404)
            return
        data, wanted = site.files[path], self.headers.get("Range")
        if body:
            site.asked.append(wanted or "all")
        if wanted and site.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
            data = part
        else:
            self.send_response(200)
        if site.sized:
            self.send_header("Content-Length", str(len(data)))
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(**files: bytes) -> Iterator[Site]:
    """A server on this machine."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    site.files = {f"/{name.replace('__', '.')}": data for name, data in files.items()}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
