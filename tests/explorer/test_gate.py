"""What the explorer answers: with a token where it is open to others, only the paths that its pages need."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from formulavision.explorer.gate import Gate


async def behind(request: Any) -> PlainTextResponse:
    return PlainTextResponse("behind")


def client(token: str | None = None, hosts: frozenset[str] | None = None) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", behind, methods=["GET", "POST"])])
    return TestClient(Gate(app, token, hosts), base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/file%3D/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/component_server",
        "/gradio_api/stream/0/0/0/playlist-file",
        "/gradio_api/run/predict",
        "/gradio_api/openapi.json",
        "/gradio_api/queue/../file=/etc/passwd",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "//etc/passwd",
    ],
)
def test_files_uploads_and_statistics_are_not_reached(path: str) -> None:
    for method in ("GET", "POST"):
        assert client().request(method, path).status_code == 404


def test_what_the_pages_need_is_answered_and_loads_nothing_from_elsewhere() -> None:
    for path in ("/", "/config", "/assets/a.js", "/gradio_api/queue/data", "/gradio_api/heartbeat/a1"):
        answer = client().get(path)
        assert answer.text == "behind" and "default-src 'self'" in answer.headers["content-security-policy"]


def test_a_request_is_not_larger_than_the_settings_of_a_recipe() -> None:
    assert client().post("/gradio_api/queue/join", content=b"x" * 1_000_000).status_code == 200
    assert client().post("/gradio_api/queue/join", content=b"x" * 1_000_001).status_code == 413
    assert client().post("/gradio_api/queue/join", content=iter([b"x"])).status_code == 413  # of unknown length


def test_without_its_token_nothing_is_answered() -> None:
    visitor = client("secret")
    for path in ("/", "/config", "/assets/a.js", "/?token=secre", "/?token=", "/?token=é"):
        assert visitor.get(path).status_code == 401
    visitor.cookies.set("formulavision-token", "other")
    assert visitor.get("/").status_code == 401


def test_the_token_moves_from_the_address_into_a_cookie() -> None:
    visitor = client("secret")
    answer = visitor.get("/?token=secret", follow_redirects=False)
    assert answer.headers["location"] == "/" and "httponly" in answer.headers["set-cookie"].lower()
    assert visitor.get("/").text == "behind"


def test_the_name_of_another_site_is_refused_on_the_loopback_address() -> None:
    visitor = client(hosts=frozenset({"127.0.0.1", "localhost", "::1"}))
    assert visitor.get("/").status_code == 200
    assert visitor.get("/", headers={"host": "localhost:7860"}).status_code == 200
    assert visitor.get("/", headers={"host": "[::1]:7860"}).status_code == 200
    assert visitor.get("/", headers={"host": "example.com"}).status_code == 403
