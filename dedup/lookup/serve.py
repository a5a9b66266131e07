"""A small HTTP service over a finished run: an image in, the training images it matches out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from dedup.errors import DedupError, MissingExtra
from dedup.lookup.answers import Answer, Lookup
from dedup.lookup.service import Busy, Given, Metrics, Workers, clock, is_known_host
from dedup.storage.samples import one_line

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse
except ImportError as error:
    raise MissingExtra(error.name or "fastapi", "serve") from error

_MOST_K = 100
_SIDES = (32, 1024)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TOO_LARGE = ("too_many_pixels", "too_many_bytes")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob:; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}


@dataclass(frozen=True)
class ServiceOptions:
    """Limits of the service.

    Parameters
    ----------
    host : str
        Address it listens on: on a loopback one, only requests to a loopback name are answered.
    allowed_hosts : tuple of str
        Further names that requests may be to, such as that of a proxy; with any, no others are answered.
    max_bytes : int
        Of an image.
    n_threads : int
        Requests that are worked on at a time.
    max_waiting : int
        Requests that wait; more are turned away.
    timeout_s : float
        Seconds in which an image must have come: a place is held for it.
    shows_shards : bool
        Tell the whole path of a shard, not only its name.
    version : str
    """

    host: str = "127.0.0.1"
    max_bytes: int = 32 * 1024 * 1024
    n_threads: int = 4
    max_waiting: int = 32
    timeout_s: float = 30.0
    shows_shards: bool = False
    version: str = ""
    allowed_hosts: tuple[str, ...] = ()


class Refused(Exception):
    """A request that can't be answered."""

    def __init__(self, status: int, reason: str, error: str) -> None:
        super().__init__(error)
        self.status, self.reason, self.error = status, reason, error


def make_app(lookup: Lookup, options: ServiceOptions | None = None) -> FastAPI:
    """The service over a lookup.

    Parameters
    ----------
    lookup : Lookup
        Such as `dedup.open_index` gives.
    options : ServiceOptions
    """
    options = options or ServiceOptions()
    metrics, given = Metrics(), Given()
    workers = Workers(options.n_threads, options.max_waiting, metrics)
    known = (*_LOOPBACK, *options.allowed_hosts) if options.host in _LOOPBACK or options.allowed_hosts else ()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        workers.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.scope["route"].path if "route" in request.scope else request.url.path
        path = "/preview" if path.startswith("/preview/") else path if path in (*_PAGE, "/search", "/health", "/metrics") else "other"
        try:
            if not is_known_host(request.headers.get("host", ""), known):
                raise Refused(421, "unknown_host", f"expected a request to {', '.join(known)}")
            origin = request.headers.get("origin")
            if request.method == "POST" and origin and origin.partition("://")[2] != request.headers.get("host", ""):
                raise Refused(403, "other_origin", "another site's page may not ask")
            response = await call_next(request)
        except Refused as error:
            response = _refusal(error)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        metrics.count(path, response.status_code)
        return response

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _refusal(error)

    @app.post("/search")
    async def search(request: Request) -> Response:
        """Look up the image that is the body."""
        k, min_similarity = _k(request.query_params.get("k")), _similarity(request.query_params.get("min_similarity"))
        started = clock()
        try:
            async with workers.place():
                data = await asyncio.wait_for(_body(request, options.max_bytes), options.timeout_s)
                answer = await workers.run(
                    lambda: lookup.search_bytes([("image", data)], k=k, min_similarity=min_similarity, looks_at_pixels=True)[0]
                )
        except asyncio.TimeoutError:
            raise Refused(408, "too_slow", f"expected the whole image within {options.timeout_s:g} s") from None
        except Busy:
            raise Refused(503, "busy", f"more than {options.max_waiting} requests wait; try again") from None
        if answer.error is not None:
            raise Refused(413 if answer.reason in _TOO_LARGE else 422, answer.reason or "no_image", answer.error)
        given.add(match.sample_id for match in answer.matches)
        metrics.answered(clock() - started, len(answer.matches), is_copy=answer.is_copy)
        return JSONResponse(_answer(answer, options))

    @app.get("/preview/{sample_id}")
    async def preview(sample_id: str, request: Request) -> Response:
        """A small JPEG of a training image that an answer has named."""
        side = _whole("side", request.query_params.get("side", "256"), *_SIDES)
        if not sample_id.isdecimal() or len(sample_id) > 19 or int(sample_id) not in given:
            raise Refused(404, "no_sample", "expected a sample_id of an answer")
        try:
            async with workers.place():
                picture = await workers.run(lambda: lookup.preview(int(sample_id), side))
        except Busy:
            raise Refused(503, "busy", "too many requests wait; try again") from None
        except DedupError as error:
            # what is wrong with the server's files is for its log
            raise Refused(404, "no_picture", "there is no such sample, or its image can't be read") from error
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    @app.get("/health")
    async def health() -> Response:
        """Whether it is up, and what it serves."""
        run = lookup.run_dir.rstrip("/").rpartition("/")[2]
        return JSONResponse({"status": "ok", "run": run, "n_images": lookup.n_images, "version": options.version})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/favicon.ico")
    async def icon() -> Response:
        """Browsers ask for it."""
        return Response(status_code=204)

    for path, (name, kind) in _PAGE.items():
        app.add_api_route(path, _static(name, kind), methods=["GET"])
    return app


def _static(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = files("dedup.lookup").joinpath("page", name).read_bytes()

    async def route() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return route


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body, as far as it may go: what it says of its length is no promise."""
    parts, n_bytes = [], 0
    async for part in request.stream():
        n_bytes += len(part)
        if n_bytes > max_bytes:
            raise Refused(413, "too_many_bytes", f"expected an image of at most {max_bytes:,} bytes")
        parts.append(part)
    if not n_bytes:
        raise Refused(422, "empty_image", "expected an image as the body of the request")
    return b"".join(parts)


def _k(text: str | None) -> int:
    return 10 if text is None else _whole("k", text, 1, _MOST_K)


def _whole(name: str, text: str, low: int, high: int) -> int:
    if not text.isdecimal() or len(text) > 9 or not low <= int(text) <= high:
        raise Refused(422, f"bad_{name}", f"{name}: expected a whole number from {low} to {high}")
    return int(text)


def _similarity(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 2.0
    if not -1.0 <= value <= 1.0:
        raise Refused(422, "bad_min_similarity", "min_similarity: expected a cosine from -1 to 1")
    return value


def _answer(answer: Answer, options: ServiceOptions) -> dict[str, Any]:
    matches = [asdict(match) for match in answer.matches]
    for match in matches:
        if not options.shows_shards:
            match["shard"] = match["shard"].rstrip("/").rpartition("/")[2]
            # an error's text may hold the path that is left out above
            match["trouble"] = None if match["trouble"] is None else "the training image can't be read"
    return {"image": answer.image, "is_copy": answer.is_copy, "matches": matches}


def _refusal(error: Refused) -> Response:
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    if error.status in (408, 413):
        headers["Connection"] = "close"  # or what is left of the body would be read to its end
    body = json.dumps({"reason": error.reason, "error": one_line(error)}, ensure_ascii=False)
    return Response(body, error.status, headers, "application/json")


def serve(lookup: Lookup, options: ServiceOptions, port: int) -> None:
    """Serve until the process is told to end."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra(error.name or "uvicorn", "serve") from error
    # Ctrl-C is how it is ended
    with suppress(KeyboardInterrupt):
        uvicorn.run(make_app(lookup, options), host=options.host, port=port, log_level="info", server_header=False, access_log=False)
