"""Folders, tar files, timm's data sets, limits and label mapping."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import ipvit
from helpers.shards import web_shards
from helpers.tiny import tiny_model, write_images
from ipvit.core.preprocessing import View
from ipvit.data.labels import map_classes
from ipvit.data.loader import read_batches
from ipvit.data.subset import select


def test_a_folder_of_class_folders_is_read_in_sorted_order(images):
    data = ipvit.load_dataset(images)
    assert data.classes == ("c0", "c1", "c2", "c3")
    assert data.ids[:2] == ["c0/000.jpg", "c0/001.png"]
    assert data.labels.tolist() == sorted([0, 1, 2, 3] * 5)
    assert np.array_equal(data.read(1).permute(1, 2, 0).numpy(), np.array(Image.open(images / "c0" / "001.png")))


def test_the_fingerprint_follows_the_files_and_not_their_place(images, tmp_path):
    before = ipvit.load_dataset(images).fingerprint
    moved = images.rename(tmp_path / "elsewhere")
    assert ipvit.load_dataset(moved).fingerprint == before
    (moved / "c0" / "new.png").write_bytes((moved / "c0" / "001.png").read_bytes())
    assert ipvit.load_dataset(moved).fingerprint != before


def test_classes_txt_states_order_and_second_names(images):
    (images / "classes.txt").write_text("c3\tzebra\nc0\tcat\nc1\tdog\nc2\n")
    data = ipvit.load_dataset(images)
    assert data.classes == ("c3", "c0", "c1", "c2") and data.aliases == ("zebra", "cat", "dog", "c2")
    (images / "classes.txt").write_text("c3\nc0\n")
    with pytest.raises(ipvit.InputError, match="'c1' is not listed"):
        ipvit.load_dataset(images)


def test_images_beside_the_class_folders_are_told(images):
    (images / "c0" / "000.jpg").rename(images / "loose.jpg")
    data = ipvit.load_dataset(images)
    assert data.notes == (f"{images}: 1 images lie in no class folder and have no label (loose.jpg)",)
    assert data.labels[list(data.ids).index("loose.jpg")] == -1


def test_output_numbers_that_are_the_folders_names_are_stated_and_not_a_rule(tmp_path):
    root = write_images(tmp_path / "numbered", classes=3)
    for folder, number in (("c0", "2"), ("c1", "7"), ("c2", "3")):
        (root / folder).rename(root / number)
    (root / "classes.txt").write_text("2\t2\n7\t7\n3\t3\n")
    data = ipvit.load_dataset(root)

    def outputs(count: int, aliases) -> list[int]:
        return map_classes(data.classes, aliases, None, data_name="d", model_name="m", n_outputs=count).tolist()

    assert outputs(10, data.aliases) == [2, 7, 3]
    with pytest.raises(ipvit.InputError, match="cannot map 2 of the 3 classes"):
        outputs(3, data.aliases)
    assert outputs(3, None) == [0, 2, 1], "without second names they are taken by number, which is noted"
    (root / "classes.txt").write_text("2\n7\n3\n")
    assert ipvit.load_dataset(root).aliases is None


def test_a_name_and_a_second_name_that_are_two_outputs_are_refused():
    names = {"data_name": "d", "model_name": "m"}
    with pytest.raises(ipvit.InputError, match="'cat' is output 0 of the model by its name and output 1 by its second"):
        map_classes(["cat"], ["1"], ["cat", "dog"], **names)
    assert map_classes(["cat"], ["0"], ["cat", "dog"], **names).tolist() == [0]


def test_names_with_spaces_quotes_and_emoji_are_names(tmp_path):
    root = write_images(tmp_path / "odd", classes=1)
    (root / "c0" / "000.jpg").rename(root / "c0" / 'it\'s <b>"me"<i> 🐱.jpg')
    data = ipvit.load_dataset(root)
    assert data.read(list(data.ids).index('c0/it\'s <b>"me"<i> 🐱.jpg')).shape[0] == 3


@pytest.mark.parametrize(("path", "words"), [("nowhere", "there is no data"), ("empty", "holds no image files")])
def test_missing_and_empty_folders_are_named(tmp_path, path, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ipvit.InputError, match=words):
        ipvit.load_dataset(tmp_path / path)


def test_a_tar_of_class_folders_gives_the_same_pictures_as_the_folder(images, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(images, arcname=".")
    packed, plain = ipvit.load_dataset(tmp_path / "images.tar"), ipvit.load_dataset(images)
    assert len(packed) == len(plain) and packed.classes == plain.classes
    assert packed.ids == plain.ids and packed.fingerprint == plain.fingerprint
    assert np.array_equal(packed.read(3), plain.read(3))


def test_torchvision_sets_come_through_timm(images):
    data = ipvit.load_dataset("torch/image_folder", root=images.parent, split="images")
    assert len(data) == 20 and data.labels.tolist() == sorted([0, 1, 2, 3] * 5)
    with pytest.raises(ipvit.InputError, match="timm cannot open the data set 'torch/nothing'"):
        ipvit.load_dataset("torch/nothing", root=images)


def test_a_limit_picks_the_same_images_and_a_larger_one_adds_to_them():
    ids = [f"{i}" for i in range(1000)]
    small, large = set(select(ids, 50)), set(select(ids, 200))
    assert len(small) == 50 and small < large
    assert 300 < np.mean(list(large)) < 700, "spread over the whole set, not its first classes"
    assert len(select(ids, None)) == len(select(ids, 5000)) == 1000


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_draws_nothing_from_the_users_random_state(images, workers):
    data, before = ipvit.load_dataset(images), torch.get_rng_state()
    batches = list(read_batches(data, [np.arange(3), np.arange(3, 5)], [View((8, 8))], workers=workers))
    assert len(batches) == 2 and torch.equal(torch.get_rng_state(), before)


def test_classes_are_mapped_by_name_by_alias_or_by_stated_number():
    names = {"data_name": "D", "model_name": "M"}
    assert map_classes(["b", "a"], None, ["a", "b", "c"], **names).tolist() == [1, 0]
    assert map_classes(["x", "y"], ["c", "a"], ["a", "b", "c"], **names).tolist() == [2, 0]
    assert map_classes(["x", "y"], ["7", "3"], None, **names).tolist() == [7, 3]
    with pytest.raises(ipvit.InputError, match=r"cannot map 1 of the 2 classes of D \('z'\)"):
        map_classes(["a", "z"], None, ["a", "b"], **names)
    with pytest.raises(ipvit.InputError, match="class names are unknown"):
        map_classes(["a", "b"], None, None, **names)
    with pytest.raises(ipvit.InputError, match="the same output"):
        map_classes(["x", "y"], ["a", "a"], ["a", "b"], **names)


def test_any_subset_of_imagenet_synsets_finds_its_outputs():
    from ipvit.models.label_spaces import imagenet_classes

    synsets = ["n02123045", "n01440764", "n15075141"]
    assert map_classes(synsets, None, imagenet_classes(), data_name="D", model_name="M").tolist() == [281, 0, 999]


def test_shards_are_measured_by_any_number_of_workers_and_their_labels_need_a_stated_meaning(tmp_path):
    pytest.importorskip("webdataset")
    split = web_shards(tmp_path / "shards")
    (tmp_path / "names.txt").write_text("c0\nc1\nc2\nc3\n")
    plain = ipvit.load_dataset("wds/grey", root=tmp_path / "shards", split=split)
    options = {"levels": (0, 0.5), "runs": 1, "grid": "4x4"}
    with pytest.raises(ipvit.InputError, match="needs labels"):
        ipvit.run(ipvit.Occlusion(**options), models=tiny_model(), data=plain, out=tmp_path / "a", progress=False)
    records = []
    for workers in (0, 2):
        data = ipvit.load_dataset(
            "wds/grey", root=tmp_path / "shards", split=split, classes=str(tmp_path / "names.txt")
        )
        assert len(data) == 10
        run = ipvit.run(
            ipvit.Occlusion(**options),
            models=tiny_model(),
            data=data,
            out=tmp_path / f"run{workers}",
            workers=workers,
            batch_size=3,
            progress=False,
        )
        records.append(run.records("occlusion"))
    assert records[0].equals(records[1])
    clean = records[0].filter(information_loss=0).sort("image")
    assert clean["label"].to_list() == [i % 4 for i in range(10)]
    assert data.read(7)[0, 0, 0] == 70 and data.read(2)[0, 0, 0] == 20, "going back starts again"
