"""Take the picture of the playground (docs/images/playground.png), in Chromium by Playwright.

    python docs/figures/playground.py

A star in bricks, of which the two patches that the transformer looks at most are dropped.
"""

from __future__ import annotations

import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import ipvit
from ipvit.play import Playground, PlayServer, Shelf
from ipvit.play.playground import salience_model

IMAGE = Path(__file__).parents[1] / "images" / "playground.png"
CHROMIUM = "/usr/bin/chromium"
STAR = 9
"""Which of the first twelve photos."""


def main() -> None:
    """Open the page, change what the picture shows, and take it."""
    models = [ipvit.load_model(name) for name in ("demo:deit_micro", "demo:resnet_micro")]
    playground = Playground(models, Shelf(), salience=salience_model(models))
    with PlayServer(playground) as server, sync_playwright() as browsers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 940})
        page.goto(server.address)
        page.locator("#thumbnails button").nth(STAR).click()
        page.locator("#mode").select_option(label="salient ones first")
        page.locator("#loss").fill("25")
        page.locator("#left .show").select_option(label="attention")
        page.get_by_text("2 of 64 patches dropped").wait_for()
        page.wait_for_timeout(2000)  # for the answers and the attention that is laid over
        page.screenshot(path=IMAGE, full_page=True)
        browser.close()
        server.shutdown()
    with Image.open(IMAGE) as taken:  # a third of the bytes, and nothing to be seen of it
        taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGE, optimize=True)


if __name__ == "__main__":
    main()
