"""Sets whose labels are annotations in COCO's layout: Fungi, iNaturalist 2019, COCO's objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipvit.data.published.layouts import LayoutNotFoundError, below, coco_lists, first
from ipvit.data.published.parts import FileListing, number
from ipvit.errors import InputError

COCO_MARGIN = 0.2
"""Share of its width and height that an object's box is enlarged by, as Meta-Dataset does."""


def fungi(root: Path, split: str) -> FileListing:
    """FGVCx Fungi 2018: ``train.json`` and ``val.json``."""
    folders = ("", "train_val_annotations", "fungi_train_val/train_val_annotations", "fungi_train_val")
    return _labelled(below(root, folders, f"{split}.json") / f"{split}.json", root)


def inaturalist2019(root: Path, split: str) -> FileListing:
    """INaturalist 2019: ``train2019.json`` and ``val2019.json``."""
    return _labelled(below(root, ("", "annotations"), f"{split}2019.json") / f"{split}2019.json", root)


def coco_crops(root: Path, split: str) -> FileListing:
    """Return the objects of COCO 2017, each cut out by its box enlarged by a fifth; crowds are left out."""
    path = below(root, ("annotations", ""), f"instances_{split}2017.json") / f"instances_{split}2017.json"
    content = coco_lists(path, ("images", "annotations", "categories"))
    folder = first(root, [f"{split}2017", f"images/{split}2017"]).relative_to(root).as_posix()
    try:
        files = {image["id"]: (image["file_name"], image["width"], image["height"]) for image in content["images"]}
        names = _categories(content)
        kept = [item for item in content["annotations"] if not item.get("iscrowd")]
        boxes = [_enlarged(item["bbox"], *files[item["image_id"]][1:]) for item in kept]
        objects = [(item, box) for item, box in zip(kept, boxes, strict=True) if box[2] > box[0] and box[3] > box[1]]
        paths = tuple(f"{folder}/{files[item['image_id']][0]}" for item, _ in objects)
        owners = [names[item["category_id"]] for item, _ in objects]
        ids = tuple(f"{file}#{item['id']}" for file, (item, _) in zip(paths, objects, strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise _odd(path, error) from None
    classes = tuple(names.values())
    return FileListing(
        root, paths, number(owners, classes, path), classes, ids=ids, boxes=tuple(box for _, box in objects)
    )


def _labelled(path: Path, root: Path) -> FileListing:
    """Return images with one annotation each; annotations find their image by its id, in whatever order they stand."""
    content = coco_lists(path, ("images", "annotations", "categories"))
    try:
        names = _categories(content)
        owners = {item["image_id"]: names[item["category_id"]] for item in content["annotations"]}
        files = [str(image["file_name"]) for image in content["images"]]
        named = [owners[image["id"]] for image in content["images"]]
    except (KeyError, TypeError) as error:
        raise _odd(path, error) from None
    if not files:
        raise LayoutNotFoundError(f"{path.name} with images")
    base = next((place for place in (root, path.parent, *path.parents[1:2]) if (place / files[0]).exists()), root)
    classes = tuple(names.values())
    return FileListing(base, tuple(files), number(named, classes, path), classes)


def _categories(content: dict[str, list[dict[str, Any]]]) -> dict[Any, str]:
    """Return the name of every category by its id, in the order of the ids; equal names are told apart by the id."""
    found = {item["id"]: str(item["name"]) for item in sorted(content["categories"], key=lambda item: item["id"])}
    names = list(found.values())
    return {key: name if names.count(name) == 1 else f"{name} ({key})" for key, name in found.items()}


def _enlarged(box: list[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a box of (left, top, width, height), grown around its centre."""
    left, top, wide, high = box
    grow_x, grow_y = wide * COCO_MARGIN / 2, high * COCO_MARGIN / 2
    return (
        max(round(left - grow_x), 0),
        max(round(top - grow_y), 0),
        min(round(left + wide + grow_x), width),
        min(round(top + high + grow_y), height),
    )


def _odd(path: Path, error: Exception) -> InputError:
    return InputError(f"{str(path)!r} is not in COCO's layout: {type(error).__name__} {error}")
