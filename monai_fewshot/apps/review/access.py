# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

__all__ = ["HEADERS", "AccessByToken"]

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""What every answer carries: nothing is loaded from elsewhere, shown in a frame, kept, or told to others."""

NO_ACCESS = "This page needs the token in its address: open the address that monai-fewshot review has printed."
OTHER_ORIGIN = "A change is taken from the page of this server alone."
SAFE_METHODS = ("GET", "HEAD")

Send = Callable[[dict[str, Any]], Awaitable[None]]


class AccessByToken:
    """Middleware of a server that lets in only those who know its token.

    The token stands in the address at first, and is then kept in a cookie that no script can read and that the browser
    does not send for pages of another site. Pages of other servers on this machine count as the same site; therefore a
    change also needs this server's own origin.

    Args:
        app: what is served, of ASGI.
        token: that lets in.
    """

    def __init__(self, app: Any, token: str) -> None:
        self.app = app
        self.token = token
        self.cookie = f"review_{hashlib.sha256(token.encode()).hexdigest()[:12]}"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        in_address = self._is_token(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0])
        if not in_address and not self._is_token(self._of_cookie(headers.get("cookie", ""))):
            await _refuse(send, NO_ACCESS)
        elif scope["method"] not in SAFE_METHODS and headers.get("origin") != f"http://{headers.get('host')}":
            await _refuse(send, OTHER_ORIGIN)
        else:
            await self.app(scope, receive, self._with_headers(send, in_address))

    def _is_token(self, word: str) -> bool:
        return secrets.compare_digest(word.encode(), self.token.encode())

    def _of_cookie(self, header: str) -> str:
        try:
            cookie = SimpleCookie(header)
        except CookieError:
            return ""
        return cookie[self.cookie].value if self.cookie in cookie else ""

    def _with_headers(self, send: Send, in_address: bool) -> Send:
        async def send_more(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                more = {**HEADERS, "Set-Cookie": cookie} if in_address else HEADERS
                message = {**message, "headers": [*message.get("headers", []), *_encoded(more)]}
            await send(message)

        return send_more


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _refuse(send: Send, text: str) -> None:
    headers = {**HEADERS, "Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(text.encode()))}
    await send({"type": "http.response.start", "status": 403, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": text.encode()})
