"""``explore``: the explorer's web server."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Any

from formulavision.explorer.limits import Limits
from formulavision.explorer.markup import STYLE
from formulavision.explorer.recipe_page import RecipePage
from formulavision.explorer.worker import Worker
from formulavision.recipes.recipe import RecipeLike, as_recipe
from formulavision.util.console import say
from formulavision.util.errors import ConfigError

__all__ = ["build_app", "explore"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Addresses that only this machine reaches."""


def explore(target: RecipeLike = "ifs", *, host: str = "127.0.0.1", port: int = 7860, token: str | None = None) -> None:
    """Serve a page that shows a formula or recipe, until Ctrl-C.

    Args:
        target: the name of a generator, or a recipe, in any form that :func:`formulavision.preview` takes.
        host: address that is listened on. On the loopback address only this machine reaches the page.
        port: number of the port; 0: one that is free.
        token: text that the page's address must hold; None: none on the loopback address, and one drawn at random on
            others; "": none, everybody who reaches the address is let in.

    Raises:
        ConfigError: there is no such recipe, it is too large for the explorer, Gradio is not installed, or the address
            cannot be listened on.
    """
    if token is None:
        token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
    recipe = as_recipe(target)
    with listen(host, port) as listening:
        app, close = build_app(recipe, token=token or None, hosts=LOOPBACK if host in LOOPBACK else None)
        import uvicorn

        name = f"[{host}]" if ":" in host else host
        query = f"?token={token}" if token else ""
        say(f"http://{name}:{listening.getsockname()[1]}/{query} shows the explorer; Ctrl-C ends it")
        try:
            uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on")).run(sockets=[listening])
        finally:
            close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        ConfigError: the address is taken, or none of this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: cannot be listened on: {error}") from None


def build_app(
    target: RecipeLike, *, token: str | None = None, hosts: frozenset[str] | None = None, limits: Limits | None = None
) -> tuple[Any, Any]:
    """The explorer as an ASGI application, and the function that ends its process.

    Args:
        target: as of :func:`explore`.
        token, hosts: as of :class:`~formulavision.explorer.gate.Gate`.
        limits: of what visitors may ask for.

    Raises:
        ConfigError: as of :func:`explore`.
    """
    limits, recipe = limits or Limits(), as_recipe(target)
    worker = Worker(limits)
    page = RecipePage(recipe, limits, worker)
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
    return Gate(app, token, hosts), worker.close
