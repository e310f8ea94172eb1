"""``explore``: the explorer's web server, and the page that shows what it is started with."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from urllib.parse import quote

from formulavision.comparison.results import FINDINGS
from formulavision.explorer.comparison_page import ComparisonPage
from formulavision.explorer.limits import Limits
from formulavision.explorer.markup import STYLE
from formulavision.explorer.recipe_page import RecipePage
from formulavision.explorer.store_page import StorePage
from formulavision.generators.registry import plugins
from formulavision.recipes.recipe import RecipeLike, as_recipe
from formulavision.storage.manifest import MANIFEST
from formulavision.util.config import user_path
from formulavision.util.console import say
from formulavision.util.errors import ConfigError
from formulavision.util.folders import MARKER, Marker
from formulavision.util.remote import is_url

__all__ = ["build_app", "explore", "page_of"]

Page = RecipePage | StorePage | ComparisonPage

_HINTED = 6
"""Number of folders that an error names."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Addresses that only this machine reaches."""


def explore(target: RecipeLike = "ifs", *, host: str = "127.0.0.1", port: int = 7860, token: str | None = None) -> None:
    """Serve a page that shows a formula, a recipe, a store or a comparison, until Ctrl-C.

    Args:
        target: the name of a generator, or a recipe, in any form that :func:`formulavision.preview` takes; a
            store, its folder or its URL; or the folder of a comparison, of one that is going on too.
        host: address that is listened on. On the loopback address only this machine reaches the page.
        port: number of the port; 0: one that is free.
        token: text that the page's address must hold; None: none on the loopback address, and one drawn at random on
            others; "": none, everybody who reaches the address is let in.

    Raises:
        ConfigError: there is no such recipe, it is too large for the explorer, a folder holds neither a store nor a
            comparison, Gradio is not installed, or the address cannot be listened on.
        StoreError: the store is not complete, or is damaged.
    """
    if token is None:
        token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
    if not token.isascii():
        raise ConfigError("token: must be ASCII, as it stands in an address")
    limits = Limits()
    page = page_of(target, limits)
    with listen(host, port) as listening:
        app, close = build_app(page, limits, token=token or None, hosts=LOOPBACK if host in LOOPBACK else None)
        import uvicorn

        name = f"[{host}]" if ":" in host else host
        query = f"?token={quote(token, safe='')}" if token else ""
        say(f"http://{name}:{listening.getsockname()[1]}/{query} shows the explorer; Ctrl-C ends it")
        try:
            # Open pages hold their connections as long as they are open; uvicorn logs each one that it then ends.
            settings = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
            uvicorn.Server(settings).run(sockets=[listening])
        finally:
            close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        ConfigError: the address is taken, or none of this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"--port {port}: is in use by another program: give another one, or 0") from None
        reason = (error.strerror or str(error)).partition(" (while ")[0]
        raise ConfigError(f"--host {host} --port {port}: cannot be listened on: {reason}") from None
    except OverflowError as error:
        raise ConfigError(f"--port {port}: cannot be listened on: {error}") from None


def page_of(target: RecipeLike, limits: Limits) -> Page:
    """The page that shows a recipe, a store or a comparison.

    Raises:
        ConfigError, StoreError: as of :func:`explore`.
    """
    if isinstance(target, str | PathLike) and target not in plugins().generators:
        if is_url(target):
            return StorePage(fspath(target), limits)
        folder = user_path(fspath(target))
        if folder.is_dir():
            kind = kind_of(folder)
            if kind == "store":
                return StorePage(str(folder), limits)  # as it was given: visitors need not know where it lies
            if kind == "comparison":
                return ComparisonPage(folder, limits)
            there = sorted(str(inner) for inner in folder.iterdir() if inner.is_dir() and kind_of(inner))
            hint = f": give one of {', '.join(there[:_HINTED])}" if there else ""
            raise ConfigError(f"{folder}: holds neither a store nor a comparison{hint}")
    return RecipePage(as_recipe(target), limits)


def kind_of(folder: Path) -> str | None:
    """What a folder holds: ``store``, ``comparison``, or None for all else.

    Stores of version 0.1 have no marker, unfinished ones no manifest, and comparisons that have just begun no results.
    """
    marker = Marker.read(folder) if (folder / MARKER).is_file() else None
    kind = None if marker is None else marker.kind
    if kind == "store" or (folder / MANIFEST).is_file():
        return "store"
    if kind in ("comparison", "joined report") or (folder / FINDINGS).is_file():
        return "comparison"
    return None


def build_app(
    page: Page, limits: Limits, *, token: str | None = None, hosts: frozenset[str] | None = None
) -> tuple[Any, Any]:
    """The explorer as an ASGI application, and the function that ends its process.

    Args:
        page: what is shown.
        limits: of what visitors may ask for.
        token, hosts: as of :class:`~formulavision.explorer.gate.Gate`.

    Raises:
        ConfigError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported, and reports its use
    try:
        import gradio as gr
    except ImportError as error:
        raise ConfigError(f"explore: needs Gradio: pip install 'formulavision[explore]' ({error})") from None
    from fastapi import FastAPI

    from formulavision.explorer.gate import Gate

    with gr.Blocks(title="FormulaVision", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown("# FormulaVision explorer")
        page.build(blocks)
    blocks.state_session_capacity = limits.sessions
    blocks.queue(max_size=limits.waiting, default_concurrency_limit=1, api_open=False)
    font = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(font=font, font_mono=["ui-monospace", "monospace"]).set(
        block_info_text_color="*neutral_600"  # the theme's own has too little contrast
    )
    app = gr.mount_gradio_app(
        FastAPI(), blocks, path="/", allowed_paths=[], blocked_paths=[str(Path("/").absolute())], footer_links=[],
        show_error=False, max_file_size=1, ssr_mode=False, enable_monitoring=False, theme=theme, css=STYLE,
    )  # fmt: skip
    return Gate(app, token, hosts), page.close
