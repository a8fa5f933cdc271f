"""What images are is told by their names, never by the name of their folder."""

import numpy as np
import pytest

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.data.recognition import published_set


def named(ids: list[str], name: str = "imagenet/val", classes: int = 4) -> ipvit.MemoryDataset:
    pixels = np.zeros((len(ids), 3, 2, 2), np.uint8)
    labels = np.arange(len(ids)) % classes
    return ipvit.MemoryDataset(pixels, labels, [f"c{i}" for i in range(classes)], ids=ids, name=name)


@pytest.mark.parametrize("number", [1, 999, 1_000, 49_999, 50_000])
def test_images_of_imagenets_validation_set_are_known_by_their_names(number):
    ids = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG"]
    assert published_set(named(ids, name="any/folder")) == ("imagenet", 50_000)


@pytest.mark.parametrize(
    "ids",
    [
        ["n01440764/ILSVRC2012_val_00000000.JPEG"],
        ["n01440764/ILSVRC2012_val_00050001.JPEG"],
        ["n01440764/n01440764_10026.JPEG"],
        ["n01440764/ILSVRC2012_val_00000001.JPEG", "mine/photo.jpg"],
        ["a/1.jpg"],
    ],
)
def test_other_images_in_a_folder_of_that_name_are_not(ids):
    assert published_set(named(ids)) == ("", 0)


def test_fifty_thousand_images_of_a_thousand_classes_are_imagenets():
    class Counted(ipvit.BaseDataset):
        def __init__(self, n, classes):
            self.ids = [str(i) for i in range(n)]
            self.labels = np.arange(n) % classes
            self.classes = tuple(f"c{i}" for i in range(classes))
            self.name, self.fingerprint = "hfds/imagenet-1k", "0" * 32

        def read(self, index):
            raise NotImplementedError

    assert published_set(Counted(50_000, 1_000)) == ("imagenet", 50_000)
    assert published_set(Counted(50_889, 1_000)) == ("", 0), "ImageNet-Sketch"
    assert published_set(Counted(50_000, 100)) == ("", 0)


@pytest.mark.parametrize(
    ("name", "ids", "found"),
    [
        ("imagenet-c:C", ["fog/1/n01440764/ILSVRC2012_val_00000293.JPEG"], ("imagenet-c", 50_000)),
        ("imagenet-c:C", ["fog/1/n01440764/mine.JPEG"], ("", 0)),
        ("voc2012:VOC", ["2007_000033", "2011_003271"], ("voc", 1_449)),
        ("voc2012:VOC (train)", ["2007_000033"], ("", 0)),
        ("voc2012:VOC", ["mine"], ("", 0)),
        ("cue-conflict:S", ["cat/cat7-elephant1.png", "dog/dog2-car3.png"], ("cue-conflict", 1_280)),
        ("cue-conflict:S", ["cat/cat7-unicorn1.png"], ("", 0)),
        ("cub:birds/test", ["a"], ("cub", 5_794)),
        ("cub:birds/train", ["a"], ("", 0)),
        ("folder:photos/test", ["a"], ("", 0)),
        ("demo:trifeature", ["a"], ("", 0)),
    ],
)
def test_other_published_sets_are_known_by_scheme_names_and_split(name, ids, found):
    assert published_set(named(ids, name=name)) == found


def test_the_manifest_states_it(tmp_path):
    images = photos()
    images.ids = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(images) + 1)]
    run = ipvit.run(small_occlusion(), models=tiny_model(), data=images, out=tmp_path, workers=0, progress=False)
    assert (run.manifest.data.published, run.manifest.data.published_images) == ("imagenet", 50_000)
    assert run.manifest.subject("occlusion").published == "imagenet"
    assert run.manifest.models[0].loaded_as == "", "made in Python"
