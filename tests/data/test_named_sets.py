"""What timm and the hub name: known by content, with checked splits and columns, and no image under another's id."""

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ipvit
from helpers.files import change_byte
from helpers.hub_tables import ClassLabel, Feature, encoded, provide_table, rows
from helpers.tiny import write_images
from ipvit.data.dataset import UnreadableImageError
from ipvit.data.fingerprints import SMALL
from ipvit.data.formats.shards import ShardDataset
from ipvit.data.formats.stream import StreamDataset
from ipvit.errors import InputError


def write_shard(path: Path, samples: dict[str, tuple[bytes, int]], extra: dict[str, bytes] | None = None) -> None:
    files = {f"{key}.png": image for key, (image, _) in samples.items()}
    files |= {f"{key}.cls": str(label).encode() for key, (_, label) in samples.items()}
    write_files(path, sorted((files | (extra or {})).items()))


def write_files(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    pytest.importorskip("webdataset")

    def write(changes=(), number: str = "", extra=None, classes: str | None = None):
        samples = {f"s{i}": (encoded(10 * i), i % 4) for i in range(6)} | dict(changes)
        write_shard(tmp_path / "x-0000.tar", samples, extra)
        return ipvit.load_dataset("wds/x", root=tmp_path, split=f"x-{{0000..0000}}.tar{number}", classes=classes)

    return write


def test_a_broken_image_in_a_shard_moves_no_other(shards, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    data = shards({"s2": (b"no image", 2)}, classes=str(tmp_path / "names.txt"))
    assert list(data.ids) == [f"s{i}" for i in range(6)]
    assert data.labels.tolist() == [0, 1, 2, 3, 0, 1]
    with pytest.raises(UnreadableImageError):
        data.read(2)
    assert [int(data.read(i)[0, 0, 0]) for i in (0, 1, 3, 4, 5)] == [0, 10, 30, 40, 50]


@pytest.mark.parametrize("number", ["|5", "|7"])
def test_a_stated_number_that_is_not_that_of_the_images_is_refused(shards, number):
    with pytest.raises(InputError, match=f"{number[1:]} images are stated, and the 1 shards hold 6"):
        shards(number=number)


def test_shards_are_known_by_pixels_and_labels(shards):
    first = shards().fingerprint
    assert shards().fingerprint == first
    assert shards({"s1": (encoded(11), 1)}).fingerprint != first
    assert shards({"s1": (encoded(10), 3)}).fingerprint != first


def test_every_pixel_of_an_unpacked_picture_in_a_shard_counts(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    found = []
    for change in (0, 1):
        pixels[20, 30, 1] ^= change
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "BMP")
        write_files(tmp_path / "x-0000.tar", [("s0.bmp", buffer.getvalue()), ("s0.cls", b"0")])
        found.append(ipvit.load_dataset("wds/x", root=tmp_path, split="x-0000.tar").fingerprint)
    assert found[0] != found[1]


def test_a_member_that_comes_twice_is_refused(tmp_path):
    write_files(tmp_path / "x-0000.tar", [("s0.png", encoded(1)), ("s0.cls", b"0"), ("s0.png", encoded(2))])
    with pytest.raises(InputError, match=r"x-0000\.tar' holds 's0\.png' twice"):
        ipvit.load_dataset("wds/x", root=tmp_path, split="x-0000.tar")


def test_two_images_of_one_key_are_refused(tmp_path):
    write_files(tmp_path / "x-0000.tar", [("s0.png", encoded(1)), ("s0.cls", b"0"), ("s0.jpg", encoded(2))])
    with pytest.raises(InputError, match=r"'s0' in x-0000\.tar is several images \(\.jpg, \.png\), and nothing says"):
        ipvit.load_dataset("wds/x", root=tmp_path, split="x-0000.tar")


@pytest.mark.parametrize("label", ["1.7", "NaN", '"1"'])
def test_a_label_that_is_no_whole_number_is_refused(tmp_path, label):
    write_files(tmp_path / "x-0000.tar", [("s0.png", encoded(1)), ("s0.json", f'{{"label": {label}}}'.encode())])
    with pytest.raises(InputError, match=r"'s0' in x-0000\.tar: the label cannot be read"):
        ShardDataset("x", [tmp_path / "x-0000.tar"], 1, None, "label")


def test_hidden_members_are_left_out_and_told(shards):
    data = shards(extra={"._s1.png": b"0", "s9.txt": b"words"})
    assert len(data) == 6
    assert "hidden" in data.notes[0]


def test_a_label_that_is_none_is_refused_with_its_place(shards):
    with pytest.raises(InputError, match=r"'s9' in x-0000\.tar has no cls"):
        shards(extra={"s9.png": encoded(1)})


@pytest.mark.parametrize(
    ("shard", "words"),
    [
        ("x-0000.tar.gz", "is no plain tar file; unpack it"),
        ("pipe:curl there/x-0000.tar", "is not on this machine; copy the shards here"),
        ("x-0009.tar", "there is no shard .*x-0009.tar"),
    ],
)
def test_shards_that_could_only_be_read_as_a_stream_are_refused(tmp_path, shard, words):
    """A stream leaves broken images out, and each behind them would have another one's id."""
    pytest.importorskip("webdataset")
    write_shard(tmp_path / "x-0000.tar", {"s0": (encoded(1), 0)})
    with pytest.raises(InputError, match=words):
        ipvit.load_dataset("wds/x", root=tmp_path, split=f"{shard}|1")


def test_a_stream_is_read_from_its_front_and_its_labels_are_learned(monkeypatch):
    data = StreamDataset("tfds/x", Source(4), "test", ("a", "b"))
    assert data.sequential and list(data.ids) == [f"{i:08d}" for i in range(4)]
    assert [int(data.read(i)[0, 0, 0]) for i in (0, 2, 3, 1)] == [0, 20, 30, 10], "going back starts again"
    assert data.labels.tolist() == [0, 1, 0, 1]


def test_a_stream_of_another_length_than_it_states_is_refused():
    with pytest.raises(InputError, match="'tfds/x' has more images than the 3 that are stated"):
        StreamDataset("tfds/x", Source(4, stated=3), "test", None).read(2)
    with pytest.raises(UnreadableImageError, match="the stream ended before its stated number"):
        StreamDataset("tfds/x", Source(4, stated=5), "test", None).read(4)
    with pytest.raises(InputError, match="does not say how many images it has"):
        StreamDataset("tfds/x", Source(4, stated=0), "test", None)


class Source:
    """As much of timm's iterable data set as is used: pictures of rising grey, labelled in turn."""

    def __init__(self, n: int, stated: int | None = None) -> None:
        self.n, self.stated = n, n if stated is None else stated

    def __len__(self) -> int:
        return self.stated

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        for number in range(self.n):
            yield Image.new("RGB", (8, 8), (10 * number,) * 3), number % 2


@pytest.fixture
def hub(monkeypatch):
    return lambda columns, features: provide_table(monkeypatch, columns, features)


def test_columns_are_found_by_their_kind_or_named(hub):
    labels = ClassLabel(["cat", "dog"]), ClassLabel(["tabby", "pug", "corgi"])
    hub(
        {"img": rows(1, 2), "coarse": [0, 1], "fine_label": [0, 2]},
        {"img": Feature(), "coarse": labels[0], "fine_label": labels[1]},
    )
    with pytest.raises(InputError, match=r"several columns of ClassLabel \(coarse, fine_label\); say which"):
        ipvit.load_dataset("hfds/a/b", split="test")
    data = ipvit.load_dataset("hfds/a/b?label=fine_label", split="test")
    assert data.classes == ("tabby", "pug", "corgi")
    assert data.labels.tolist() == [0, 2]
    assert int(data.read(1)[0, 0, 0]) == 2
    assert ipvit.load_dataset("hfds/a/b?image=img&label=coarse", split="test").classes == ("cat", "dog")
    for name, words in {
        "hfds/a/b?label=fine": "no column 'fine'",
        "hfds/a/b?image=coarse&label=coarse": "holds ClassLabel, not images",
        "hfds/a/b?column=img": "unknown option 'column'",
    }.items():
        with pytest.raises(InputError, match=words):
            ipvit.load_dataset(name, split="test")
    with pytest.raises(InputError, match=r"split bogus|split 'bogus'"):
        ipvit.load_dataset("hfds/a/b?label=coarse", split="bogus")


def test_labels_may_be_names_or_lists_of_numbers(hub, tmp_path):
    hub({"image": rows(1, 2, 3), "label": ["dog", None, "cat"]}, {"image": Feature(), "label": "string"})
    data = ipvit.load_dataset("hfds/a/b?split=test")
    assert (data.classes, data.labels.tolist(), data.label_sets) == (("cat", "dog"), [1, -1, 0], None)
    (tmp_path / "names").write_text("dog\nfox\ncat")
    named = ipvit.load_dataset("hfds/a/b?split=test", classes=str(tmp_path / "names"))
    assert (named.classes, named.labels.tolist()) == (("dog", "fox", "cat"), [0, -1, 2])
    (tmp_path / "names").write_text("dog\nfox")
    with pytest.raises(InputError, match="the label 'cat' is none of the 2 names in --classes"):
        ipvit.load_dataset("hfds/a/b?split=test", classes=str(tmp_path / "names"))
    found = []
    for last in ([], [1]):
        hub({"image": rows(1, 2, 3), "label": [[3, 1], None, last]}, {"image": Feature(), "label": "list"})
        data = ipvit.load_dataset("hfds/a/b?split=test")
        assert data.label_sets == [(3, 1), (), tuple(last)] and data.classes == ("0", "1", "2", "3")
        found.append(data.fingerprint)
    assert found[0] != found[1]
    hub({"image": rows(1), "label": [[-1]]}, {"image": Feature(), "label": "list"})
    with pytest.raises(InputError, match=r"the column .label. holds \[-1\], which is no number of a class"):
        ipvit.load_dataset("hfds/a/b?split=test")


def test_a_table_is_known_by_the_bytes_of_its_images_and_not_by_its_name(hub):
    found = []
    for columns in (
        {"image": rows(1, 2), "label": [0, 1]},
        {"image": rows(1, 3), "label": [0, 1]},
        {"image": rows(1, 2), "label": [1, 1]},
    ):
        hub(columns, {"image": Feature(), "label": ClassLabel(["a", "b"])})
        found.append(ipvit.load_dataset("hfds/a/b", split="test").fingerprint)
    assert len(set(found)) == 3


def test_a_split_that_torchvision_does_not_know_is_refused(tmp_path):
    with pytest.raises(InputError, match="no split 'bogus'; it has train and test"):
        ipvit.load_dataset("torch/cifar10", root=tmp_path, split="bogus")
    (tmp_path / "real" / "cat").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "real" / "cat" / "a.png")
    assert len(ipvit.load_dataset("torch/image_folder", root=tmp_path, split="real")) == 1
    with pytest.raises(InputError, match="no split 'bogus'; folders of .*: real"):
        ipvit.load_dataset("torch/image_folder", root=tmp_path, split="bogus")


def test_all_bytes_of_torchvisions_folder_are_read_where_they_are_asked_for(tmp_path):
    (tmp_path / "real" / "cat").mkdir(parents=True)
    path = tmp_path / "real" / "cat" / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    size = path.stat().st_size
    assert size > SMALL
    before = ipvit.load_dataset("torch/image_folder", root=tmp_path, split="real")
    change_byte(path, size // 8)  # between two samples
    after = ipvit.load_dataset("torch/image_folder", root=tmp_path, split="real")
    assert after.fingerprint == before.fingerprint
    assert len({data.fingerprint_of_all_bytes() for data in (before, after)}) == 1  # both read the file as it is now
    whole = after.fingerprint_of_all_bytes()
    change_byte(path, size // 8)
    assert after.fingerprint_of_all_bytes() != whole


def test_torchvisions_folder_is_known_by_its_files(tmp_path):
    (tmp_path / "real" / "cat").mkdir(parents=True)
    path = tmp_path / "real" / "cat" / "a.png"
    found = []
    for level in (1, 2, 1):
        Image.fromarray(np.full((20, 20, 3), level, np.uint8)).save(path)
        found.append(ipvit.load_dataset("torch/image_folder", root=tmp_path, split="real").fingerprint)
    assert found[0] == found[2] != found[1]


def test_an_empty_line_among_class_names_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("a\n\nb\n")
    (tmp_path / "real" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"names\.txt, line 2: empty"):
        ipvit.load_dataset("torch/image_folder", root=tmp_path, split="real", classes=str(tmp_path / "names.txt"))


def test_the_folders_of_other_splits_are_no_classes(tmp_path):
    for split in ("train", "validation"):
        write_images(tmp_path / split, per_class=1)
    with pytest.raises(InputError, match="has no split 'test'; folders of"):
        ipvit.load_dataset("torch/image_folder", root=tmp_path, split="test")
    assert len(ipvit.load_dataset("torch/image_folder", root=tmp_path, split="val").classes) > 2


@pytest.mark.parametrize("name", ["torch/cifar10", "wds/x"])
def test_what_lies_in_a_folder_asks_for_it(name):
    with pytest.raises(InputError, match=f"'{name}' needs the folder that the data lies in: --data-root FOLDER"):
        ipvit.load_dataset(name)


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(InputError, match="the name of the data is empty"):
        ipvit.load_dataset("")
