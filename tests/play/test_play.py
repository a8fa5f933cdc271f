"""The playground's server and what it computes; no browser here."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ipvit
from ipvit.cli import main
from ipvit.models.model import Model
from ipvit.play import Playground, PlayServer, Shelf, photos
from ipvit.play.photos import MAX_UPLOADS
from ipvit.play.playground import salience_model

MEGABYTE = 2**20


class Unwell(nn.Module):
    """A network that fails as networks do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 2:  # well while it is tried
            return torch.zeros(2, 3)
        raise KeyError("a weight\nis missing")


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict:
        return json.loads(self.body)


@pytest.fixture(scope="module")
def models() -> list[Model]:
    return [
        *(ipvit.load_model(name) for name in ("demo:deit_micro", "demo:resnet_micro")),
        ipvit.wrap(Unwell(), size=64, name="unwell"),
    ]


@pytest.fixture(scope="module")
def server(models) -> Iterator[PlayServer]:
    with PlayServer(Playground(models, Shelf(), salience=salience_model(models))) as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def say(server):
    """Send one request, with a body of bytes or of JSON, and the headers the page would send unless told otherwise."""

    def send(path: str, body: object = None, method: str = "POST", **headers: str | None) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"X-Ipvit-Key": server.key, "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        left_out = {name.replace("_", "-") for name, value in headers.items() if value is None}
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.putrequest(method, path, skip_host="Host" in given)
        if "Content-Length" not in given and "Transfer-Encoding" not in given and data is not None:
            given["Content-Length"] = str(len(data))
        for name, value in given.items():
            if name not in left_out:
                connection.putheader(name, value)
        connection.endheaders()
        if data:
            connection.send(data)
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer

    return send


def look(say, **settings: object) -> Answer:
    return say("/api/look", {"panel": "left", "photo": "0", "model": 0} | settings)


def pixels_of(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def photo_file(kind: str = "JPEG", size: tuple[int, int] = (80, 60), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


# Who is answered.


def test_the_page_is_served_without_key_and_may_load_nothing_from_elsewhere(say):
    for path, kind in (("/", "text/html"), ("/play.css", "text/css"), ("/play.js", "text/javascript")):
        answer = say(path, method="GET", X_Ipvit_Key=None)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert b"http" not in answer.body.replace(b"https://", b"http://").replace(b"http-equiv", b"")


@pytest.mark.parametrize("key", [None, "", "wrong", "ключ".encode().decode("latin-1")])
def test_without_the_key_of_the_session_nothing_is_answered(say, key):
    answer = say("/api/start", X_Ipvit_Key=key)
    assert answer.status == 401 and "the address that ipvit play printed" in answer.content["error"]


def test_another_host_name_is_refused_and_localhost_is_not(say, server):
    port = server.server_port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"127.0.0.1.nip.io:{port}",
    ):
        assert say("/", method="GET", Host=host).status == 403
        assert say("/api/start", Host=host).status == 403
    assert say("/api/start", Host=f"localhost:{port}").status == 200


def test_another_page_is_refused(say, server):
    own = f"http://127.0.0.1:{server.server_port}"
    for origin in ("http://evil.example", "null", own.replace("http:", "https:"), f"{own}1"):
        assert say("/api/start", Origin=origin).status == 403
    assert say("/api/start", Sec_Fetch_Site="cross-site").status == 403
    assert say("/api/start", Origin=own, Sec_Fetch_Site="same-origin").status == 200


@pytest.mark.parametrize(
    "path",
    ["/../../../../etc/passwd", "/%2e%2e/server.py", "/page/index.html", "/api/../play.js", "//etc/passwd", "/api"],
)
def test_only_the_pages_own_files_are_served(say, path):
    assert say(path, method="GET").status == 404
    assert say(path).status == 404


def test_only_this_computer_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"


# What is refused.


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "it must be JSON"),
        (b"\xff\xfe", "it must be JSON"),
        (b"[]", "it must be a mapping"),
        ({}, "panel"),
        ({"panel": "left", "photo": "0", "model": "0"}, "model"),
        ({"panel": "left", "photo": "0", "model": 99}, "networks 0 to 2"),
        ({"panel": "left", "photo": "../../etc/passwd", "model": 0}, "no photo"),
        ({"panel": "left", "photo": "-1", "model": 0}, "no photo"),
        ({"panel": "left", "photo": "²", "model": 0}, "no photo"),
        ({"panel": "left", "photo": "0", "model": 0, "gird": 8}, "there is no 'gird'. Did you mean 'grid'?"),
        ({"panel": "left", "photo": "0", "model": 0, "grid": 4, "dropped": [16]}, "cells 0 to 15"),
        ({"panel": "left", "photo": "0", "model": 0, "shuffle": 10**9}, "shuffle"),
        ({"panel": "left", "photo": "0", "model": 0, "corruption": "rust", "severity": 1}, "unknown corruption 'rust'"),
        ({"panel": "left", "photo": "0", "model": 0, "epsilon": 1e9}, "epsilon"),
        ({"panel": "left", "photo": "0", "model": 0, "inside": {"block": 6}}, "blocks 0 to 5, no block 6"),
        ({"panel": "left", "photo": "0", "model": 0, "inside": {"block": 0, "head": 3}}, "heads 0 to 2, no head 3"),
        ({"panel": "left", "photo": "0", "model": 0, "inside": {"block": 0, "token": "cls"}}, "no cls token"),
    ],
)
def test_a_wrong_request_is_refused_with_one_line(say, body, words):
    answer = say("/api/look", body)
    assert answer.status == 400
    assert words in answer.content["error"] and "\n" not in answer.content["error"]


def test_a_body_is_judged_by_its_stated_size_before_it_is_read(say):
    answer = say("/api/upload", b"", Content_Length=str(20 * MEGABYTE))  # a server that waits for them times out
    assert answer.status == 413 and "too large: 20.0 MB, and 10 MB are the most" in answer.content["error"]
    assert answer.headers["Connection"] == "close"
    assert say("/api/look", b"", Content_Length=str(MEGABYTE)).status == 413


def test_a_file_of_20_megabytes_is_refused_and_the_sender_hears_why(say):
    answer = say("/api/upload", bytes(20 * MEGABYTE), Content_Type="application/octet-stream")
    assert answer.status == 413 and "10 MB are the most" in answer.content["error"]


@pytest.mark.parametrize(
    "headers", [{"Content_Length": "-1"}, {"Content_Length": "x"}, {"Transfer_Encoding": "chunked"}]
)
def test_a_body_without_a_stated_length_is_refused(say, headers):
    assert say("/api/upload", b"", **headers).status == 411


def test_a_form_of_another_page_is_no_request(say):
    assert say("/api/look", {"panel": "left"}, Content_Type="text/plain").status == 415


def huge_png() -> bytes:
    """The beginning of a picture that says it has 3.6 thousand million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + bytes(64)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"This is no photo, although it is called holiday.jpg.", "not a photo that can be read here"),
        (b"", "not a photo"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not a photo"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a photo"),
        (photo_file()[:3000], "damaged"),
        (huge_png(), "not a photo"),
        (photo_file("PPM"), "not a photo"),
    ],
    ids=["text", "empty", "zeros", "svg", "postscript", "cut off", "bomb", "another format"],
)
def test_what_is_not_a_photo_is_refused_whatever_it_is_called(say, data, words):
    answer = say("/api/upload", data, Content_Type="application/octet-stream")
    assert answer.status == 400 and words in answer.content["error"]


def test_too_many_pixels_are_refused(say, monkeypatch):
    monkeypatch.setattr(photos, "MAX_PIXELS", 4_000)
    assert "80 x 60 pixels are too many" in say("/api/upload", photo_file()).content["error"]


def test_a_photo_that_is_too_long_is_refused_before_it_is_decoded(say, monkeypatch):
    buffer = io.BytesIO()
    Image.new("1", (1, photos.MAX_SIDE + 1)).save(buffer, "PNG")
    monkeypatch.setattr(photos, "decode", None)
    answer = say("/api/upload", buffer.getvalue(), Content_Type="application/octet-stream")
    assert answer.status == 400 and "1 x 20001 pixels are too long a photo" in answer.content["error"]


def test_nobody_waits_while_an_uploaded_photo_is_decoded(say, server, monkeypatch):
    """The decoding goes on until somebody else was answered."""
    kept = say("/api/upload", photo_file(), Content_Type="application/octet-stream").content["id"]
    answered = threading.Event()
    decode, slow = photos.decode_upload, []

    def until_answered(data: bytes) -> torch.Tensor:
        slow.append(answered.wait(20))
        return decode(data)

    monkeypatch.setattr(photos, "decode_upload", until_answered)
    asked = [("/api/upload", photo_file()), ("/api/view", {"photo": kept, "model": 0}), ("/api/look", None)]
    asked[2] = ("/api/look", {"panel": "right", "photo": kept, "model": 1})
    threads = [threading.Thread(target=say, args=request) for request in asked]
    for thread in threads:
        thread.start()
    assert look(say).status == 200
    answered.set()
    for thread in threads:
        thread.join()
    assert len(slow) == 3 and all(slow)


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://[ HTTP/1.1",
        b"POST http://[ HTTP/1.1",
        b"GET http://[::1/x HTTP/1.1",
        b"GET / HTTP/x",
        b"GET / HTTP/1.1.1",
        b"GET  /  /  / HTTP/1.1",
        b"POST /",
        b"\xff\x00\x01",
        b"GET",
    ],
)
def test_a_malformed_request_line_is_a_bad_request(server, line, capfd):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        head = f"Host: 127.0.0.1:{server.server_port}\r\nX-Ipvit-Key: {server.key}\r\nContent-Length: 0\r\n"
        connection.sendall(line + b"\r\n" + head.encode() + b"Connection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    first = answer.splitlines()[0]
    if first.startswith(b"HTTP/"):
        assert first.split()[1] == b"400", answer
    else:  # as HTTP 0.9 is answered, which knows no status
        assert b"Error code: 400" in answer, answer
    assert "Traceback" not in capfd.readouterr().err


def test_a_network_that_fails_says_so_in_one_line_and_the_server_lives_on(say):
    answer = look(say, model=2)
    assert answer.status == 500 and answer.content["error"] == r"KeyError: 'a weight\nis missing'"
    assert look(say).status == 200


# What is answered.


def test_the_first_photos_are_offered_with_their_captions(say):
    first = say("/api/photos", {}).content
    assert [photo["id"] for photo in first["photos"]] == [str(i) for i in range(12)] and first["next"] == 12
    natural, conflict = first["photos"][0]["caption"], first["photos"][1]["caption"]
    assert " in " in natural and conflict.endswith("'s texture")
    assert pixels_of(first["photos"][0]["thumbnail"]).shape == (96, 96, 3)
    assert say("/api/photos", {"first": 996}).content["next"] is None


def test_networks_are_described(say):
    start = say("/api/start").content
    assert [model["name"] for model in start["models"]] == ["demo:deit_micro", "demo:resnet_micro", "unwell"]
    assert start["models"][0]["blocks"] == 6 and start["models"][0]["patches"] == [8, 8]
    assert start["models"][1]["tokens"] == [] and start["salience"] == "demo:deit_micro"


def test_the_answer_is_the_networks_own_on_the_picture_without_the_dropped_patches(say, models):
    view = pixels_of(say("/api/view", {"photo": "4", "model": 0}).content["image"])
    assert view.shape == (64, 64, 3)
    answer = look(say, photo="4", grid=8, dropped=[0, 9, 63]).content
    expected = view.copy()
    for row, column in ((0, 0), (1, 1), (7, 7)):
        expected[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
    assert (pixels_of(answer["image"]) == expected).all()
    with torch.inference_mode():
        now, before = (
            models[0](torch.from_numpy(x.copy()).permute(2, 0, 1)[None] / 255)[0].softmax(0) for x in (expected, view)
        )
    order = now.argsort(descending=True)[:5].tolist()
    assert [entry["name"] for entry in answer["top"]] == [models[0].classes[i] for i in order]
    assert [entry["probability"] for entry in answer["top"]] == pytest.approx([float(now[i]) for i in order], abs=1e-4)
    assert [entry["before"] for entry in answer["top"]] == pytest.approx([float(before[i]) for i in order], abs=1e-4)
    assert answer["before"]["name"] == models[0].classes[int(before.argmax())]


def test_the_photos_own_class_is_marked(say):
    caption = say("/api/photos", {}).content["photos"][0]["caption"]
    (right,) = [entry for entry in look(say).content["top"] if entry["right"]]
    assert caption.startswith(f"{right['name']} in ")


def test_random_patches_are_as_many_as_the_loss_says_and_a_greater_loss_adds_to_them(say):
    def cells(loss: float, seed: int = 0) -> set[int]:
        asked = {"photo": "0", "grid": 8, "mode": "random", "loss": loss, "seed": seed}
        return set(say("/api/cells", asked).content["dropped"])

    assert cells(0) == set() and cells(1) == set(range(64))
    assert len(cells(0.35)) == 22 and cells(0.35) < cells(0.5)
    assert cells(0.5) != cells(0.5, seed=1)


def test_salient_patches_are_those_the_transformer_looks_at_most(say, models):
    view = pixels_of(say("/api/view", {"photo": "2", "model": 0}).content["image"])
    images = torch.from_numpy(view.copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        weights = models[0].attention(images, [5])[5][0, :, 0, 1:].double().mean(dim=0)
    asked = {"photo": "2", "grid": 8, "loss": 0.4}
    salient = say("/api/cells", asked | {"mode": "salient"}).content["dropped"]
    order = weights.argsort(descending=True).tolist()
    assert set(salient) == set(order[: len(salient)])
    assert weights[salient].sum() >= 0.4 * weights.sum() > weights[order[: len(salient) - 1]].sum()
    others = say("/api/cells", asked | {"mode": "non_salient", "loss": 0.6}).content["dropped"]
    assert sorted(salient + others) == list(range(64)), "salient at m and non-salient at 1 - m are complements"


def test_shuffled_cells_are_the_same_cells_elsewhere(say):
    before, after = (pixels_of(look(say, shuffle=n).content["image"]) for n in (1, 2))
    assert (before != after).any()

    def cells(picture: np.ndarray) -> list[bytes]:
        return sorted(picture[y : y + 32, x : x + 32].tobytes() for y in (0, 32) for x in (0, 32))

    assert cells(before) == cells(after)


def test_cells_that_do_not_divide_a_networks_input_give_way_to_the_nearest_that_do(say):
    same, seven, eight = (look(say, shuffle=n).content for n in (1, 7, 8))
    assert seven["image"] == eight["image"] and seven["shuffled"] == eight["shuffled"] == [8, 8]
    assert same["shuffled"] is None


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_an_attack_stays_within_its_strength_and_lowers_the_answer(say, attack):
    clean = look(say).content
    attacked = look(say, attack=attack, epsilon=4.0).content
    difference = pixels_of(attacked["image"]).astype(int) - pixels_of(clean["image"]).astype(int)
    assert 0 < abs(difference).max() <= 4
    now = {entry["name"]: entry["probability"] for entry in attacked["top"]}
    assert now.get(clean["top"][0]["name"], 0) < clean["top"][0]["probability"]


def test_a_corruption_changes_the_picture_the_same_way_each_time(say):
    pictures = [look(say, corruption="fog", severity=severity).content["image"] for severity in (0, 3, 3, 5)]
    assert pictures[1] == pictures[2] and len(set(pictures)) == 3


def test_attention_and_mask_are_the_blocks_own(say, models):
    answer = look(say, photo="2", inside={"block": 3, "head": 1, "threshold": 0.5}).content
    images = torch.from_numpy(pixels_of(answer["image"]).copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        weights = models[0].attention(images, [3])[3][0, 1, 0, 1:].double()
    inside = answer["inside"]
    assert (inside["rows"], inside["columns"], inside["heads"]) == (8, 8, 3)
    assert inside["weights"] == pytest.approx((weights / weights.max()).tolist(), abs=1e-3)
    chosen = [cell for cell, held in enumerate(inside["mask"]) if held]
    order = weights.argsort(descending=True).tolist()
    assert set(chosen) == set(order[: len(chosen)])
    assert weights[chosen].sum() >= 0.5 * weights.sum() > weights[order[: len(chosen) - 1]].sum()
    assert 0 <= inside["overlap"] <= 1
    assert look(say, photo="2", shuffle=2, inside={"block": 3}).content["inside"]["overlap"] is None
    assert look(say, model=1, inside={"block": 0}).content["inside"] is None, "a network without attention"


# Uploads.


def upload(say, data: bytes) -> dict:
    answer = say("/api/upload", data, Content_Type="application/octet-stream")
    assert answer.status == 200, answer.content
    return answer.content


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_uploaded_photo_can_be_looked_at_and_leaves_no_file(say, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = upload(say, photo_file(kind))
    assert len(look(say, photo=photo["id"]).content["top"]) == 5
    assert list(tmp_path.iterdir()) == []


def test_only_the_latest_uploads_are_kept(say):
    first = upload(say, photo_file())["id"]
    for _ in range(MAX_UPLOADS):
        last = upload(say, photo_file())["id"]
    assert look(say, photo=last).status == 200
    assert "no longer there" in look(say, photo=first).content["error"]


# The command.


def test_a_port_that_is_taken_is_the_users_mistake(server, capsys):
    assert main(["play", "--no-browser", "--port", str(server.server_port)]) == 2
    assert "leave --port away" in capsys.readouterr().err
    assert main(["play", "--no-browser", "--port", "70000"]) == 2


def test_a_salience_without_attention_is_the_users_mistake(capsys):
    assert main(["play", "--no-browser", "--salience", "demo:resnet_micro"]) == 2
    assert "has no attention" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_stops_the_playground_cleanly():
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from ipvit.cli import main; sys.exit(main(['play', '--no-browser', '-m', 'demo:resnet_micro']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    with urllib.request.urlopen(address.partition("#")[0], timeout=20) as page:
        assert b"Playground" in page.read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and errors == ""
