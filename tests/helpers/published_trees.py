"""Tiny trees in the layouts of published sets: a handful of images each, the rest as the publishers have it."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image


def picture(path: Path, shade: int = 0, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, 30, 60)).save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    text(base / "variants.txt", "707-320", "A340-300", "Cessna 172")
    images = {
        "train": ("1 Cessna 172", "2 707-320"),
        "val": ("3 A340-300",),
        "test": ("4 707-320", "5 Cessna 172", "6 A340-300"),
    }
    for split, lines in images.items():
        text(base / f"images_variant_{split}.txt", *lines)
        for line in lines:
            picture(base / "images" / f"{line.split()[0]}.jpg")


def cub(root: Path) -> None:
    base = root / "CUB_200_2011"
    text(base / "classes.txt", "1 001.Albatross", "2 002.Auk")
    names = [f"{c + 1:03d}.{('Albatross', 'Auk')[c]}/{c}_{i}.jpg" for c in range(2) for i in range(30)]
    text(base / "images.txt", *(f"{n + 1} {name}" for n, name in enumerate(names)))
    text(base / "image_class_labels.txt", *(f"{n + 1} {n // 30 + 1}" for n in range(60)))
    text(base / "train_test_split.txt", *(f"{n + 1} {int(n % 3 > 0)}" for n in range(60)))
    for name in names:
        picture(base / "images" / name)


def dtd(root: Path) -> None:
    base = root / "dtd"
    for number, split in enumerate(("train", "val", "test")):
        listing = [f"{name}/{name}_{number:04d}.jpg" for name in ("banded", "dotted")]
        text(base / "labels" / f"{split}1.txt", *listing)
        for name in listing:
            picture(base / "images" / name)


def flowers102(root: Path) -> None:
    base = root / "flowers-102"
    base.mkdir(parents=True)
    owners = np.array([[2, 1, 2, 1, 3, 3]], np.uint8)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": owners}, do_compression=True)
    divisions = {"trnid": [[1, 2]], "valid": [[3]], "tstid": [[4, 6, 5]]}
    scipy.io.savemat(base / "setid.mat", {key: np.array(rows, np.uint16) for key, rows in divisions.items()})
    for number in range(1, 7):
        picture(base / "jpg" / f"image_{number:05d}.jpg")


def coco_json(path: Path, files: list[str], owners: list[int], names: list[str], **more: object) -> None:
    """Write annotations whose order is not that of the images."""
    images = [{"id": 10 + n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(files)]
    labels = [{"id": n, "image_id": 10 + n, "category_id": owner, **more} for n, owner in enumerate(owners)]
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [{"id": n, "name": name} for n, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": labels[::-1], "categories": kinds[::-1]}))


def fungi(root: Path) -> None:
    for split, files in (("train", ["images/a.jpg", "images/b.jpg", "images/c.jpg"]), ("val", ["images/d.jpg"])):
        coco_json(root / f"{split}.json", files, [1, 0, 1][: len(files)], ["Amanita", "Boletus"])
        for name in files:
            picture(root / name)


def inaturalist2019(root: Path) -> None:
    train = [f"train_val2019/Birds/{c}/{i}.jpg" for c in (3, 7) for i in range(10)]
    coco_json(root / "train2019.json", train, [0] * 10 + [1] * 10, ["3", "7"])
    coco_json(root / "val2019.json", ["train_val2019/Birds/7/x.jpg"], [1], ["3", "7"])
    for name in [*train, "train_val2019/Birds/7/x.jpg"]:
        picture(root / name)


def places365(root: Path) -> None:
    text(root / "categories_places365.txt", "/a/airfield 0", "/b/bar 1", "/c/cabin/outdoor 2")
    train = [("/a/airfield/1.jpg", 0), ("/a/airfield/2.jpg", 0), ("/c/cabin/outdoor/1.jpg", 2)]
    text(root / "places365_train_standard.txt", *(f"{name} {label}" for name, label in train))
    text(root / "places365_val.txt", "Places365_val_1.jpg 1", "Places365_val_2.jpg 2")
    for name, _ in train:
        picture(root / "data_256_standard" / name[1:])
    for number in (1, 2):
        picture(root / "val_256" / f"Places365_val_{number}.jpg")


def gtsrb(root: Path) -> None:
    """The official archives: class 0 with four tracks of three frames, class 7 with two."""
    base = root / "GTSRB"
    for label, tracks in ((0, 4), (7, 2)):
        for track in range(tracks):
            for frame in range(3):
                picture(base / "Final_Training" / "Images" / f"{label:05d}" / f"{track:05d}_{frame:05d}.ppm")
        text(base / "Final_Training" / "Images" / f"{label:05d}" / f"GT-{label:05d}.csv", "Filename;Width")
    text(root / "GT-final_test.csv", "Filename;Width;ClassId", "00000.ppm;8;7", "00001.ppm;8;0")
    for number in range(2):
        picture(base / "Final_Test" / "Images" / f"{number:05d}.ppm")


def gtsrb_of_torchvision(root: Path) -> None:
    gtsrb(root / "gtsrb")
    (root / "gtsrb" / "GTSRB" / "Final_Training" / "Images").rename(root / "gtsrb" / "GTSRB" / "Training")
    (root / "gtsrb" / "GTSRB" / "Final_Training").rmdir()


CIFAR = np.random.default_rng(0).integers(0, 256, (60, 3 * 32 * 32), dtype=np.uint8)
CIFAR_LABELS = np.arange(60) % 3


class Python2Pickler(pickle._Pickler):
    """Write texts and bytes as Python 2 does, with which the published files were made."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - the base class has it so

    def _old_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _old_string


def python2_pickle(content: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar10(root: Path) -> None:
    base = root / "cifar-10-batches-bin"
    text(base / "batches.meta.txt", "airplane", "automobile", "bird")
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for n, name in enumerate(names):
        rows = slice(10 * n, 10 * n + 10)
        records = np.concatenate([CIFAR_LABELS[rows, None].astype(np.uint8), CIFAR[rows]], axis=1)
        (base / f"{name}.bin").write_bytes(records.tobytes())


def cifar10_of_python(root: Path) -> None:
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for n, name in enumerate(names):
        rows = slice(10 * n, 10 * n + 10)
        content = {b"data": CIFAR[rows], b"labels": CIFAR_LABELS[rows].tolist(), b"filenames": [b"x.png"] * 10}
        (base / name).write_bytes(python2_pickle(content))
    names_of = {b"label_names": [b"airplane", b"automobile", b"bird"], b"num_vis": 3072}
    (base / "batches.meta").write_bytes(python2_pickle(names_of))


def cifar100(root: Path) -> None:
    base = root / "cifar-100-binary"
    text(base / "fine_label_names.txt", "apple", "aquarium_fish", "baby")
    for name, rows in (("train", slice(0, 50)), ("test", slice(50, 60))):
        coarse = np.full((len(CIFAR[rows]), 1), 19, np.uint8)
        records = np.concatenate([coarse, CIFAR_LABELS[rows, None].astype(np.uint8), CIFAR[rows]], axis=1)
        (base / f"{name}.bin").write_bytes(records.tobytes())


def cifar100_of_python(root: Path) -> None:
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    for name, rows in (("train", slice(0, 50)), ("test", slice(50, 60))):
        content = {b"data": CIFAR[rows], b"fine_labels": CIFAR_LABELS[rows].tolist(), b"coarse_labels": [0]}
        (base / name).write_bytes(python2_pickle(content))
    (base / "meta").write_bytes(python2_pickle({b"fine_label_names": [b"apple", b"aquarium_fish", b"baby"]}))


def mnist(root: Path, *, packed: bool = False) -> None:
    base = root / "MNIST" / "raw"
    base.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for stem, n in (("train", 40), ("t10k", 10)):
        images, labels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
            name = f"{stem}-{what}-ubyte"
            (base / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)


def packed_mnist(root: Path) -> None:
    mnist(root, packed=True)


def imagenet(root: Path) -> None:
    for split, n in (("train", 20), ("val", 2)):
        for synset in ("n01440764", "n02123045"):
            for number in range(n):
                picture(root / split / synset / f"{synset}_{number}.JPEG")


def imagenet_of_kaggle(root: Path) -> None:
    imagenet(root / "ILSVRC" / "Data" / "CLS-LOC")
    val = root / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    flatten(val)
    listing = [f"{path.stem},{path.stem.split('_')[0]} 1 2 3 4 " for path in sorted(val.iterdir())]
    text(root / "LOC_val_solution.csv", "ImageId,PredictionString", *listing)


def imagenet_of_the_kit(root: Path) -> None:
    imagenet(root)
    flatten(root / "val")
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    synsets = np.zeros(2, dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    synsets[0], synsets[1] = (1.0, "n02123045", "tabby, tabby cat"), (2.0, "n01440764", "tench")
    scipy.io.savemat(kit / "meta.mat", {"synsets": synsets}, do_compression=True)
    number = {"n02123045": "1", "n01440764": "2"}
    text(
        kit / "ILSVRC2012_validation_ground_truth.txt",
        *(number[path.stem.split("_")[0]] for path in sorted((root / "val").iterdir())),
    )


def flatten(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.rename(folder / path.name)
    for path in list(folder.iterdir()):
        if path.is_dir():
            path.rmdir()


def omniglot(root: Path) -> None:
    for folder, alphabets in (("images_background", ("Greek", "Latin")), ("images_evaluation", ("Atlantean",))):
        for alphabet in alphabets:
            for character in ("character01", "character02"):
                for number in range(3):
                    path = root / "omniglot-py" / folder / alphabet / character / f"{number:04d}_01.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("1", (105, 105), 1).save(path)


def quickdraw(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    for name, n in (("The Eiffel Tower", 5), ("cat", 7)):
        np.save(root / f"{name}.npy", rng.integers(0, 256, (n, 784), dtype=np.uint8))


def coco_crops(root: Path) -> None:
    for split in ("train", "val"):
        for n in range(2):
            picture(root / f"{split}2017" / f"{n:012d}.jpg", size=(40, 30))
        files = [f"{n:012d}.jpg" for n in range(2)]
        path = root / "annotations" / f"instances_{split}2017.json"
        coco_json(path, files, [0, 1], ["person", "bicycle"], bbox=[10, 10, 20, 10], iscrowd=0)
        content = json.loads(path.read_text())
        content["annotations"] += [
            {"id": 7, "image_id": 10, "category_id": 1, "bbox": [0, 0, 10, 30], "iscrowd": 0},
            {"id": 8, "image_id": 10, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ]
        path.write_text(json.dumps(content))


def split_folders(root: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> None:
    for split, n in zip(splits, (20, 3, 4), strict=False):
        for name in ("b", "a"):
            for number in range(n):
                picture(root / split / name / f"{split}{number}.png")
    picture(root / "train" / "only in train" / "x.png")


LAYOUTS = {
    "aircraft": (aircraft,),
    "cub": (cub,),
    "dtd": (dtd,),
    "flowers102": (flowers102,),
    "fungi": (fungi,),
    "gtsrb": (gtsrb, gtsrb_of_torchvision),
    "inaturalist2019": (inaturalist2019,),
    "places365": (places365,),
    "cifar10": (cifar10, cifar10_of_python),
    "cifar100": (cifar100, cifar100_of_python),
    "imagenet": (imagenet, imagenet_of_kaggle, imagenet_of_the_kit),
    "omniglot": (omniglot,),
    "mnist": (mnist, packed_mnist),
    "quickdraw": (quickdraw,),
    "coco-crops": (coco_crops,),
    "folder": (split_folders,),
}
CASES = [(name, tree) for name, kinds in LAYOUTS.items() for tree in kinds]
"""Every set with a tree for it, in each of its layouts."""
