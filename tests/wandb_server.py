"""A stand-in for W&B's server on the loopback: what wandb's client asks while it creates, resumes and writes a run."""

import gzip
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"
"""Of the form that wandb takes for an API key."""


@dataclass
class Run:
    """What the server has of a run."""

    upserts: list[dict[str, Any]] = field(default_factory=list)
    """Variables of each request that created or changed it."""
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Lines of `wandb-history.jsonl` and its like; a line that is sent to a place replaces what is there."""
    exits: list[int] = field(default_factory=list)
    posts: int = 0
    """Requests of its file stream."""

    def latest(self, name: str) -> Any:
        """The newest value of a variable that was sent."""
        return next((one[name] for one in reversed(self.upserts) if one.get(name) is not None), None)

    @property
    def config(self) -> dict[str, Any]:
        """Values by key."""
        return {key: entry["value"] for key, entry in json.loads(self.latest("config") or "{}").items()}

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows, in order."""
        return [json.loads(line) for line in self.files["wandb-history.jsonl"]]

    @property
    def summary(self) -> dict[str, Any]:
        """The newest summary."""
        lines = self.files["wandb-summary.json"]
        return json.loads(lines[-1]) if lines else {}


class Server(ThreadingHTTPServer):
    """Its state; `status` other than 200 is the answer to everything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.runs: dict[str, Run] = defaultdict(Run)
        self.requests: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.bodies: list[bytes] = []
        self.lock = threading.Lock()

    def handle_error(self, request: Any, address: Any) -> None:
        """Silent: a client that stops breaks connections off."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *anything: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.uploads[self.path.removeprefix("/upload/")] = body
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.bodies.append(body)
            if self.server.status != 200:
                self.server.requests.append(self.path)
                return self._answer({"error": "not now"})
            if self.path == "/graphql":
                return self._answer({"data": self._graphql(json.loads(body))})
            if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                self.server.requests.append("file_stream")
                self._stream(self.server.runs[stream[1]], json.loads(body))
            else:
                self.server.requests.append(self.path)
        return self._answer({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body

    def _answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _graphql(self, sent: dict[str, Any]) -> dict[str, Any]:
        variables = sent.get("variables") or {}
        name = sent.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", sent["query"])[1]
        self.server.requests.append(name)
        answer = getattr(self, f"_{name}", None)
        return answer(variables) if answer else {}

    def _Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": "lab"}}]}
        return {"viewer": {"id": "u", "entity": "lab", "username": "u", "email": "", "flags": "{}", "teams": teams}}

    def _ServerInfo(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "latestLocalVersionInfo": None}}

    def _ServerFeaturesQuery(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        known = variables["name"] in self.server.runs
        run = self.server.runs[variables["name"]]
        run.upserts.append(variables)
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "lab"}}
        bucket = {
            "id": f"id-{variables['name']}",
            "name": variables["name"],
            "displayName": variables.get("displayName") or variables["name"],
            "description": "",
            "config": variables.get("config") or "{}",
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.files["wandb-history.jsonl"]),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": not known}}

    def _RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        model: dict[str, Any] = {"id": "p", "name": "p", "entity": {"id": "e", "name": "lab"}, "bucket": None}
        if variables["name"] in self.server.runs:
            run = self.server.runs[variables["name"]]
            model["bucket"] = {
                "id": f"id-{variables['name']}",
                "name": variables["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.latest("displayName"),
                "logLineCount": len(run.files["output.log"]),
                "historyLineCount": len(run.files["wandb-history.jsonl"]),
                "eventsLineCount": len(run.files["wandb-events.jsonl"]),
                "historyTail": json.dumps(run.files["wandb-history.jsonl"][-1:]),
                "eventsTail": json.dumps(run.files["wandb-events.jsonl"][-1:]),
                "config": run.latest("config") or "{}",
                "tags": run.latest("tags") or [],
                "notes": None,
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": model}

    def _RunStoppedStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.server.url}/upload/{variables['run']}/{name}"}
            for name in variables["files"]
        ]
        return {"createRunFiles": {"runID": f"id-{variables['run']}", "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"markRunFilesUploaded": {"success": True}}

    def _stream(self, run: Run, sent: dict[str, Any]) -> None:
        run.posts += 1
        for name, chunk in (sent.get("files") or {}).items():
            lines, offset = run.files[name], chunk["offset"]
            if name == "wandb-summary.json":
                lines, offset = run.files.setdefault(name, []), 0
            lines[offset : offset + len(chunk["content"])] = chunk["content"]
        if sent.get("complete"):
            run.exits.append(sent.get("exitcode"))


@contextmanager
def serving() -> Iterator[Server]:
    """A server that listens until the block ends."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
