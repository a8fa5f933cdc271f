"""Published sets in the layouts that users have on disk."""

from __future__ import annotations

import os
import pickle
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

import ipvit
from helpers import published_trees as trees
from helpers.published_trees import CASES, LAYOUTS
from ipvit.data import published
from ipvit.data.published.layouts import pairs
from ipvit.data.published.matlab import read_matlab
from ipvit.data.published.parts import HELD_OUT, ArrayListing, divide


def named(data: ipvit.data.Dataset) -> dict[str, str]:
    """Return the class of every image by its id."""
    assert data.classes is not None
    return {key: data.classes[label] for key, label in zip(data.ids, data.labels, strict=True)}


def load(root, name: str, split: str) -> ipvit.data.Dataset:
    return ipvit.load_dataset(f"{name}:{root}/{split}")


def test_every_published_set_has_a_tree_to_be_tested_on():
    assert LAYOUTS.keys() == published.SETS.keys()


@pytest.mark.parametrize(("name", "tree"), CASES, ids=[f"{name}-{tree.__name__}" for name, tree in CASES])
def test_every_split_can_be_read_and_the_three_of_the_protocol_share_no_image(tmp_path, name, tree):
    tree(tmp_path)
    for split in published.SETS[name].splits:
        data = load(tmp_path, name, split)
        assert len(data) and len(set(data.ids)) == len(data) and data.labels.min() >= 0
        assert data.read(0).dtype.is_floating_point is False and data.read(len(data) - 1).shape[0] == 3
        assert data.name == f"{name}:{tmp_path}/{split}"
    names = published.protocol(f"{name}:{tmp_path}")
    if names is not None:
        parts = [set(ipvit.load_dataset(part).ids) for part in names]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert set(ipvit.load_dataset(f"{name}:{tmp_path}").ids) == parts[2], "without a split: the reported part"


def test_the_split_stands_behind_the_path_or_in_a_word_of_its_own(tmp_path):
    trees.dtd(tmp_path)
    assert load(tmp_path, "dtd", "val").fingerprint == ipvit.load_dataset(f"dtd:{tmp_path}", split="val").fingerprint
    with pytest.raises(ipvit.InputError, match=r"dtd has no split 'tst'; it has train, .* Did you mean 'test'"):
        ipvit.load_dataset(f"dtd:{tmp_path}", split="tst")


def test_the_fingerprint_does_not_depend_on_where_the_set_lies(tmp_path):
    prints = []
    for place in ("here", "there"):
        trees.aircraft(tmp_path / place)
        prints.append(load(tmp_path / place, "aircraft", "test").fingerprint)
    assert prints[0] == prints[1] != load(tmp_path / "here", "aircraft", "train").fingerprint


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_set_that_is_not_there_is_named_in_one_line_with_where_to_get_it(tmp_path, name):
    with pytest.raises(ipvit.InputError, match="there is no folder") as missing:
        ipvit.load_dataset(f"{name}:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ipvit.InputError, match="there is no .* it needs") as empty:
        ipvit.load_dataset(f"{name}:{tmp_path / 'empty'}")
    for error in (missing, empty):
        assert published.SETS[name].source in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "tree", "file"),
    [
        ("aircraft", trees.aircraft, "fgvc-aircraft-2013b/data/images/4.jpg"),
        ("aircraft", trees.aircraft, "fgvc-aircraft-2013b/data/images_variant_test.txt"),
        ("cub", trees.cub, "CUB_200_2011/train_test_split.txt"),
        ("flowers102", trees.flowers102, "flowers-102/setid.mat"),
        ("gtsrb", trees.gtsrb, "GT-final_test.csv"),
        ("cifar10", trees.cifar10, "cifar-10-batches-bin/batches.meta.txt"),
        ("mnist", trees.mnist, "MNIST/raw/t10k-labels-idx1-ubyte"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, tree, file):
    tree(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ipvit.InputError, match=f"there is no .*{Path(file).name}"):
        load(tmp_path, name, "test")


def test_aircraft_variants_may_have_spaces(tmp_path):
    trees.aircraft(tmp_path)
    data = load(tmp_path, "aircraft", "train")
    assert named(data) == {"images/1.jpg": "Cessna 172", "images/2.jpg": "707-320"}
    assert data.classes == ("707-320", "A340-300", "Cessna 172")
    assert len(load(tmp_path, "aircraft", "trainval")) == 3 and len(load(tmp_path, "aircraft", "all")) == 6


def test_the_birds_follow_the_flags_and_a_tenth_of_each_class_is_held_out(tmp_path):
    trees.cub(tmp_path)
    test, everything = load(tmp_path, "cub", "test"), load(tmp_path, "cub", "trainval")
    assert len(test) == 20 and all(int(name.split("_")[-1][:-4]) % 3 == 0 for name in test.ids)
    val, train = load(tmp_path, "cub", "val"), load(tmp_path, "cub", "train")
    assert Counter(named(val).values()) == {"001.Albatross": 2, "002.Auk": 2}
    assert set(val.ids) | set(train.ids) == set(everything.ids) and len(val) + len(train) == len(everything) == 40
    assert load(tmp_path, "cub", "val").ids == val.ids


def test_flowers_are_read_from_matlab_files(tmp_path):
    trees.flowers102(tmp_path)
    assert named(load(tmp_path, "flowers102", "train")) == {"jpg/image_00001.jpg": "2", "jpg/image_00002.jpg": "1"}
    assert list(named(load(tmp_path, "flowers102", "test")).values()) == ["1", "3", "3"]


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, compressed):
    structure = np.zeros(2, dtype=[("number", object), ("word", object)])
    structure[0], structure[1] = (3.5, "tench"), (np.array([[1, 2], [3, 4]], np.int16), "")
    cells = np.array([np.arange(3), "text", np.zeros((0, 0))], dtype=object)
    content = {"a": np.arange(6, dtype=np.uint16).reshape(2, 3), "s": structure, "c": cells, "t": "hello"}
    scipy.io.savemat(tmp_path / "x.mat", content, do_compression=compressed)
    ours = read_matlab(tmp_path / "x.mat")
    theirs = scipy.io.loadmat(tmp_path / "x.mat")
    assert np.array_equal(ours["a"], theirs["a"]) and ours["t"] == "hello"
    assert ours["s"][0]["number"].item() == 3.5 and ours["s"][0]["word"] == "tench"
    assert np.array_equal(ours["s"][1]["number"], [[1, 2], [3, 4]])
    assert ours["c"][0].ravel().tolist() == [0, 1, 2] and ours["c"][1] == "text"
    (tmp_path / "x.mat").write_bytes((tmp_path / "x.mat").read_bytes()[:-20])
    with pytest.raises(ipvit.InputError, match="MATLAB"):
        read_matlab(tmp_path / "x.mat")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_matlab_file_is_read_or_refused_in_one_line(tmp_path, compressed):
    path, refused = tmp_path / "x.mat", 0
    cells = np.array([np.arange(3), "text", np.zeros((0, 0))], dtype=object)
    scipy.io.savemat(path, {"a": np.arange(6).reshape(2, 3), "c": cells, "s": {"n": 1}}, do_compression=compressed)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(whole)
        for place in rng.integers(124, len(whole), size=2):
            damaged[place] = rng.choice([0, 1, 127, 255])
        path.write_bytes(damaged[: rng.integers(len(whole) - 60, len(whole) + 1)])
        try:
            read_matlab(path)
        except ipvit.InputError as error:
            refused += 1
            assert "is not a MATLAB file of version 5 that can be read" in str(error)
            assert "\n" not in str(error)
    assert refused > 250


def test_cells_nested_without_end_are_refused(tmp_path):
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    cell = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"x")
    content = b""
    for _ in range(3000):
        content = element(14, cell + content)
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\0\1IM" + content)
    with pytest.raises(ipvit.InputError, match="is not a MATLAB file of version 5 that can be read"):
        read_matlab(tmp_path / "x.mat")


def test_annotations_find_their_image_by_its_id_not_by_their_order(tmp_path):
    trees.fungi(tmp_path)
    assert named(load(tmp_path, "fungi", "train")) == {
        "images/a.jpg": "Boletus",
        "images/b.jpg": "Amanita",
        "images/c.jpg": "Boletus",
    }
    trees.inaturalist2019(tmp_path)
    assert named(load(tmp_path, "inaturalist2019", "val")) == {"train_val2019/Birds/7/x.jpg": "7"}
    assert Counter(named(load(tmp_path, "inaturalist2019", "minival")).values()) == {"3": 1, "7": 1}


def test_a_file_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    trees.coco_json(tmp_path / "val.json", ["../secret.jpg"], [0], ["Amanita"])
    with pytest.raises(ipvit.InputError, match=r"'\.\./secret\.jpg' leads out of the folder"):
        load(tmp_path, "fungi", "val")


def test_a_line_is_cut_at_its_first_space_or_tab_before_any_comma(tmp_path):
    for line, found in {"a.jpg\tb,c": ("a.jpg", "b,c"), "a.jpg,b": ("a.jpg", "b"), "a b c": ("a", "b c")}.items():
        (tmp_path / "lines.txt").write_text(f"{line}\n")
        assert pairs(tmp_path / "lines.txt") == [found]
    (tmp_path / "lines.txt").write_text("a,b,c\n")
    with pytest.raises(ipvit.InputError, match="two words were expected"):
        pairs(tmp_path / "lines.txt")


def test_classes_of_places_may_have_two_words(tmp_path):
    trees.places365(tmp_path)
    assert list(named(load(tmp_path, "places365", "train")).values()) == ["airfield", "airfield", "cabin/outdoor"]
    assert list(named(load(tmp_path, "places365", "val")).values()) == ["bar", "cabin/outdoor"]


@pytest.mark.parametrize("tree", LAYOUTS["gtsrb"])
def test_frames_of_one_sign_are_never_parted(tmp_path, tree):
    tree(tmp_path)
    train, val = load(tmp_path, "gtsrb", "train"), load(tmp_path, "gtsrb", "val")
    tracks = [{name.rpartition("_")[0] for name in data.ids} for data in (train, val)]
    assert not tracks[0] & tracks[1] and len(val) == 6 and len(train) == 12
    assert list(named(load(tmp_path, "gtsrb", "test")).values()) == ["7", "0"]
    assert set(named(train).values()) == {"0", "7"}


def test_the_held_out_signs_are_the_same_in_both_layouts(tmp_path):
    trees.gtsrb(tmp_path / "official")
    trees.gtsrb_of_torchvision(tmp_path / "torchvision")
    kept = [
        {"/".join(name.split("/")[-2:]) for name in load(tmp_path / place, "gtsrb", "val").ids}
        for place in ("official", "torchvision")
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("name", "trees_of"), [("cifar10", LAYOUTS["cifar10"]), ("cifar100", LAYOUTS["cifar100"])])
def test_cifar_is_the_same_in_its_binary_and_its_python_version(tmp_path, name, trees_of):
    found = []
    for tree in trees_of:
        tree(tmp_path / tree.__name__)
        data = load(tmp_path / tree.__name__, name, "trainval")
        assert np.array_equal(data.read(7).numpy(), trees.CIFAR[7].reshape(3, 32, 32))
        assert data.labels.tolist() == trees.CIFAR_LABELS[:50].tolist()
        found.append((data.fingerprint, load(tmp_path / tree.__name__, name, "val").ids, data.classes))
    assert found[0] == found[1]


@pytest.mark.parametrize("version", [2, 4])
def test_a_batch_saved_again_by_python_3_is_read_too(tmp_path, version):
    trees.cifar10_of_python(tmp_path)
    content = {b"data": trees.CIFAR[:3], b"labels": [0, 1, 2]}
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=version))
    assert load(tmp_path, "cifar10", "test").labels.tolist() == [0, 1, 2]


class Bomb:
    """What a malicious pickle does: it runs a program when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("where", ["test_batch", "batches.meta"])
def test_a_pickle_that_is_not_a_picture_is_refused_and_not_run(tmp_path, where):
    trees.cifar10_of_python(tmp_path)
    content = {b"data": Bomb(str(tmp_path / "run")), b"labels": []}
    (tmp_path / "cifar-10-batches-py" / where).write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ipvit.InputError, match="cannot be read safely|can be read safely"):
        load(tmp_path, "cifar10", "test")
    assert not (tmp_path / "run").exists()


def test_a_batch_of_other_arrays_is_refused(tmp_path):
    trees.cifar10_of_python(tmp_path)
    content = {b"data": np.array([None, "x"], dtype=object), b"labels": [0, 1]}
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(ipvit.InputError, match="not a batch of CIFAR"):
        load(tmp_path, "cifar10", "test")


def test_digits_are_grey_pictures_with_three_equal_channels(tmp_path):
    trees.packed_mnist(tmp_path)
    data = load(tmp_path, "mnist", "test")
    assert data.read(3).shape == (3, 28, 28) and data.labels.tolist() == list(range(10))
    assert (data.read(3)[0] == data.read(3)[2]).all()


def test_imagenet_is_the_same_in_class_folders_and_flat(tmp_path):
    labels = []
    for tree in LAYOUTS["imagenet"]:
        tree(tmp_path / tree.__name__)
        data = load(tmp_path / tree.__name__, "imagenet", "val")
        labels.append({key.rpartition("/")[2]: name for key, name in named(data).items()})
        assert data.classes == ("n01440764", "n02123045") and len(data) == 4
    assert labels[0] == labels[1] == labels[2]
    flat = tmp_path / "flat"
    trees.imagenet(flat)
    trees.flatten(flat / "val")
    with pytest.raises(ipvit.InputError, match="LOC_val_solution"):
        load(flat, "imagenet", "val")


def test_a_character_of_omniglot_is_a_class_and_its_halves_share_none(tmp_path):
    trees.omniglot(tmp_path)
    train, test = load(tmp_path, "omniglot", "train"), load(tmp_path, "omniglot", "test")
    assert test.classes == ("Atlantean/character01", "Atlantean/character02")
    assert not set(train.classes or ()) & set(test.classes or ())
    everything = load(tmp_path, "omniglot", "all")
    assert len(everything.classes or ()) == 6 and Counter(named(everything).values()) == Counter(
        [*named(train).values(), *named(test).values()]
    )


def test_drawings_are_spread_over_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr("ipvit.data.published.arrays.QUICKDRAW_PER_CLASS", 3)
    trees.quickdraw(tmp_path)
    data = ipvit.load_dataset(f"quickdraw:{tmp_path}")
    assert list(data.ids)[:3] == ["The Eiffel Tower/0", "The Eiffel Tower/2", "The Eiffel Tower/4"]
    drawing = np.load(tmp_path / "cat.npy")[6].reshape(28, 28)
    assert np.array_equal(data.read(5)[1].numpy(), drawing)
    np.save(tmp_path / "cat.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ipvit.InputError, match="not a numpy file"):
        ipvit.load_dataset(f"quickdraw:{tmp_path}")


def test_objects_are_cut_out_with_a_margin_and_crowds_are_left_out(tmp_path):
    trees.coco_crops(tmp_path)
    data = load(tmp_path, "coco-crops", "train")
    assert len(data) == 3 and Counter(named(data).values()) == {"bicycle": 2, "person": 1}
    sizes = {key.rpartition("#")[2]: tuple(data.read(row).shape[1:]) for row, key in enumerate(data.ids)}
    assert sizes == {"0": (12, 24), "1": (12, 24), "7": (30, 11)}, "a fifth larger, but not beyond the picture"


def test_a_class_has_one_number_in_all_split_folders(tmp_path):
    trees.split_folders(tmp_path)
    parts = [load(tmp_path, "folder", split) for split in ("train", "val", "test")]
    assert {part.classes for part in parts} == {("a", "b", "only in train")}
    assert [len(part) for part in parts] == [41, 6, 8]


@pytest.mark.parametrize("name", ["folder", "cub", "aircraft", "cifar10"])
def test_split_folders_serve_for_every_set_and_lend_a_val_from_train(tmp_path, name):
    trees.split_folders(tmp_path, ("train", "test"))
    train, val, whole = (load(tmp_path, name, split) for split in ("train", "val", "trainval"))
    assert len(whole) == 41 and len(val) == 4 and set(train.ids) | set(val.ids) == set(whole.ids)
    assert "only in train/x.png" in " ".join(train.ids), "of a class of one image nothing is held out"


def test_the_held_out_tenth_is_fixed_stratified_and_hardly_moves_when_images_are_added():
    def part(n: int) -> ArrayListing:
        labels = np.arange(n) % 4
        return ArrayListing(
            np.zeros((n, 1, 1, 1), np.uint8), labels, ("a", "b", "c", "d"), tuple(f"{i}" for i in range(n))
        )

    most, held = divide(part(400))
    assert Counter(part(400).labels[held].tolist()) == dict.fromkeys(range(4), round(100 * HELD_OUT))
    assert sorted([*most, *held]) == list(range(400))
    again = divide(part(404))[1]
    assert len(set(held) & set(again)) >= len(held) - 4


def test_the_list_of_data_states_the_published_sizes(capsys):
    from ipvit.cli import main

    assert main(["datasets"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "cub:PATH" in shown and "5,994" in shown and "1,281,167" in shown


def test_two_folders_named_like_splits_are_not_taken_for_classes(tmp_path):
    trees.split_folders(tmp_path)
    with pytest.raises(ipvit.InputError, match="folder:"):
        ipvit.load_dataset(tmp_path)
    assert len(ipvit.load_dataset(tmp_path / "val")) == 6
