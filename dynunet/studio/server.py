"""The page, for this machine alone.

It binds to 127.0.0.1. A page of another origin, which the same browser may have open, could still send
requests here, or have its name point to this address (DNS rebinding): so only requests are answered whose
``Host`` is this machine and whose ``Origin``, if there is one, is this page. And the browser is told to load
nothing from elsewhere, and to show the page inside no other.
"""

import gc
import socket
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    from nicegui import app, core, ui
except ImportError as error:
    raise ImportError(f"the studio needs nicegui: pip install 'dynunet[studio]' ({error})") from error

from ..progress import say
from . import data, design, train, use
from .jobs import stop_all
from .page import Page
from .roots import Roots

__all__ = ["serve"]

_HOST = "127.0.0.1"
_NAMES = (_HOST, "localhost")
_TABS: tuple[tuple[str, Any], ...] = (("Design", design), ("Data", data), ("Train", train), ("Use", use))
_POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'"
Scope = MutableMapping[str, Any]


def serve(folders: Sequence[Path], port: int, show: bool) -> None:
    """Serve the page until Ctrl-C.

    Args:
        folders: that may be read and written.
        port: of the page; 0 for any that is free.
        show: open it in the browser.

    Raises:
        ValueError: the port is taken.
    """
    roots, port = Roots(folders), _free(port)
    address = f"http://{_HOST}:{port}"

    def build() -> None:
        page = Page(roots)
        _page(page)
        ui.context.client.on_connect(lambda: page.remember(app.storage.tab))

    design.prepare()
    # A search for garbage that goes through all of torch would keep every page waiting, again and again.
    gc.collect()
    gc.freeze()
    ui.add_css(Path(__file__).with_name("style.css"), shared=True)
    core.app.add_middleware(OnlyThisPage, port=port)  # type: ignore[arg-type]
    app.on_startup(lambda: say(f"the studio is at {address}; Ctrl-C ends it, and no training"))
    app.on_shutdown(stop_all)
    if show:
        app.on_startup(lambda: _open(address))
    ui.run(
        build,
        host=_HOST,
        port=port,
        title="dynunet studio",
        favicon="🎛️",
        show=False,
        reload=False,
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30,
        fastapi_docs=False,
    )


def _open(address: str) -> None:
    webbrowser.open(address)


def _free(port: int) -> int:
    """The port, or a free one for 0."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((_HOST, port))
        except OSError as error:
            raise ValueError(f"port {port} cannot be had: {error.strerror}; another one: --port 0") from None
        return tried.getsockname()[1]


def _page(page: Page) -> None:
    """Header and tabs, each of which is made when it is opened first, so that the page is there at once."""
    waiting, panels = dict(_TABS), {}

    def opened(name: str) -> None:
        if name in waiting and name in panels:
            with panels[name]:
                waiting.pop(name).build(page)
        for listener in page.tabs:
            listener()

    ui.colors(primary="#1f4e79")
    with ui.header().classes("items-center py-1"):
        ui.label("dynunet studio").classes("text-lg")
        with ui.tabs(on_change=lambda event: opened(str(event.value))) as tabs:
            made = {name: ui.tab(name) for name, _ in _TABS}
    with ui.tab_panels(tabs, value="Design", keep_alive=True, animated=False).classes("w-full"):
        panels.update({name: ui.tab_panel(tab) for name, tab in made.items()})
    opened("Design")


class OnlyThisPage:
    """Answers requests that are for this machine and come from its own page, and no others."""

    def __init__(self, inner: Callable[..., Awaitable[None]], port: int) -> None:
        self.inner = inner
        self.hosts = {f"{name}:{port}" for name in _NAMES}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and not self._ours(dict(scope["headers"])):
            return await _refuse(scope, send)

        async def send_with(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", _POLICY)]
            await send(message)

        return await self.inner(scope, receive, send_with)

    def _ours(self, headers: dict[bytes, bytes]) -> bool:
        origin = headers.get(b"origin")
        host = headers.get(b"host", b"").decode("latin-1")
        return host in self.hosts and (
            origin is None or urlsplit(origin.decode("latin-1")).netloc in self.hosts
        )


async def _refuse(scope: Scope, send: Any) -> None:
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    return await send({"type": "http.response.body", "body": b"only for this machine's own page"})
