"""A web server on this machine that breaks off, forgets and refuses as real ones do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, how badly, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    """How many bytes each of the next answers sends before the line breaks."""
    statuses: list[int] = field(default_factory=list)
    """What the next requests are answered with instead."""
    ranges: bool = True
    pause: threading.Event | None = None
    """When set, an answer waits for it after half its bytes."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the test."""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve until the block ends."""
    server = _Server(("127.0.0.1", 0), _handler(site))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            site.asked.append((self.path, dict(self.headers)))
            if site.statuses:
                self._empty(site.statuses.pop(0))
            elif self.path in site.redirects:
                self._empty(302, Location=site.redirects[self.path])
            elif self.path not in site.files:
                self._empty(404)
            else:
                self._file()

        def _empty(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _file(self) -> None:
            content, tag = site.files[self.path], site.tags.get(self.path, '"one"')
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if self.headers.get("If-Range", tag) != tag:
                wanted = None
            start = int(wanted[1]) if wanted and site.ranges else 0
            if start >= len(content) > 0:
                self._empty(416, **{"Content-Range": f"bytes */{len(content)}"})
                return
            self.send_response(206 if start else 200)
            if start:
                whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", whole)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + site.breaks.pop(0) if site.breaks else len(content)
            half = (start + end) // 2
            self.wfile.write(content[start:half])
            self.wfile.flush()
            if site.pause is not None:
                site.pause.wait(20)
            self.wfile.write(content[half:end])

    return Handler
