"""A hub of models on this machine that speaks the few calls that smn makes, and breaks down on request."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

from tests.conftest import Outcome

ROOT = Path(__file__).parent.parent
TOKEN = "hf_right"


@dataclass
class Hub:
    """What is on it, and how it answers.

    Attributes:
        files: content by repository and name, of the newest commit.
        private: repositories that only the token opens.
        cut: names of files whose download ends in the middle.
        headers: of the answer to a file, in place of the right ones; a hostile hub says there what it likes.
        leads_to: where a file is said to be instead; empty if it is here.
        fails_commits: whether commits are refused with a fault of the server.
        calls: method and path of every request.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    headers: dict[str, str] = field(default_factory=dict)
    leads_to: str = ""
    fails_commits: bool = False
    calls: list[str] = field(default_factory=list)
    endpoint: str = ""

    def commit(self, repository: str) -> str:
        return hashlib.sha1(repr(sorted(self.files[repository].items())).encode()).hexdigest()


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve it while the block lasts."""

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def smn(home: Path, hub: Hub, *words: object, **variables: str) -> Outcome:
    """Run a command of smn in a process of its own, whose hub is that one."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home / "hf"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", "smn_cli", *map(str, words)], capture_output=True, text=True, env=environment, cwd=home
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._resolve(with_body=False)

    def do_GET(self) -> None:
        path = unquote(self.path)
        if not path.startswith("/api/models/"):
            self._resolve(with_body=True)
            return
        self.state.calls.append(f"GET {path}")
        repository = path.removeprefix("/api/models/").partition("?")[0]
        if repository not in self.state.files:
            self._answer(404, {"error": "none"}, {"X-Error-Code": "RepoNotFound"})
            return
        private = repository in self.state.private
        self._answer(200, {"id": repository, "private": private, "sha": self.state.commit(repository), "siblings": []})

    def do_POST(self) -> None:
        path, body = unquote(self.path), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.state.calls.append(f"POST {path}")
        if path == "/api/validate-yaml":
            errors = [{"message": '"license" must be one of a list'}] if b"license: mine" in body else []
            self._answer(400 if errors else 200, {"errors": errors, "warnings": []})
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            message = "Invalid credentials in Authorization header"
            self._answer(401, {"error": message}, {"X-Error-Message": message})
            return
        if path == "/api/repos/create":
            self._create(json.loads(body))
            return
        repository = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if path.endswith("/preupload/main"):
            told = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for each in json.loads(body)["files"]
            ]
            self._answer(200, {"files": told})
            return
        if path.endswith("/commit/main") and not self.state.fails_commits:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.state.files[repository][entry["value"]["path"]] = content
            commit = self.state.commit(repository)
            url = f"{self.state.endpoint}/{repository}/commit/{commit}"
            self._answer(200, {"commitUrl": url, "commitOid": commit, "success": True, "hookOutput": ""})
            return
        self._answer(500, {"error": "out of order"})
        return

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        url = f"{self.state.endpoint}/{repository}"
        if repository in self.state.files:
            self._answer(409, {"error": "You already created this model repo", "url": url})
            return
        self.state.files[repository] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.state.private.add(repository)
        self._answer(200, {"url": url, "id": repository})

    def _resolve(self, *, with_body: bool) -> None:
        path = unquote(self.path).partition("?")[0]
        self.state.calls.append(f"{self.command} {path}")
        repository, _, place = path.strip("/").partition("/resolve/")
        revision, _, name = place.partition("/")
        files, has_token = self.state.files.get(repository), self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.headers.get("Authorization") and not has_token:
            message = "Invalid credentials in Authorization header"
            self._answer(401, {"error": message}, {"X-Error-Message": message})
            return
        if files is None or (repository in self.state.private and not has_token):
            self._answer(404 if has_token else 401, {"error": "none"}, {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in ("main", self.state.commit(repository)):
            self._answer(404, {"error": "none"}, {"X-Error-Code": "RevisionNotFound"})
            return
        if name not in files:
            told = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.state.commit(repository)}
            self._answer(404, {"error": "none"}, told)
            return
        self._send_file(files[name], self.state.commit(repository), with_body, is_cut=name in self.state.cut)

    def _send_file(self, content: bytes, commit: str, with_body: bool, *, is_cut: bool) -> None:
        self.send_response(302 if self.state.leads_to else 200)
        told = {
            "Content-Length": str(len(content)),
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            **({"Location": self.state.leads_to} if self.state.leads_to else {}),
            **self.state.headers,
        }
        for key, value in told.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content[: len(content) // 2] if is_cut else content)
            self.close_connection = is_cut

    def _answer(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
