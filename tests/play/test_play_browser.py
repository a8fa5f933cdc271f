"""The playground in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest
import torch
from PIL import Image
from torch import nn

import ipvit
from ipvit.data.dataset import MemoryDataset
from ipvit.play import Playground, PlayServer, Shelf
from ipvit.play.playground import salience_model

EVIL = "<img src=x onerror=alert(1)>"


class Unwell(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 2:  # well while it is tried
            return torch.zeros(2, 3)
        raise RuntimeError("a weight is missing")


@pytest.fixture(scope="module")
def server() -> Iterator[PlayServer]:
    models = [
        *(ipvit.load_model(name) for name in ("demo:deit_micro", "demo:resnet_micro")),
        ipvit.wrap(Unwell(), size=64, name=EVIL),
    ]
    with PlayServer(Playground(models, Shelf(), salience=salience_model(models))) as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()


class Visit:
    """The page, with everything it complained of and asked for."""

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)

    def first(self, side: str) -> str:
        """Return the likeliest class and its probability, as shown."""
        return " ".join(self.page.locator(f"#{side} .bars li").first.inner_text().split())

    def changed(self, side: str, before: str) -> str:
        """Wait until a network answers something else than before."""
        for _ in range(300):
            if self.page.locator(f"#{side} .bars li").count() and self.first(side) != before:
                return self.first(side)
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the network on the {side} still says {before!r}")


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    visit = Visit(context.new_page(), server.address)
    for side in ("left", "right"):
        visit.page.locator(f"#{side} .bars li").nth(4).wait_for()
    yield visit
    context.close()


def set_slider(visit: Visit, slider: str, value: int) -> None:
    visit.page.locator(slider).fill(str(value))


def test_the_page_loads_without_complaint_and_asks_nobody_else(visit, server):
    own = f"http://127.0.0.1:{server.server_port}/"
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith((own, "data:"))] == []
    assert not any(server.key in url.partition("#")[0] for url in visit.requests), "the key is in no address"
    assert visit.page.locator("#thumbnails button").count() == 12
    assert visit.page.locator("#left .right").first.is_visible(), "the photo's own class is among the likeliest"


def test_dropping_patches_by_slider_and_by_hand_changes_the_answers(visit):
    page = visit.page
    before = {side: visit.first(side) for side in ("left", "right")}
    set_slider(visit, "#loss", 60)
    after = {side: visit.changed(side, before[side]) for side in before}
    assert page.locator("#grid [aria-pressed=true]").count() == 38
    assert "38 of 64 patches dropped (59 %)" in page.locator("#dropped").inner_text()
    page.locator("#reset").click()
    assert {side: visit.changed(side, after[side]) for side in after} == before

    box = page.locator("#grid").bounding_box()
    cell = box["width"] / 8
    page.mouse.click(box["x"] + 2.5 * cell, box["y"] + 0.5 * cell)
    assert page.locator("#grid button").nth(2).get_attribute("aria-pressed") == "true"
    page.mouse.click(box["x"] + 2.5 * cell, box["y"] + 0.5 * cell)
    assert page.locator("#grid [aria-pressed=true]").count() == 0, "a second click brings the patch back"

    page.mouse.move(box["x"] + 0.5 * cell, box["y"] + 5.5 * cell)
    page.mouse.down()
    page.mouse.move(box["x"] + 7.5 * cell, box["y"] + 5.5 * cell)
    page.mouse.move(box["x"] + 7.5 * cell, box["y"] + 7.5 * cell, steps=4)
    page.mouse.move(box["x"] + 0.5 * cell, box["y"] + 7.5 * cell, steps=2)
    page.mouse.up()
    assert page.locator("#grid [aria-pressed=true]").count() == 17, "a drag drops every patch on its way"
    visit.changed("left", before["left"])
    assert page.locator("#loss-value").inner_text() == "by hand"
    assert visit.complaints == []


def test_patches_are_dropped_with_the_keyboard(visit):
    page = visit.page
    page.locator("#grid button").first.focus()
    for key in ("ArrowRight", "ArrowDown", "Space", "End", "Enter"):
        page.keyboard.press(key)
    pressed = [i for i, b in enumerate(page.locator("#grid button").all()) if b.get_attribute("aria-pressed") == "true"]
    assert pressed == [9, 15]
    assert page.locator("#grid [tabindex='0']").count() == 1, "one stop for the tab key"


def test_another_network_answers_for_itself(visit):
    before = visit.first("left")
    visit.page.locator("#left .model").select_option(label="demo:resnet_micro")
    assert visit.changed("left", before) == visit.first("right")
    assert visit.page.locator("#left .inside").is_hidden() and visit.page.locator("#left .none").is_visible()


def test_shuffle_corruption_and_attack_change_the_answer_and_can_be_undone(visit):
    before = visit.first("left")
    for slider, value in (("#shuffle", 4), ("#severity", 5), ("#epsilon", 4)):
        set_slider(visit, slider, value)
        visit.changed("left", before)
        visit.page.locator("#reset").click()
        for _ in range(200):
            if visit.first("left") == before:
                break
            visit.page.wait_for_timeout(50)
        assert visit.first("left") == before, slider


def test_attention_and_mask_are_laid_over_the_picture(visit):
    page = visit.page
    picture = "document.querySelector('#left canvas').toDataURL()"
    seen = {page.evaluate(picture)}
    page.locator("#left .show").select_option("attention")
    page.locator("#left .head option").nth(3).wait_for(state="attached")
    seen.add(page.evaluate(picture))
    page.locator("#left .head").select_option("1")
    page.locator("#left .block").fill("0")
    page.locator("#left .show").select_option("mask")
    page.locator("#left .found", has_text="The fewest patches").wait_for()
    assert "Jaccard" in page.locator("#left .found").inner_text()
    seen.add(page.evaluate(picture))
    wide = page.locator("#left .found").inner_text()
    page.locator("#left .threshold").fill("30")
    page.locator("#left .found", has_text=re.compile(r"share: \d %|share: [12]\d %")).wait_for()
    assert page.locator("#left .found").inner_text() != wide
    assert len(seen) == 3


def test_a_photo_of_ones_own_is_looked_at(visit, tmp_path):
    evil = tmp_path / f"{EVIL.replace('/', '')}.png"
    Image.new("RGB", (90, 70), (200, 30, 30)).save(evil)
    before = visit.first("left")
    visit.page.locator("#file").set_input_files(evil)
    visit.changed("left", before)
    assert visit.page.locator("#caption").inner_text() == evil.name
    assert visit.page.locator("#thumbnails button").count() == 13
    assert visit.complaints == []


def test_a_large_file_and_a_text_called_jpg_are_refused_with_a_message(visit, tmp_path):
    large, fake = tmp_path / "large.jpg", tmp_path / "holiday.jpg"
    large.write_bytes(bytes(20 * 2**20))
    fake.write_text("This is no photo.")
    before, problem = visit.first("left"), visit.page.locator("#upload-problem")
    visit.page.locator("#file").set_input_files(large)
    problem.wait_for()
    assert problem.inner_text() == "large.jpg: the file is too large: 20.0 MB, and 10 MB are the most"
    visit.page.locator("#file").set_input_files(fake)
    visit.page.locator("#upload-problem", has_text="holiday.jpg: this is not a photo").wait_for()
    assert visit.first("left") == before and visit.page.locator("#thumbnails button").count() == 12


def test_the_server_too_tells_the_page_that_a_file_is_too_large(visit):
    told = visit.page.evaluate(
        """async () => {
          const headers = { "X-Ipvit-Key": location.hash.slice(1), "Content-Type": "application/octet-stream" };
          const body = new Blob([new Uint8Array(20 * 2 ** 20)]);
          const answer = await fetch("/api/upload", { method: "POST", headers, body });
          return [answer.status, (await answer.json()).error];
        }"""
    )
    assert told == [413, "the file is too large: 20.0 MB, and 10 MB are the most"]


def test_a_network_that_fails_says_so_on_one_line_and_the_other_goes_on(visit):
    visit.page.locator("#right .model").select_option(label=EVIL)
    problem = visit.page.locator("#right .problem")
    problem.wait_for()
    assert problem.inner_text() == "RuntimeError: a weight is missing"
    before = visit.first("left")
    set_slider(visit, "#loss", 80)
    visit.changed("left", before)
    visit.page.locator("#right .model").select_option(label="demo:deit_micro")
    problem.wait_for(state="hidden")


def test_names_from_data_and_networks_are_text(browser):
    data = MemoryDataset(torch.rand(3, 3, 64, 64), labels=[0, 0, 0], classes=[EVIL], ids=[EVIL, "b", "c"])
    network = ipvit.wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=64, classes=[EVIL, "b", "c"])
    with PlayServer(Playground([network], Shelf(data))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        context = browser.new_context()
        visit = Visit(context.new_page(), server.address)
        for side in ("left", "right"):
            visit.page.locator(f"#{side} .bars li").nth(2).wait_for()
        assert EVIL in visit.page.locator("#left .bars").inner_text()
        assert visit.page.locator("#caption").inner_text() == EVIL
        assert visit.complaints == []
        context.close()
        server.shutdown()


def test_without_its_key_the_page_says_what_to_open(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.address.partition("#")[0])
    problem = page.locator("#problem")
    problem.wait_for()
    assert "the address that ipvit play printed" in problem.inner_text()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_scroll_only_downwards_and_keep_the_answers_in_sight(browser, server, scheme):
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    visit = Visit(context.new_page(), server.address)
    visit.page.locator("#right .bars li").nth(4).wait_for()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert visit.page.locator("#summary .of-right .what").is_visible()
    ink, paper = visit.page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    dark = ("rgb(230, 237, 243)", "rgb(15, 20, 25)")
    assert ((ink, paper) == dark) == (scheme == "dark")
    context.close()
