"""A small HTTP service over a finished run: an image in, the training images it matches out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cachetools import LRUCache

from dedup.errors import DedupError, InputError, MissingExtra
from dedup.find.answers import Answer
from dedup.storage.input.samples import one_line

try:
    import anyio
    import anyio.to_thread
    from fastapi import Depends, FastAPI, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError as error:
    raise MissingExtra(error.name or "fastapi", "serve") from error

if TYPE_CHECKING:
    from dedup.find.index import RunIndex

Result = TypeVar("Result")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_MOST_K = 100
_SIDES = (32, 1024)

_EXPECTED = {  # of each query parameter
    "k": f"a whole number from 1 to {_MOST_K}",
    "side": f"a whole number from {_SIDES[0]} to {_SIDES[1]}",
    "min_similarity": "a cosine from -1 to 1",
}

_MOST_NAMED = 100_000  # samples whose pictures may be requested
_UNTRUSTED = 400  # Starlette's status for a request to another host; nothing else here uses it
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


class Workers:
    """A bounded number of threads with a bounded queue of requests."""

    def __init__(self, options: ServiceOptions) -> None:
        self._max_waiting = options.max_waiting
        self._threads = anyio.CapacityLimiter(options.n_threads)
        self._places = anyio.CapacityLimiter(options.n_threads + options.max_waiting)

    @property
    def n_taken(self) -> int:
        """Requests being worked on or waiting."""
        return int(self._places.borrowed_tokens)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue; refuses the request if there is none."""
        holder = object()
        try:
            self._places.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            raise Refused(503, "busy", f"more than {self._max_waiting} requests wait; try again") from None
        try:
            yield
        finally:
            self._places.release_on_behalf_of(holder)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do work in a thread."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


class Metrics:
    """Counters of one service, as Prometheus reads them."""

    def __init__(self, workers: Workers) -> None:
        # not the global registry: a process may hold several services
        self.registry = CollectorRegistry()
        self._requests = Counter("dedup_requests", "Requests by path and status.", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "dedup_search_seconds", "Time to look an image up, waiting included.", buckets=_BUCKETS, registry=self.registry
        )
        self._matches = Counter("dedup_matches", "Training images that images matched.", registry=self.registry)
        self._copies = Counter("dedup_copies", "Images that are copies of training images.", registry=self.registry)
        waiting = Gauge("dedup_waiting", "Requests that are worked on or wait.", registry=self.registry)
        waiting.set_function(lambda: workers.n_taken)

    def count(self, path: str, status: int) -> None:
        """Count a finished request."""
        self._requests.labels(path, str(status)).inc()

    def answered(self, seconds: float, n_matches: int, *, is_copy: bool) -> None:
        """Count an image that was looked up."""
        self._seconds.observe(seconds)
        self._matches.inc(n_matches)
        self._copies.inc(int(is_copy))


@dataclass(frozen=True)
class ServiceOptions:
    """Limits of the service; raises InputError if one of `allowed_hosts` is not a host name."""

    host: str = "127.0.0.1"  # address to listen on; on a loopback address, only requests to a loopback name are answered
    max_bytes: int = 32 * 1024 * 1024  # of an image
    n_threads: int = 4  # requests worked on at a time
    max_waiting: int = 32  # requests that may wait; more are turned away
    timeout_s: float = 30.0  # seconds within which an image must arrive: it occupies a place in the queue
    shows_shards: bool = False  # show the whole path of a shard, not only its name
    version: str = ""
    # further host names to answer to, such as that of a proxy, or ``*.example`` for all names under one; with any, requests to other names
    # are refused
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.allowed_hosts:
            if not name or "*" in name.removeprefix("*."):
                raise InputError(f"allowed host {name!r}: expected a name such as images.example, or *.example for all names under one")

    @property
    def known_hosts(self) -> tuple[str, ...]:
        """Host names to answer to, as request headers spell them; empty = any."""
        if self.host not in _LOOPBACK and not self.allowed_hosts:
            return ()
        return tuple(f"[{name}]" if ":" in name else name for name in (*_LOOPBACK, *self.allowed_hosts))


class Refused(Exception):
    """A request that can't be answered."""

    def __init__(self, status: int, reason: str, error: str) -> None:
        super().__init__(error)
        self.status, self.reason, self.error = status, reason, error


def make_app(lookup: RunIndex, options: ServiceOptions | None = None) -> FastAPI:
    """The service over the index of a run."""
    options = options or ServiceOptions()
    workers = Workers(options)
    metrics = Metrics(workers)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.exception_handler(Refused)(_on_refused)
    app.exception_handler(RequestValidationError)(_on_invalid)
    _Routes(lookup, options, workers, metrics).add_to(app)
    if options.known_hosts:  # or another site's name may be pointed here (DNS rebinding)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=options.known_hosts, www_redirect=False)
    # the middleware added last runs first, so that what the others refuse is counted too
    app.add_middleware(BaseHTTPMiddleware, dispatch=_Envelope(metrics, options.known_hosts))
    return app


class _Envelope:
    """Adds headers to every response and counts it."""

    def __init__(self, metrics: Metrics, known_hosts: Sequence[str]) -> None:
        self._metrics, self._known_hosts = metrics, known_hosts

    async def __call__(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response: Response = await call_next(request)
        if response.status_code == _UNTRUSTED:
            response = _refusal(Refused(421, "unknown_host", f"expected a request to {', '.join(self._known_hosts)}"))
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        self._metrics.count(_label(request.url.path), response.status_code)
        return response


class _Routes:
    """The handler of each path."""

    def __init__(self, lookup: RunIndex, options: ServiceOptions, workers: Workers, metrics: Metrics) -> None:
        self._lookup, self._options, self._workers, self._metrics = lookup, options, workers, metrics
        # samples named in answers: only their pictures are shown; used by the event loop alone
        self._named: LRUCache[int, None] = LRUCache(_MOST_NAMED)

    def add_to(self, app: FastAPI) -> None:
        """Register the handlers with an app."""
        app.add_api_route("/search", self.search, methods=["POST"], dependencies=[Depends(_refuse_other_sites)])
        app.add_api_route("/preview/{sample_id}", self.preview)
        app.add_api_route("/health", self.health)
        app.add_api_route("/metrics", self.metrics)
        app.add_api_route("/favicon.ico", _icon)
        for path, (name, kind) in _PAGE.items():
            app.add_api_route(path, _static(name, kind))

    async def search(
        self,
        request: Request,
        k: Annotated[int, Query(ge=1, le=_MOST_K)] = 10,
        min_similarity: Annotated[float | None, Query(ge=-1, le=1, allow_inf_nan=False)] = None,
    ) -> Response:
        """Look up the image that is the body."""
        started = perf_counter()
        with self._workers.place():
            data = await _body(request, self._options)
            answer = await self._workers.run(
                lambda: self._lookup.search_bytes([("image", data)], k=k, min_similarity=min_similarity, judge_pixels=True)[0]
            )
        if answer.error is not None:
            raise Refused(413 if answer.reason in _TOO_LARGE else 422, answer.reason or "no_image", answer.error)
        for match in answer.matches:
            self._named[match.sample_id] = None
        self._metrics.answered(perf_counter() - started, len(answer.matches), is_copy=answer.is_copy)
        return JSONResponse(_answer(answer, self._options))

    async def preview(self, sample_id: int, side: Annotated[int, Query(ge=_SIDES[0], le=_SIDES[1])] = 256) -> Response:
        """A small JPEG of a training image that an answer has named."""
        if sample_id not in self._named:
            raise _no_sample()
        try:
            with self._workers.place():
                picture = await self._workers.run(lambda: self._lookup.preview(sample_id, side))
        except DedupError as error:
            # details about the server's files belong in its log
            raise Refused(404, "no_picture", "there is no such sample, or its image can't be read") from error
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    async def health(self) -> Response:
        """Whether it is up, and what it serves."""
        run = self._lookup.run_dir.rstrip("/").rpartition("/")[2]
        return JSONResponse({"status": "ok", "run": run, "n_images": self._lookup.n_images, "version": self._options.version})

    async def metrics(self) -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _icon() -> Response:
    """Browsers ask for an icon; there is none."""
    return Response(status_code=204)


def _static(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = files("dedup.find").joinpath("page", name).read_bytes()

    async def route() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return route


async def _body(request: Request, options: ServiceOptions) -> bytes:
    """The body, limited in bytes and time whatever its Content-Length claims."""
    parts, n_bytes = [], 0
    try:
        with anyio.fail_after(options.timeout_s):
            async for part in request.stream():
                n_bytes += len(part)
                if n_bytes > options.max_bytes:
                    raise Refused(413, "too_many_bytes", f"expected an image of at most {options.max_bytes:,} bytes")
                parts.append(part)
    except TimeoutError:
        raise Refused(408, "too_slow", f"expected the whole image within {options.timeout_s:g} s") from None
    if not n_bytes:
        raise Refused(422, "empty_image", "expected an image as the body of the request")
    return b"".join(parts)


async def _refuse_other_sites(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin and origin.partition("://")[2] != request.headers.get("host", ""):
        raise Refused(403, "other_origin", "another site's page may not search")


def _label(path: str) -> str:
    """The label a path is counted under: few, whatever clients request."""
    return "/preview" if path.startswith("/preview/") else path if path in (*_PAGE, "/search", "/health", "/metrics") else "other"


def _answer(answer: Answer, options: ServiceOptions) -> dict[str, Any]:
    matches = [asdict(match) for match in answer.matches]
    for match in matches:
        if not options.shows_shards:
            match["shard"] = match["shard"].rstrip("/").rpartition("/")[2]
            # an error's text may contain the path that is cut above
            match["trouble"] = None if match["trouble"] is None else "the training image can't be read"
    return {"image": answer.image, "is_copy": answer.is_copy, "matches": matches}


async def _on_refused(request: Request, error: Refused) -> Response:
    return _refusal(error)


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    name = error.errors()[0]["loc"][1]
    if name not in _EXPECTED:
        return _refusal(_no_sample())
    return _refusal(Refused(422, f"bad_{name}", f"{name}: expected {_EXPECTED[name]}"))


def _no_sample() -> Refused:
    return Refused(404, "no_sample", "expected a sample_id of an answer")


def _refusal(error: Refused) -> Response:
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    if error.status in (408, 413):
        headers["Connection"] = "close"  # otherwise the rest of the body would be read
    return JSONResponse({"reason": error.reason, "error": one_line(error)}, error.status, headers)


def serve(lookup: RunIndex, options: ServiceOptions, port: int) -> None:
    """Serve until the process is interrupted."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra(error.name or "uvicorn", "serve") from error
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        uvicorn.run(make_app(lookup, options), host=options.host, port=port, log_level="info", server_header=False, access_log=False)
