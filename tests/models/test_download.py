"""Downloads from a server on this machine: whole, cut, changed, wrong, missing, and not weights at all."""

from __future__ import annotations

import hashlib
import http.server
import json
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ipvit.core.digests import stated_hash
from ipvit.errors import InputError
from ipvit.models.io.download import cache_path, fetch
from ipvit.models.io.state_dict import read_state_dict, resolve
from ipvit.models.io.weights_file import WeightsFile

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Files(http.server.ThreadingHTTPServer):
    """Serves what a test puts into ``files``, counts requests, and can cut connections or ignore ranges."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.requests: list[str | None] = []
        self.cut_after: int | None = None
        self.cuts = 1
        self.ranges = True
        self.tag = '"one"'

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Files

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        name = self.path.lstrip("/")
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if self.headers.get("If-Range", self.server.tag) != self.server.tag or not self.server.ranges:
            start = 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", self.server.types.get(name, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        rest = content[start:]
        if self.server.cut_after is not None and self.server.cuts > 0:
            self.server.cuts -= 1
            rest = rest[: self.server.cut_after]
        self.wfile.write(rest)
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Files]:
    files = Files()
    thread = threading.Thread(target=files.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield files
    files.shutdown()
    files.server_close()
    thread.join(timeout=5)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    for key in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    return tmp_path / "hub"


def leftovers(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir() if not file.name.endswith(".lock")}


def test_a_file_is_downloaded_once_and_its_digest_noted(server: Files, hub: Path) -> None:
    server.files["net.pth"] = CONTENT
    path = fetch(server.url("net.pth"))
    assert path == cache_path(server.url("net.pth"))
    assert path.is_relative_to(hub / "hub" / "checkpoints" / "ipvit")
    assert path.read_bytes() == CONTENT
    note = json.loads(path.with_name("net.pth.json").read_text())
    assert note == {"url": server.url("net.pth"), "sha256": DIGEST, "size": len(CONTENT)}
    assert leftovers(path) == {"net.pth", "net.pth.json"}
    assert fetch(server.url("net.pth")) == path
    assert len(server.requests) == 1


def test_two_files_of_the_same_name_do_not_meet(server: Files) -> None:
    server.files |= {"a/net.pth": b"first", "b/net.pth": b"second"}
    assert fetch(server.url("a/net.pth")).read_bytes() == b"first"
    assert fetch(server.url("b/net.pth")).read_bytes() == b"second"


def test_a_cut_connection_is_taken_up_where_it_ended(server: Files) -> None:
    server.files["net.pth"], server.cut_after = CONTENT, 300_000
    assert fetch(server.url("net.pth")).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]


def test_a_cut_download_goes_on_in_a_later_call(server: Files) -> None:
    server.files["net.pth"] = CONTENT
    path = cache_path(server.url("net.pth"))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(CONTENT[:1000])
    path.with_name("net.pth.part.version").write_text('"one"')
    assert fetch(server.url("net.pth")).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"]
    assert leftovers(path) == {"net.pth", "net.pth.json"}


def test_a_part_that_was_already_whole_is_not_downloaded_again(server: Files) -> None:
    server.files["net.pth"] = CONTENT
    path = cache_path(server.url("net.pth"))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(CONTENT)
    assert fetch(server.url("net.pth")).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_the_part_of_another_version_is_thrown_away(server: Files, ranges: bool) -> None:
    server.files["net.pth"], server.ranges = CONTENT, ranges
    path = cache_path(server.url("net.pth"))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(b"x" * 1000)
    path.with_name("net.pth.part.version").write_text('"older"')
    assert fetch(server.url("net.pth")).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server: Files) -> None:
    server.files["net.pth"] = CONTENT
    path = cache_path(server.url("net.pth"))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert fetch(server.url("net.pth")).read_bytes() == CONTENT


def test_a_server_that_gives_nothing_is_given_up_and_what_came_is_kept(server: Files) -> None:
    server.files["net.pth"], server.cut_after, server.cuts = CONTENT, 0, 100
    path = cache_path(server.url("net.pth"))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match=r"connection ended after 1,000 of 1,024,000 bytes\); 1,000 bytes are kept"):
        fetch(server.url("net.pth"))
    assert path.with_name("net.pth.part").read_bytes() == CONTENT[:1000]


def test_the_hash_in_a_name_is_the_one_of_pytorchs_zoos() -> None:
    assert stated_hash("https://x.org/deit_tiny_patch16_224-a1311bcf.pth") == "a1311bcf"
    assert stated_hash("https://x.org/resnet50_train_60_epochs-c8e5653e.pth.tar?x=1") == "c8e5653e"
    assert stated_hash("https://x.org/deit-tiny.pth") is None
    assert stated_hash("https://x.org/81.5_T2T_ViT_14.pth.tar") is None


def test_content_that_is_not_what_its_name_states_is_refused_and_not_kept(server: Files) -> None:
    server.files[f"net-{DIGEST[:8]}.pth"] = CONTENT
    server.files["net-00000000.pth"] = CONTENT
    assert fetch(server.url(f"net-{DIGEST[:8]}.pth")).is_file()
    url = server.url("net-00000000.pth")
    with pytest.raises(InputError, match=f"SHA-256 {DIGEST[:12]}, stated 00000000"):
        fetch(url)
    assert not leftovers(cache_path(url)) & {"net-00000000.pth", "net-00000000.pth.part"}


def test_a_stated_digest_is_compared_in_full(server: Files) -> None:
    server.files["net.pth"] = CONTENT
    assert fetch(server.url("net.pth"), sha256=DIGEST).is_file()
    with pytest.raises(InputError, match="stated"):
        fetch(server.url("net.pth"), sha256=DIGEST[:-1] + ("0" if DIGEST[-1] != "0" else "1"))


def test_a_kept_file_that_changed_is_refused_with_what_to_do(server: Files) -> None:
    server.files["net.pth"] = CONTENT
    path = fetch(server.url("net.pth"))
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(InputError, match=r"has changed since it was first used .* delete it to download it again"):
        fetch(server.url("net.pth"))
    path.unlink()
    assert fetch(server.url("net.pth")).read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_used_without_a_request(server: Files) -> None:
    path = cache_path(server.url("net.pth"))
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert fetch(server.url("net.pth")) == path
    assert server.requests == []
    assert json.loads(path.with_name("net.pth.json").read_text())["sha256"] == DIGEST


def test_a_missing_file_says_its_url_and_where_to_put_it(server: Files) -> None:
    url = server.url("gone.pth")
    with pytest.raises(InputError) as caught:
        fetch(url)
    text = str(caught.value)
    assert f"{url} answers 404" in text
    assert str(cache_path(url)) in text
    assert "\n" not in text


def test_without_a_network_one_line_says_url_and_path() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/net.pth"
        with pytest.raises(InputError) as caught:
            fetch(url)
    text = str(caught.value)
    assert f"cannot download {url} (" in text
    assert f"save it by hand as {str(cache_path(url))!r}" in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_refused_and_not_kept(server: Files, kind: str) -> None:
    server.files["net.pth"], server.types["net.pth"] = b"\n<!doctype html><title>sign in</title>", kind
    with pytest.raises(InputError, match="web page, not weights"):
        fetch(server.url("net.pth"))
    assert "net.pth" not in leftovers(cache_path(server.url("net.pth")))


def test_a_file_url_is_used_in_place(tmp_path: Path) -> None:
    path = tmp_path / "my net.pth"
    path.write_bytes(CONTENT)
    assert fetch(path.as_uri()) == path
    with pytest.raises(InputError, match="stated 00000000"):
        fetch(path.as_uri(), sha256="00000000")
    with pytest.raises(InputError, match="there is no file"):
        fetch((tmp_path / "none.pth").as_uri())


def _fetch_length(url: str, answers: object) -> None:
    answers.put(len(fetch(url).read_bytes()))  # type: ignore[attr-defined]


def test_two_processes_at_once_download_one_file(server: Files) -> None:
    server.files["net.pth"] = CONTENT
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_fetch_length, args=(server.url("net.pth"), answers)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=30) for _ in processes] == [len(CONTENT)] * 2
    for process in processes:
        process.join(timeout=10)
    assert len(server.requests) == 1


def test_weights_behind_a_url_are_resolved_and_read(server: Files, tmp_path: Path) -> None:
    weights = {"w": torch.arange(3.0)}
    torch.save({"state_dict": {"w": torch.zeros(3)}, "state_dict_ema": weights}, tmp_path / "net.pth")
    server.files["net.pth.tar"] = (tmp_path / "net.pth").read_bytes()
    path = resolve(server.url("net.pth.tar"))
    assert read_state_dict(path)["w"].tolist() == [0, 1, 2]
    network = torch.nn.Module()
    network.register_buffer("w", torch.ones(3))
    of_key = WeightsFile.read(f"{path}#state_dict").state_for(network)
    assert of_key["w"].tolist() == [0, 0, 0]


def test_numpy_scalars_beside_the_weights_do_not_hinder_reading(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {"w": torch.ones(2)}, "metric": np.float64(81.5), "epoch": np.int64(3)}, tmp_path / "n.pth"
    )
    assert read_state_dict(tmp_path / "n.pth")["w"].tolist() == [1, 1]
