"""A stand-in for the HTTP interface of the Hugging Face Hub, on the loopback address, for push and pull."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class HubStandIn(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        files: by repository (``datasets/user/name``), by path.
        private: repositories that may not be written.
        gated: repositories whose files may not be read.
        requests: method and path of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.commits = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def revision(self) -> str:
        """The hash of the last commit."""
        return f"{self.commits:040x}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        content = self._content()
        path = urlsplit(unquote(self.path)).path
        self.server.requests.append(f"POST {path}")
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization', 'user')}/{asked['name']}"
            repository = f"{asked.get('type', 'model')}s/{name}"
            if repository in self.server.files:
                return self._json({"error": "exists", "url": f"{self.server.url}/{repository}"}, 409)
            self.server.files[repository] = {".gitattributes": b"*.parquet filter=lfs\n"}
            return self._json({"url": f"{self.server.url}/{repository.removeprefix('models/')}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(content)["objects"]
            upload = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/blob/{each['oid']}", "header": {}}}}
                for each in wanted
            ]
            return self._json({"transfer": "basic", "objects": upload}, kind="application/vnd.git-lfs+json")
        repository, _, action = path.removeprefix("/api/").partition("/preupload/")
        if action:
            large = (".parquet", ".safetensors")
            files = [
                {"path": p, "uploadMode": "lfs" if p.endswith(large) else "regular", "shouldIgnore": False}
                for p in (each["path"] for each in json.loads(content)["files"])
            ]
            if repository in self.server.private:
                return self._json({"error": "forbidden"}, 403)
            return self._json({"files": files})
        repository, _, action = path.removeprefix("/api/").partition("/commit/")
        if action:
            self.server.commits += 1
            files_of = self.server.files[repository]
            for line in map(json.loads, content.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files_of[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files_of[value["path"]] = self.server.blobs[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files_of[value["path"]]
            url = f"{self.server.url}/{repository.removeprefix('models/')}/commit/{self.server.revision}"
            return self._json({"success": True, "commitUrl": url, "commitOid": self.server.revision})
        repository, _, action = path.removeprefix("/api/").partition("/paths-info/")
        if action and repository in self.server.files:
            from urllib.parse import parse_qs

            paths = parse_qs(content.decode()).get("paths") or json.loads(content)["paths"]
            return self._json([entry for entry in self._entries(repository) if entry["path"] in paths])
        return self._missing()

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def do_PUT(self) -> None:
        content = self._content()
        self.server.requests.append(f"PUT {self.path}")
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.server.blobs[self.path.rpartition("/")[2]] = content
        self._json({})

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        self._get(body=True)

    def _get(self, *, body: bool) -> None:
        path = urlsplit(unquote(self.path)).path
        self.server.requests.append(f"{self.command} {path}")
        if path.startswith("/api/"):
            place = path.removeprefix("/api/")
            repository = "/".join(place.split("/")[:3])
            action = place.removeprefix(repository).strip("/").split("/")
            if repository not in self.server.files:
                return self._missing()
            if action[0] == "tree":
                below = "/".join(action[2:])
                recursive = "recursive=true" in self.path.lower()
                entries = [e for e in self._entries(repository) if not below or e["path"].startswith(f"{below}/")]
                return self._json([e for e in entries if recursive or "/" not in e["path"][len(below) :].strip("/")])
            siblings = [{"rfilename": name} for name in self.server.files[repository]]
            name = repository.partition("/")[2]
            return self._json(
                {"id": name, "sha": self.server.revision, "siblings": siblings, "private": False, "tags": []}
            )
        place, _, rest = path.strip("/").partition("/resolve/")
        repository = place if place.startswith("datasets/") else f"models/{place}"
        name = rest.partition("/")[2]
        content = self.server.files.get(repository, {}).get(name)
        if repository in self.server.gated:
            return self._missing("GatedRepo", 403)
        if repository not in self.server.files:
            return self._missing()
        if content is None:
            return self._missing("EntryNotFound")
        status, whole = 200, len(content)
        extra = {}
        if (asked := self.headers.get("Range")) is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            status, content = 206, content[int(first) : int(last) + 1 if last else None]
            extra["Content-Range"] = f"bytes {first}-{int(first) + len(content) - 1}/{whole}"
        etag = hashlib.sha256(self.server.files[repository][name]).hexdigest()
        headers = {"X-Repo-Commit": self.server.revision, "ETag": f'"{etag}"', "Accept-Ranges": "bytes", **extra}
        self._send(content, status, headers, body=body)

    def _entries(self, repository: str) -> list[dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        for name, content in self.server.files[repository].items():
            parts = name.split("/")
            for end in range(1, len(parts)):
                folder = "/".join(parts[:end])
                entries[folder] = {"type": "directory", "path": folder, "oid": "b" * 40, "size": 0}
            oid = hashlib.sha1(content).hexdigest()
            entries[name] = {"type": "file", "path": name, "oid": oid, "size": len(content)}
        return list(entries.values())

    def _missing(self, code: str = "RepoNotFound", status: int = 404) -> None:
        self._send(b"{}", status, {"X-Error-Code": code, "X-Error-Message": "not found"})

    def _json(self, content: Any, status: int = 200, kind: str = "application/json") -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": kind})

    def _send(self, content: bytes, status: int, headers: dict[str, str], *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)
