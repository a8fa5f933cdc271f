"""A paper in small: studies of two and of one part, on tiny networks that carry the paper's names, and photos with
the names of ImageNet's validation images. As a program it runs ``ipvit`` on them, in the folder that holds them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import ipvit
from helpers.tiny import tiny_model, write_images
from ipvit.commands import paper_studies
from ipvit.errors import InputError
from ipvit.models import loading
from ipvit.models.names import ModelName

STUDIES = {
    "table-8": """\
title: The image shrunk into a corner, in small
also: [figure-99]
targets: [table8_corner]
parts:
  - data: imagenet
    models:
      - {name: "paper:deit_tiny@net.py", label: DeiT-T}
      - {name: "paper:resnet50@net.py", label: ResNet50}
    experiments: {position: {}}
""",
    "figure-18": """\
title: Two grids, whose values cannot be read
targets: []
parts:
  - name: grid-2x2
    data: imagenet
    models: ["paper:deit_tiny@net.py", "paper:resnet50@net.py"]
    experiments: {position: {}, shuffle: {grids: [2x2]}}
  - name: grid-4x4
    data: imagenet
    models: ["paper:deit_tiny@net.py", "paper:resnet50@net.py"]
    experiments: {shuffle: {grids: [4x4]}}
""",
}


def tiny_network(parsed: ModelName, pretrained: bool) -> ipvit.Model:
    """Stand in for a network of the paper: the same input, and weights where a file is named for them."""
    if pretrained and parsed.weights is None:
        raise InputError(f"cannot download {parsed.name}.pth")
    model = tiny_model(len(parsed.name), size=224, name=parsed.name)
    model.source = str(parsed.weights)
    return model


def write_photos(root: Path, per_class: int = 5) -> Path:
    """Write a folder of class folders whose images are called as ImageNet's validation images."""
    write_images(root, per_class)
    for number, path in enumerate(sorted(root.rglob("*.*")), start=1):
        path.rename(path.with_stem(f"ILSVRC2012_val_{number:08d}"))
    return root


def write_small_paper(folder: Path) -> Path:
    """Write studies and photos into a folder, and return it."""
    (folder / "studies").mkdir(parents=True)
    for name, text in STUDIES.items():
        (folder / "studies" / f"{name}.yaml").write_text(text)
    write_photos(folder / "images")
    return folder


@contextmanager
def small_paper(folder: Path) -> Generator[None]:
    """Let ``ipvit reproduce`` know the studies in a folder and no others."""
    with mock.patch.object(paper_studies, "FOLDER", folder / "studies"):
        paper_studies.paper_studies.cache_clear()
        with mock.patch.dict(loading.LOADERS, paper=tiny_network):
            yield
    paper_studies.paper_studies.cache_clear()


if __name__ == "__main__":
    from ipvit.cli import main

    with small_paper(Path()):
        sys.exit(main(sys.argv[1:]))
