"""`evergreen review`: the page on which a person looks through items one by one and gives them labels, on loopback.

The page is for the person who started it: its address has a random ticket that works once, since other users of the machine
can read the command line of the browser that is opened with it. The browser gets a cookie for it with the token, which is in no
address; what changes something needs the token from the page and the page's own origin too, so that no other web page can send
it. Pages and pictures are never kept by the browser, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import progress
from evergreen.errors import BadItem, EvergreenError, WrongUse
from evergreen.kinds.base.labelling import Picture
from evergreen.review.decisions import Decisions
from evergreen.review.items import Identity
from evergreen.review.queues import QUEUES
from evergreen.review.session import THUMBNAIL_SIDE, Gone, Review, Shown
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger("evergreen")

LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS = 4202, 20  # those that are tried if none is given
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MOST_AT_ONCE = 50  # items in one answer
MAPS_KEPT, MAPS_WAITING = 64, 4
ENDING_SECONDS = 5.0  # for what is being computed at the end; `evergreen.stopping` ends the process before
SENT_IN = "X-Evergreen-Token"
COOKIE_SECONDS = 30 * 24 * 3600
REFUSED = (
    "The address that `evergreen review` has printed opens the page in one browser; in that one it goes on working.\n"
    "For another browser, end the command with Ctrl-C and start it again: it prints a new address.\n"
)
LABEL_KEYS = "123456789abcdefgijklmnopqrtvwxyz"  # digits, and the letters that do nothing else


@dataclass
class _Preparation:
    """How far the preparation of a queue is: `preparing`, with what is being done in words and the fraction that is done (None
    if unknown), `ready`, or `unavailable`, with the reason."""

    state: str = "preparing"
    doing: str = ""
    fraction: float | None = None
    reason: str = ""


class Preparations:
    """Prepares queues in the background, one after the other."""

    def __init__(self, review: Review) -> None:
        self._review = review
        self._of: dict[str, _Preparation] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def state(self, queue: str) -> _Preparation:
        """The state of a queue; the first call begins its preparation."""
        with self._lock:
            if queue not in self._of:
                self._of[queue] = _Preparation()
                self._threads.append(
                    threading.Thread(target=self._prepare, args=(queue,), name=f"prepare-{queue}", daemon=True)
                )
                self._threads[-1].start()
            return self._of[queue]

    def again(self, queue: str) -> None:
        """Prepare a queue anew, when its state is asked for."""
        with self._lock:
            if queue in self._of and self._of[queue].state != "preparing":
                del self._of[queue]

    def close(self) -> None:
        """Wait until nothing is being prepared: libraries complain where the process ends in the midst of their work."""
        for thread in self._threads:
            thread.join(ENDING_SECONDS)

    def _prepare(self, queue: str) -> None:
        one = self._of[queue]

        def tell(task: progress.Task) -> None:
            one.doing, one.fraction = " ".join(filter(None, (task.name, task.left))), task.fraction

        try:
            with progress.listening(tell):
                self._review.prepare(queue)
            one.state = "ready"
        except EvergreenError as error:
            one.state, one.reason = "unavailable", str(error)
        except Exception as error:
            log.exception("The queue %s could not be prepared.", queue)
            one.state, one.reason = "unavailable", f"{type(error).__name__}: {error}"


class HeatMaps:
    """Computes heat maps in one thread, the one that was asked for last first, so that a person never waits for those of items
    that are no longer shown."""

    def __init__(self, compute: Callable[[str, str], Picture]) -> None:
        self._compute = compute
        self._waiting: OrderedDict[tuple[str, str], Future[Picture]] = OrderedDict()
        self._found: OrderedDict[tuple[str, str], Future[Picture]] = OrderedDict()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def of(self, item: str, label: str) -> Future[Picture]:
        """The heat map of an item for a label. A request that waits behind too many newer ones is cancelled."""
        key = item, label
        with self._changed:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            future = self._waiting.pop(key, None) or Future()
            self._waiting[key] = future
            while len(self._waiting) > MAPS_WAITING:
                self._waiting.popitem(last=False)[1].cancel()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="heat-maps", daemon=True)
                self._thread.start()
            self._changed.notify()
            return future

    def close(self) -> None:
        """Compute no more heat maps, and wait for the current one."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(ENDING_SECONDS)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                key, future = self._waiting.popitem()
                if not future.set_running_or_notify_cancel():
                    continue
                self._found[key] = future
                while len(self._found) > MAPS_KEPT:
                    self._found.popitem(last=False)
            try:
                future.set_result(self._compute(*key))
            except Exception as error:  # noqa: BLE001 (the page says so)
                future.set_exception(error)
                with self._changed:
                    self._found.pop(key, None)


def application(review: Review, token: str, tickets: set[str], *, first_queue: str, port: int) -> Starlette:
    """The web application.

    Args:
        token: that the browser keeps as a cookie.
        tickets: those that an address of the page may have; each is removed when it is used.
        first_queue: the one that the page opens with.
        port: that it will be served at.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    preparations = Preparations(review)
    maps = HeatMaps(lambda key, label: review.heat_map(item_of(key)[0], label))
    cookie = f"evergreen-review-{port}"
    files = {"review.js": "text/javascript; charset=utf-8", "review.css": "text/css; charset=utf-8"}

    async def guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        ticket = request.query_params.get("ticket", "") if request.url.path == "/" else ""
        first = ticket in tickets
        tickets.discard(ticket)
        if not first and not _same(request.cookies.get(cookie, ""), token):
            return Response(REFUSED, 403, HEADERS, "text/plain")
        if request.method != "GET":
            origin = request.headers.get("Origin")
            own = f"http://{request.headers['Host']}"
            if not _same(request.headers.get(SENT_IN, ""), token) or (origin is not None and origin != own):
                return JSONResponse({"error": "this request does not come from the review's page"}, 403, HEADERS)
        try:
            response = await call_next(request)
        except (EvergreenError, BadItem) as error:
            text = error.detail if isinstance(error, BadItem) else str(error)
            response = JSONResponse({"error": text, "gone": isinstance(error, Gone)}, 409)
        response.headers.update(HEADERS)
        if first:
            response.set_cookie(cookie, token, max_age=COOKIE_SECONDS, httponly=True, samesite="strict", path="/")
        return response

    def page(request: Request) -> Response:
        return HTMLResponse(_page(review, token, first_queue))

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return Response(status_code=204 if name == "favicon.ico" else 404)
        return Response(Path(__file__).with_name(name).read_bytes(), media_type=files[name])

    def queue(request: Request) -> Response:
        name = _queue_of(request.path_params["queue"])
        state = preparations.state(name)
        found: dict[str, Any] = asdict(state) | {"no_champion": review.no_champion}
        if state.state == "ready":
            found |= {"left": review.left(name), "tally": review.tally(name)}
        return JSONResponse(found)

    async def upcoming(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        name, asked = _queue_of(request.path_params["queue"]), await _body(request)
        without = [item_of(one)[0] for one in asked.get("without", []) if isinstance(one, str)]
        count = min(MOST_AT_ONCE, int(asked.get("count", 1)))
        if preparations.state(name).state != "ready":
            return JSONResponse({"items": [], "preparing": True})
        return JSONResponse({"items": [_plain(one) for one in await run_in_threadpool(review.upcoming, name, count, without)]})

    async def decide(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        name, asked = _queue_of(request.path_params["queue"]), await _body(request)
        action, item, label, id = (str(asked.get(key, "")) for key in ("action", "item", "label", "request"))
        answer = await run_in_threadpool(_act, review, name, action, item, label, id)
        if action == "again":
            preparations.again(name)
        return JSONResponse(answer)

    def picture(request: Request) -> Response:
        side = {"side": THUMBNAIL_SIDE} if "small" in request.query_params else {}
        found = review.picture(item_of(request.query_params.get("item", ""))[0], **side)
        return Response(found.content, media_type=found.media_type)

    async def heat_map(request: Request) -> Response:
        import asyncio

        asked = maps.of(request.query_params.get("item", ""), request.query_params.get("label", ""))
        try:
            found = await asyncio.wrap_future(asked)
        except asyncio.CancelledError:
            if not asked.cancelled():
                raise
            return Response(status_code=204)  # newer requests came
        except (EvergreenError, BadItem):  # such as that the file was given a label, and is elsewhere
            return Response(status_code=204)
        return Response(found.content, media_type=found.media_type)

    found = Starlette(
        routes=[
            Route("/", page),
            Route("/picture", picture),
            Route("/heat-map", heat_map),
            Route("/queue/{queue}", queue),
            Route("/queue/{queue}/upcoming", upcoming, methods=["POST"]),
            Route("/queue/{queue}/decide", decide, methods=["POST"]),
            Route("/{name}", file),
        ],
        middleware=[
            # Against DNS rebinding: a web site whose name resolves to this machine gets no answer.
            Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False),
            Middleware(BaseHTTPMiddleware, dispatch=guarded),
        ],
    )
    found.state.background = (preparations, maps)
    return found


def _act(review: Review, queue: str, action: str, key: str, label: str, request: str) -> dict[str, Any]:
    """Do what a person asks for; returns how much is done and left (None while the queue is prepared), and after `undo` the
    item that is shown again.

    Args:
        key: of the item (`key_of`).
        request: its random id; empty if it has none.
    """
    again = None
    if action == "label":
        item, identity = item_of(key)
        review.label(queue, item, label, identity, request)
    elif action == "skip":
        item, identity = item_of(key)
        review.skip(queue, item, identity, request)
    elif action == "undo":
        undone = review.undo(queue, request)
        if undone is None:
            raise WrongUse("there is nothing to undo in this queue")
        again = _plain(review.shown(queue, undone.item))
    elif action == "show-skipped":
        review.show_skipped(queue)
    elif action != "again":
        raise WrongUse("there is no such action", expected="label, skip, undo, show-skipped or again", received=action)
    return {"again": again, "left": review.left(queue) if review.is_prepared(queue) else None, "tally": review.tally(queue)}


def key_of(item: str, identity: Identity) -> str:
    """How the page names an item: in ASCII, also for a file whose name is not UTF-8, and with what identifies its file, so that
    a decision is about the file that the person saw."""
    encoded = base64.urlsafe_b64encode(os.fsencode(item)).decode().rstrip("=")
    return ".".join([encoded, *map(str, identity)])


def item_of(key: str) -> tuple[str, Identity]:
    """The item that the page names, and what identifies its file.

    Raises:
        Gone: no item can have this key.
    """
    encoded, *numbers = key.split(".")
    try:
        raw = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        return os.fsdecode(raw), tuple(map(int, numbers))
    except ValueError:
        raise Gone("there is no such item", received=key) from None


def _plain(shown: Shown) -> dict[str, Any]:
    found = asdict(shown)
    found["item"] = key_of(shown.item, found.pop("identity"))
    found["similar"] = [(key_of(id, ()), label) for id, label in shown.similar]
    if found["suggestion"]:
        ordered = sorted(found["suggestion"]["probabilities"].items(), key=lambda pair: -pair[1])
        found["suggestion"]["probabilities"] = ordered[:5]
    return found


async def _body(request: Request) -> dict[str, Any]:
    import json

    try:
        found = json.loads(await request.body())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise WrongUse("the request is no JSON object")
    return found


def _queue_of(name: str) -> str:
    if name not in QUEUES:
        raise WrongUse("there is no such queue", expected=f"one of {', '.join(QUEUES)}", received=name)
    return name


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _page(review: Review, token: str, first_queue: str) -> str:
    from jinja2 import Environment

    template = Path(__file__).with_name("review.html.j2").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            name=review.scenario.name,
            labels=list(zip(review.labels, keys_of(review.labels), strict=True)),
            queues=QUEUES,
            first_queue=first_queue,
            token=token,
        )
    )


def keys_of(labels: Sequence[str]) -> list[str]:
    """The key of each label: for labels that are digits these, else `LABEL_KEYS` in order; empty for the labels after them."""
    if all(label in tuple("0123456789") for label in labels):
        return list(labels)
    return [LABEL_KEYS[number] if number < len(LABEL_KEYS) else "" for number in range(len(labels))]


def _token(workspace: Workspace, name: str) -> str:
    """The token of a scenario's review: the same every time, so that a page that is still open goes on after a restart."""
    file = workspace.review(name) / "cookie"
    with contextlib.suppress(OSError):
        found = file.read_text(encoding="ascii")
        if len(found) >= 40:
            return found
    made = secrets.token_urlsafe(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as writing:
        writing.write(made)
    return made


def _listen(port: int | None) -> socket.socket:
    """A socket on loopback.

    Raises:
        WrongUse: the port is taken, or all that are tried.
    """
    tried = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,)
    for one in tried:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, one))
        except OSError:
            listening.close()
            continue
        listening.listen(128)
        return listening
    taken = f"port {port} is" if port is not None else f"the ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are"
    raise WrongUse(f"{taken} taken by another program", fix="Choose another one with --port.")


@contextlib.contextmanager
def serving(workspace: Workspace, scenario: Scenario, *, by: str, queue: str, port: int | None) -> Iterator[Callable[[], str]]:
    """Serve the page of a scenario within the block. Nothing runs on afterwards.

    Yields:
        A function that gives a new address of the page each time. Each opens it in one browser, where it goes on working.

    Raises:
        WrongUse: the review of this scenario is open already, its items cannot be reviewed, or the port is taken.
    """
    import uvicorn

    with Decisions.opened(workspace, scenario, by) as decisions:
        review, token = Review(workspace, scenario, decisions), _token(workspace, scenario.name)
        with contextlib.closing(_listen(port)) as listening:
            at = listening.getsockname()[1]
            tickets: set[str] = set()

            def address() -> str:
                ticket = secrets.token_urlsafe(32)
                tickets.add(ticket)
                return f"http://{LOOPBACK}:{at}/?ticket={ticket}"

            served = application(review, token, tickets, first_queue=queue, port=at)
            config = uvicorn.Config(
                served, log_level="warning", server_header=False, timeout_graceful_shutdown=1, lifespan="off"
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="review-server", daemon=True)
            thread.start()
            try:
                while not server.started and thread.is_alive():
                    time.sleep(0.02)
                yield address
            finally:
                server.should_exit = True
                thread.join(ENDING_SECONDS)
                for one in served.state.background:
                    one.close()


def serve(workspace: Workspace, scenario: Scenario, *, by: str, queue: str, port: int | None, open_it: bool) -> None:
    """Serve the page until the process is stopped.

    Raises:
        WrongUse: as `serving`.
        Stopped: the normal end.
    """
    with progress.shown(), serving(workspace, scenario, by=by, queue=queue, port=port) as address:
        print(f"Review of {scenario.name}: {address()}", flush=True)
        print(f"Ctrl-C ends it; what you decided is in the inbox. Then: evergreen retrain {scenario.name}", file=sys.stderr)
        if open_it and _has_a_screen():
            import webbrowser

            webbrowser.open(address())  # another one, so that the printed one still opens another browser
        while True:
            time.sleep(0.2)


def _has_a_screen() -> bool:
    """Whether a browser can be opened in a window; otherwise Python would open one in the terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))
