"""Sends pages to a browser on this machine, and accepts no data from it.

Only this machine reaches the server, because the server listens on the loopback address. A page of another site in the
browser could still send requests to that address under a host name of its own (DNS rebinding); therefore the Host
header must be a name of the loopback address.
"""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from energylens import __version__
from energylens.cli.site.site import Site

LOOPBACK = "127.0.0.1"
_NAMES = (LOOPBACK, "localhost")
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    # Pages have one style sheet of their own, no scripts, and nothing from other servers.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STALLED_SECONDS = 30.0
"""Seconds after which a connection without a request is closed."""


class SiteServer(ThreadingHTTPServer):
    """A server of a site on a port of the loopback address."""

    daemon_threads = True

    def __init__(self, site: Site, port: int) -> None:
        """Listen on a port.

        Args:
            site: The site that makes the pages.
            port: The port; 0 for any free one.

        Raises:
            OSError: The port is not available.
        """
        self.site = site
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def url(self) -> str:
        """Address of the first page."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the Host header of a browser that was given the address of this server."""
        return frozenset(f"{name}:{self.server_address[1]}" for name in _NAMES)


class _Handler(BaseHTTPRequestHandler):
    server: SiteServer
    protocol_version = "HTTP/1.1"
    server_version = f"energylens/{__version__}"
    sys_version = ""
    timeout = _STALLED_SECONDS

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "The Host header names another server")
            return
        found = self.server.site.answer(urlsplit(self.path).path)
        content = found.html.encode()
        self.send_response(found.status)
        for name, value in {**_HEADERS, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the pages say what cannot be read."""
