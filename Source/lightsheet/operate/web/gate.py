"""Who may ask: this page, by the address it was opened by. Other sites in the same browser may not.

A page of another site can make a browser send requests to this machine, and by a name of its own that leads
here (DNS rebinding) read the answers. So the host that a request names has to be one of this server, one
that changes something must come from this page (Origin, and a header that forms can't send), and of a server
that other machines reach, all need its key.
"""

import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from lightsheet.operate.web.settings import LOOPBACK, ServeSettings

HEADER = "x-lightsheet"
_COOKIE = "lightsheet_key"
_SAFE = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Next = Callable[[Request], Awaitable[Response]]


class Gate:
    """Lets requests pass that come from this page.

    Parameters
    ----------
    settings : of the server
    key : that is asked for where other machines reach the page; None: a new one
    """

    def __init__(self, settings: ServeSettings, key: str | None = None) -> None:
        self.key = (key or secrets.token_urlsafe(24)) if settings.asks_for_key else ""
        self._hosts = {*LOOPBACK, settings.host} if settings.host not in ("0.0.0.0", "::") else None

    async def __call__(self, request: Request, call_next: Next) -> Response:
        """Answer a request, or say why not."""
        refused = self._why_not(request)
        if refused:
            answer: Response = JSONResponse({"error": refused}, 403)
        elif self.key and request.query_params.get("key") == self.key and request.method == "GET":
            answer = RedirectResponse(
                str(request.url.remove_query_params("key").replace(scheme="", netloc=""))
            )
            answer.set_cookie(_COOKIE, self.key, httponly=True, samesite="strict")
        else:
            answer = await call_next(request)
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    def _why_not(self, request: Request) -> str:
        host = request.headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self._hosts is not None and name not in self._hosts:
            return "expected the address of this server, got a request by another name"
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "expected a request of this page, got one of another site"
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "expected a request of this page, got one of another site"
        if request.method not in _SAFE and request.headers.get(HEADER) != "1":
            return f"expected the header {HEADER}: 1 of this page, got none"
        given = request.cookies.get(_COOKIE) or request.query_params.get("key") or ""
        if self.key and not secrets.compare_digest(given, self.key):
            return "expected the key of this server (the address that it printed has it), got none or another"
        return ""
