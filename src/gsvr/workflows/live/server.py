"""The page that shows examinations as they go on. It only reads: there is nothing to be changed, whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gsvr.errors import InputError
from gsvr.io.dicom.installed import require
from gsvr.io.record import to_plain
from gsvr.report.niivue import BUNDLE
from gsvr.report.page import templates
from gsvr.workflows.live.examination import Latest, LiveExamination
from gsvr.workflows.live.planes import PlaneView, middle_of, picture, uncertainty_scale, window_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)

# Files of an examination that may be fetched, under these names alone.
_FILES = {
    "volume.nii.gz": "application/octet-stream",
    "mask.nii.gz": "application/octet-stream",
    "report.html": "text/html",
    "record.json": "application/json",
    "poses.json": "application/json",
    "events.jsonl": "text/plain",
}
# Events that wait for one reader; who is slower than that is sent away and may come back.
_MOST_WAITING = 5000
_MOST_CONNECTIONS = 64
_HEARTBEAT = 10.0
_COOKIE = "gsvr_token"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src blob:; "
        "connect-src 'self' blob: data:; script-src 'self' 'wasm-unsafe-eval'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Examinations = Callable[[], Mapping[str, LiveExamination]]


@dataclass(frozen=True)
class ServerOptions:
    """Where the page is, and for whom.

    Attributes
    ----------
    port
        0: one that is free.
    host
        Address to listen on.
    token
        What a visitor has to know: in the address, as ``?token=...``. Needed where others than this machine can ask.
    backend
        That draws.

    Raises
    ------
    InputError
        If others could see the page and there is no token, or it is easy to guess.
    """

    port: int
    host: str = "127.0.0.1"
    token: str | None = None
    backend: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"`http_port` must be between 0 and 65535, not {self.port}")
        if self.token is None and not _is_loopback(self.host):
            raise InputError(f"`http_host` {self.host} can be reached by others: give an `http_token` as well")
        if self.token is not None and len(self.token) < 12:
            raise InputError("the `http_token` is easy to guess: give at least 12 characters")


class PageServer:
    """Serves the page from a thread of its own.

    Parameters
    ----------
    examinations
        Those to show, by name.

    Raises
    ------
    InputError
        If the port is taken.
    InstallationError
        If the packages for it are missing.
    """

    def __init__(self, options: ServerOptions, examinations: Examinations) -> None:
        for package in ("starlette", "uvicorn"):
            require(package, "live")
        import uvicorn

        self._socket = _bound(options)
        port = self._socket.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.address = f"http://{host}:{port}/" + ("" if options.token is None else f"?token={options.token}")
        config = uvicorn.Config(
            application(options, examinations),
            log_level="warning",
            access_log=False,  # an address may hold the token
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        run = {"sockets": [self._socket]}
        self._thread = threading.Thread(target=self._server.run, kwargs=run, name="page", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.should_exit = True
        self._thread.join(5.0)
        self._socket.close()


def application(options: ServerOptions, examinations: Examinations) -> Starlette:
    """The page as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.routing import Route

    pages = _Pages(options, examinations)
    routes = [
        Route("/", pages.page),
        Route("/live.js", pages.script),
        Route("/niivue.js", pages.niivue),
        Route("/examinations", pages.examinations),
        Route("/examinations/{name}/state", pages.state),
        Route("/examinations/{name}/events", pages.events),
        Route("/examinations/{name}/plane.png", pages.plane),
        Route("/examinations/{name}/{file}", pages.file),
    ]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guard(options))])


class _Pages:
    """What is answered; methods that draw or read are called in threads."""

    def __init__(self, options: ServerOptions, examinations: Examinations) -> None:
        self._options, self._examinations = options, examinations

    def page(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse

        return HTMLResponse(templates().get_template("live.html").render())

    def script(self, request: Request) -> Response:
        from starlette.responses import Response

        return Response(templates().get_template("live.js").render(), media_type="text/javascript")

    def niivue(self, request: Request) -> Response:
        from starlette.responses import Response

        headers = {"Content-Encoding": "gzip", "Cache-Control": "max-age=86400"}
        return Response(BUNDLE.read_bytes(), headers=headers, media_type="text/javascript")

    def examinations(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        latest = sorted(self._examinations().values(), key=lambda one: -one.last_arrival)
        return JSONResponse([{"name": one.name, "last_arrival": one.last_arrival} for one in latest])

    def state(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        latest = self._examination(request).latest
        if latest is None:
            return JSONResponse(None)
        low, high = window_of(latest)
        middle, extent = middle_of(latest)
        state = {"quality": latest.quality, "middle": middle, "extent": extent, "low": low, "high": high}
        scale = None if latest.uncertainty is None else uncertainty_scale(latest.uncertainty)
        return JSONResponse(to_plain(state | {"verdict": latest.verdict, "uncertainty_scale": scale}))

    def plane(self, request: Request) -> Response:
        from starlette.exceptions import HTTPException
        from starlette.responses import Response

        latest = self._newest(request)
        numbers = request.query_params
        try:
            view = PlaneView(
                (float(numbers["x"]), float(numbers["y"]), float(numbers["z"])),
                (float(numbers["nx"]), float(numbers["ny"]), float(numbers["nz"])),
                int(numbers.get("size", 256)),
                float(numbers.get("spacing", 0.5)),
            )
            over = numbers.get("layer") == "uncertainty"
            content = picture(latest, view, window_of(latest), self._options.backend, over)
        except (KeyError, ValueError) as error:
            raise HTTPException(400, "no such plane") from error
        return Response(content, media_type="image/png")

    def file(self, request: Request) -> Response:
        from starlette.exceptions import HTTPException
        from starlette.responses import FileResponse

        name = request.path_params["file"]
        path = self._examination(request).folder / name if name in _FILES else None
        if path is None or not path.is_file():
            raise HTTPException(404)
        # the report is a page of its own, with all that it needs inside
        headers = {"Content-Security-Policy": "sandbox allow-scripts"} if name == "report.html" else {}
        return FileResponse(path, media_type=_FILES[name], headers=headers)

    async def events(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        return StreamingResponse(_stream(self._examination(request)), media_type="text/event-stream")

    def _examination(self, request: Request) -> LiveExamination:
        from starlette.exceptions import HTTPException

        found = self._examinations().get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return found

    def _newest(self, request: Request) -> Latest:
        from starlette.exceptions import HTTPException

        latest = self._examination(request).latest
        if latest is None:
            raise HTTPException(404)
        return latest


async def _stream(examination: LiveExamination) -> AsyncIterator[str]:
    """Server-sent events: what happened so far, then what happens."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(_MOST_WAITING)

    def put(event: Mapping[str, Any] | None) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            waiting.put_nowait(event)

    def heard(event: Mapping[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(put, event)

    before, stop = examination.events.follow(heard)
    try:
        yield f"event: before\ndata: {_line(before)}\n\n"
        while not waiting.full():
            try:
                event = await asyncio.wait_for(waiting.get(), _HEARTBEAT)
                yield f"data: {_line(event)}\n\n"
            except TimeoutError:
                yield ": still here\n\n"
    finally:
        stop()


def _line(value: Any) -> str:
    return json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False)


def _guard(options: ServerOptions) -> Callable[..., Any]:
    """Only those who may, only reading, and only under a name of this machine."""
    from starlette.responses import PlainTextResponse, RedirectResponse

    def may(given: str | None) -> bool:
        return options.token is None or (
            given is not None and hmac.compare_digest(given.encode(), options.token.encode())
        )

    async def dispatch(request: Request, call_next: Callable[[Request], Any]) -> Response:
        asked = request.query_params.get("token")
        if options.token is None and not _is_loopback(request.url.hostname or ""):
            # another site whose name leads to this machine
            answer = PlainTextResponse("this page is for this machine alone\n", 403)
        elif request.method not in ("GET", "HEAD"):
            answer = PlainTextResponse("nothing can be changed here\n", 405)
        elif asked is not None and may(asked):
            answer = RedirectResponse(request.url.path, 303)
            answer.set_cookie(_COOKIE, asked, httponly=True, samesite="strict")
        elif may(request.cookies.get(_COOKIE)):
            answer = await call_next(request)
        else:
            answer = PlainTextResponse("open the address that gsvr live printed, with its token\n", 403)
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    return dispatch


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((options.host, options.port))
    except OSError as error:
        found.close()
        reason = error.strerror or type(error).__name__
        raise InputError(f"no page at {options.host}, port {options.port} ({reason}): choose another port") from error
    return found
