"""The whole paper in small: checkpoints of tiny networks for every name, and trees of tiny data for every study."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from timm.models.deit import VisionTransformerDistilled
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import ipvit
from helpers.image_trees import write_cue_conflict, write_voc
from ipvit.commands.paper_studies import PaperStudy, StudyPart
from ipvit.data.published import SETS
from ipvit.data.published.meta_dataset import classes_for_tests
from ipvit.experiments.attack import patches
from ipvit.experiments.correlation.superclasses import superclasses
from ipvit.models import loading
from ipvit.models.label_spaces import entry_level_synsets, imagenet_classes
from ipvit.models.names import ModelName
from ipvit.models.sources import paper
from ipvit.models.zoo.paper import NETWORKS
from ipvit.perturb.corruptions.names import CORRUPTIONS
from ipvit.perturb.patch import PatchGeometry, noise_patch
from ipvit.report import build

TREES = [name for name in SETS if name not in ("imagenet", "folder")]


def tiny(name: str, options: dict[str, Any]) -> nn.Module:
    """Build a network of few weights with the blocks, tokens and input of the one that is named."""
    if name and not any(word in name for word in ("deit", "vit_", "tnt", "t2t")):
        # a deep stem of eight channels: what it is without, 64 channels at 112 x 112, takes longer than all else
        shape: dict[str, Any] = {"channels": (8, 8, 8, 8), "stem_width": 4, "stem_type": "deep"}
        return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=1000, **shape).eval()
    build = VisionTransformerDistilled if "distilled" in name else VisionTransformer
    depth = 24 if "large" in name or name.endswith("_24") else 12
    options = {"patch_size": 16, **{key: value for key, value in options.items() if key in _KEPT}}
    return build(embed_dim=24, depth=depth, num_heads=2, mlp_ratio=1, **options).eval()


_KEPT = ("img_size", "patch_size", "num_classes", "pos_embed")


def write_checkpoints(folder: Path) -> dict[str, str]:
    """Write a file of weights for every network, laid out as the published one; return the files by network."""
    folder.mkdir()
    files = {}
    for number, (name, entry) in enumerate(NETWORKS.items()):
        network = paper.build_paper(entry)
        torch.manual_seed(number + 1)
        state = {
            key: torch.rand_like(value) + 0.5 if key.endswith("running_var") else 0.1 * torch.randn_like(value)
            for key, value in network.state_dict().items()
            if value.is_floating_point()
        }
        if name == "dino_vits16":  # attention that is neither uniform nor all on one patch: levels from 0.5 to 0.95
            state["blocks.11.attn.qkv.weight"] *= 8
        files[name] = str(folder / f"{name}.pth")
        torch.save({entry.key: state} if entry.key else state, files[name])
    for name in ("alexnet", "vgg16"):
        files[name] = str(folder / f"{name}.pth")
        Path(files[name]).touch()
    return files


def _torchvision(parsed: ModelName, _pretrained: bool) -> ipvit.Model:
    torch.manual_seed(len(parsed.name))
    model = ipvit.wrap(tiny("resnet", {}), size=224, classes=imagenet_classes(), name=parsed.name)
    model.source = str(parsed.weights)
    return model


def _untrained_patch(
    _network: object, _images: object, _labels: object, form: PatchGeometry, key: int, **_: object
) -> torch.Tensor:
    """Stand in for 1,250 steps of training."""
    return noise_patch(key, form.resolution)


@contextmanager
def whole_paper() -> Generator[None]:
    """Let every name of the paper stand for a tiny network; nothing is trained for long, and no page is drawn."""
    constructors = dict.fromkeys(paper.CONSTRUCTORS, tiny)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(paper.CONSTRUCTORS, constructors))
        stack.enter_context(mock.patch.dict(loading.LOADERS, torchvision=_torchvision))
        stack.enter_context(mock.patch.object(patches, "train_patch", _untrained_patch))
        stack.enter_context(mock.patch.object(build, "build_report", lambda results: results.out / "report.html"))
        yield


def shortened(study: PaperStudy) -> PaperStudy:
    """Return a study with one run and few episodes: numbers of the paper do not depend on how many there are."""
    return dataclasses.replace(study, parts=tuple(_shortened(part) for part in study.parts))


def _shortened(part: StudyPart) -> StudyPart:
    experiments = {name: dict(keys or {}) for name, keys in part.experiments.items()}
    for name, keys in experiments.items():
        keys |= {"runs": 1} if "runs" in keys else {}
        keys |= {"count": 2} if name == "fewshot" else {}
    return dataclasses.replace(part, experiments=experiments)


def picture(path: Path, number: int, size: tuple[int, int] = (256, 256)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


def write_imagenet(root: Path, synsets: list[str]) -> Path:
    for number, synset in enumerate(synsets, start=1):
        picture(root / synset / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    return root


def one_of_each_superclass() -> list[str]:
    return list({group: synset for synset, group in superclasses().items()}.values())


def write_trees(root: Path) -> dict[str, str]:
    """Write the data of all studies; return their places by kind."""
    places = {"imagenet": str(write_imagenet(root / "imagenet", ["n01440764", "n02123045"]))}
    for number, name in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            folder = root / "imagenet-c" / name / str(severity) / "n01440764"
            picture(folder / "ILSVRC2012_val_00000001.JPEG", 10 * number + severity, (224, 224))
    write_voc(root / "voc")
    for path in sorted((root / "voc").rglob("*")):
        if path.stem.startswith("2007_"):
            path.rename(path.with_stem(path.stem.replace("2007_", "2007_00000")))
    for path in (root / "voc").rglob("*.txt"):
        path.write_text(path.read_text().replace("2007_", "2007_00000"))
    categories = list(entry_level_synsets())
    pairs = zip(categories, categories[1:] + categories[:1], strict=True)
    write_cue_conflict(root / "cue-conflict", tuple(f"{shape}/{shape}1-{texture}2.png" for shape, texture in pairs))
    for name in TREES:
        names = classes_for_tests().get(name, tuple(f"c{i}" for i in range(6)))[:6]
        for split in ("train", "val", "test"):
            for number, class_name in enumerate(names):
                for i in range(4):
                    picture(root / name / split / class_name / f"{split}{i}.png", 10 * number + i, (16, 16))
        places[name] = str(root / name)
    return places | {kind: str(root / kind) for kind in ("imagenet-c", "voc", "cue-conflict")}
