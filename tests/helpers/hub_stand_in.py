"""A stand-in for the Hugging Face hub: one model repository, its README, and what is committed to it."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY = "me/net"


class StandIn:
    """What the hub was asked for and given.

    Attributes:
        readme: of the repository; None where there is none.
        commits: files of each commit, by path.
        tokens: that were sent along.
        pull_requests: how many commits were to be one.
    """

    def __init__(self, readme: str | None) -> None:
        self.readme = readme
        self.commits: list[dict[str, str]] = []
        self.tokens: set[str | None] = set()
        self.pull_requests = 0
        self.address = ""


@contextlib.contextmanager
def hub(readme: str | None = None) -> Iterator[StandIn]:
    """Serve a repository on this computer."""
    found = StandIn(readme)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            pass

        def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            found.tokens.add(self.headers.get("Authorization"))
            if not self.path.startswith(f"/{REPOSITORY}/resolve/"):
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            elif found.readme is None:
                self.answer(404, b"{}", X_Error_Code="EntryNotFound")
            else:
                self.answer(200, found.readme.encode(), ETag='"a"', X_Repo_Commit="c" * 40)

        def do_POST(self) -> None:
            found.tokens.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/validate-yaml":  # what is wrong with the metadata of a README
                self.answer(200, b'{"errors": [], "warnings": []}')
            elif f"/api/models/{REPOSITORY}/" not in self.path:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            elif "/preupload/" in self.path:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                self.answer(200, json.dumps({"files": files}).encode())
            else:
                lines = [json.loads(line) for line in body.decode().splitlines()]
                files = [line["value"] for line in lines if line["key"] == "file"]
                found.commits.append({file["path"]: base64.b64decode(file["content"]).decode() for file in files})
                done = {"commitUrl": f"{found.address}/{REPOSITORY}/commit/1", "commitOid": "d" * 40}
                if "create_pr=1" in self.path:
                    found.pull_requests += 1
                    done["pullRequestUrl"] = f"{found.address}/{REPOSITORY}/discussions/1"
                self.answer(200, json.dumps(done).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield found
        server.shutdown()
