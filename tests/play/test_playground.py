"""The playground without its server: photos and networks of one's own, and what is computed first."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import ipvit
from helpers.tiny import tiny_model
from ipvit.data.dataset import MemoryDataset
from ipvit.play import Playground, Shelf
from ipvit.play.debounce import Debouncer, SupersededError
from ipvit.play.names import readable
from ipvit.play.photos import upright
from ipvit.play.playground import salience_model


def test_the_masks_overlap_is_its_jaccard_index_with_the_object():
    images = torch.zeros(1, 3, 64, 64)
    masks = torch.zeros(1, 64, 64)
    masks[:, :32] = 1  # the object is the upper half
    playground = Playground([ipvit.load_model("demo:deit_micro")], Shelf(MemoryDataset(images, masks=masks)))
    from ipvit.play.settings import Inside, PerturbedRequest

    answer = playground.look(PerturbedRequest(panel="left", photo="0", model=0, inside=Inside(block=5)))
    mask = np.array(answer["inside"]["mask"], dtype=bool).reshape(8, 8).repeat(8, 0).repeat(8, 1)
    truth = masks[0].numpy() > 0
    assert answer["inside"]["overlap"] == pytest.approx((mask & truth).sum() / (mask | truth).sum(), abs=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phones_photo_is_turned_as_its_orientation_tag_says(orientation):
    picture = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3))
    exif = picture.getexif()
    exif[274] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    turned = upright(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1), orientation)
    assert (turned.permute(1, 2, 0).numpy() == expected).all()


def test_photos_of_a_folder_come_evenly_and_each_once(images):
    shelf = Shelf(ipvit.load_dataset(str(images)))
    everything = [photo for photo, _ in shelf.page(0, 100)]
    assert len(everything) == 20 and {photo.caption for photo in everything[:8]} == {"c0", "c1", "c2", "c3"}
    assert len({bytes(pixels.numpy()) for _, pixels in shelf.page(0, 100)}) == 20


def test_a_photo_that_cannot_be_read_is_left_out(images):
    (images / "c0" / "000.jpg").write_bytes(b"no photo")
    assert len(Shelf(ipvit.load_dataset(str(images))).page(0, 100)) == 19


def test_networks_of_any_size_and_without_attention_or_classifier_are_welcome():
    networks = [
        tiny_model(),
        ipvit.load_model("vit_tiny_patch16_224?num_classes=0&depth=1&img_size=32", pretrained=False),
    ]
    playground = Playground(networks, Shelf(), salience=salience_model(networks))
    from ipvit.play.settings import CellsRequest, Inside, PerturbedRequest

    assert playground.start()["salience"] == networks[1].name
    assert playground.cells(CellsRequest(photo="0", grid=4, mode="salient", loss=0.5))["dropped"]
    answer = playground.look(PerturbedRequest(panel="right", photo="0", model=1, inside=Inside(block=0)))
    assert answer["top"] == [] and answer["inside"]["heads"] == 3
    with pytest.raises(ipvit.InputError, match="no classifier"):
        playground.look(PerturbedRequest(panel="right", photo="0", model=1, epsilon=1.0))


def test_a_wordnet_id_is_shown_in_words_and_any_other_name_as_it_is():
    assert [readable(name) for name in ("n01440764", "n04399382", "n99999999", "disc")] == [
        "tench",
        "teddy",
        "n99999999",
        "disc",
    ]


def test_of_what_waits_only_the_newest_is_done():
    turn, done, busy, release = Debouncer(), [], threading.Event(), threading.Event()

    def slow() -> None:
        busy.set()
        release.wait(10)

    def ask(number: int) -> None:
        try:
            turn.newest("look", lambda: done.append(number))
        except SupersededError:
            done.append(-number)

    threads = [threading.Thread(target=turn.newest, args=("other", slow))]
    threads[0].start()
    busy.wait(10)
    for number in (1, 2, 3):
        threads.append(threading.Thread(target=ask, args=(number,)))
        threads[-1].start()
        while turn._newest.get("look", 0) < number:
            time.sleep(0.001)
    release.set()
    for thread in threads:
        thread.join(10)
    assert sorted(done) == [-2, -1, 3]
