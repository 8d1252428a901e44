"""A Hub of this machine alone: what ``huggingface_hub`` asks of a server, answered from a dict of files."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

Files = dict[str, bytes]


class FakeHub:
    """Repositories by name, each with the files of its only revision.

    Attributes:
        repositories: what is stored.
        asked: methods and paths of all requests.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Files] = {}
        self.asked: list[str] = []

    def put(self, repository: str, folder: Path) -> None:
        """Store the files of a folder."""
        self.repositories[repository] = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        files = self.repositories[repository]
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])

    def sha(self, repository: str) -> str:
        """Another one whenever the files are others."""
        files = sorted(self.repositories[repository].items())
        return hashlib.sha1(repr(files).encode()).hexdigest()


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that ``huggingface_hub`` takes for the real one, with its cache in a folder."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parts = self.path.strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            given = json.loads(body)
            name = f"{given.get('organization') or 'nobody'}/{given['name']}"
            self.hub.repositories.setdefault(name, {})
            return self._json({"url": f"http://{self.headers['Host']}/{name}"})
        if parts == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        repository = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self._json({"files": files})
        self.hub.commit(repository, [json.loads(line) for line in body.splitlines()])
        sha = self.hub.sha(repository)
        return self._json({"commitUrl": f"http://{self.headers['Host']}/{repository}/commit/{sha}",
                           "commitOid": sha, "pullRequestUrl": None})  # fmt: skip

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        info = parts[0] == "api"
        repository = "/".join(parts[2:4] if info else parts[:2])
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        sha = self.hub.sha(repository)
        if info and "tree" in parts:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self._json(tree)
        if info:
            return self._json({"id": repository, "sha": sha, "siblings": [{"rfilename": n} for n in files]})
        content = files.get(parts[4])
        if content is None:
            missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            return self._json({"error": "Entry not found"}, 404, missing)
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self._send(content, 200, {"ETag": tag, "X-Repo-Commit": sha})

    do_HEAD = do_GET

    def _json(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            json.dumps(answer).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
