"""What stands between the network and the explorer: a token, the paths that are answered, and headers."""

from __future__ import annotations

import hmac
import re
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse

__all__ = ["Gate"]

_COOKIE = "formulavision-token"
_LARGEST_REQUEST = 1_000_000
"""Bytes. The largest that a page sends are the settings of a recipe."""

_ANSWERED = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.*"
    r"|/gradio_api/(startup-events|info|app_id|theme\.css|cancel|reset)/?"
    r"|/gradio_api/queue/(join|data)|/gradio_api/heartbeat/[a-z0-9]+"
)
"""Paths that the pages need. Gradio's others read files, take uploads, fetch addresses and show statistics."""

_HEADERS = [
    # A page loads nothing from elsewhere. Gradio's scripts are inline and compile templates.
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'self'; form-action 'self'",
    ),
    (b"referrer-policy", b"no-referrer"),  # an address may hold the token
    (b"x-content-type-options", b"nosniff"),
]


class Gate:
    """An ASGI application in front of another.

    Args:
        app: the application.
        token: text that a visitor's first address must hold, ``?token=...``; a cookie then holds it. None: everybody
            is let in.
        hosts: names of the server that are answered; None: all. On the loopback address a page of another site, whose
            name leads to this machine, could otherwise read the explorer.
    """

    def __init__(self, app: Any, token: str | None = None, hosts: frozenset[str] | None = None) -> None:
        self.app = app
        self.token = token
        self.hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer or refuse a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        answer = self._refusal(HTTPConnection(scope)) or self.app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: HTTPConnection) -> Any:
        """The answer to a request that is not passed on; None where it is."""
        if self.hosts is not None and (request.url.hostname or "") not in self.hosts:
            return PlainTextResponse("this explorer is for this machine: http://127.0.0.1\n", 403)
        if self.token is not None:
            given = parse_qs(request.url.query).get("token", [""])[0]
            if self._is_token(given):
                answer = RedirectResponse(request.url.path)  # an address that is copied does not hold the token
                answer.set_cookie(_COOKIE, self.token, httponly=True, samesite="lax")
                return answer
            if not self._is_token(request.cookies.get(_COOKIE, "")):
                return PlainTextResponse("this explorer needs the address with its token, which it printed\n", 401)
        if not _ANSWERED.fullmatch(request.url.path):
            return PlainTextResponse("there is nothing here\n", 404)
        length = request.headers.get("content-length")
        chunked = "transfer-encoding" in request.headers
        if chunked or (length is not None and not (length.isdigit() and int(length) <= _LARGEST_REQUEST)):
            return PlainTextResponse(f"a request has at most {_LARGEST_REQUEST:,} bytes, and says how many\n", 413)
        return None

    def _is_token(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode(), self.token.encode())
