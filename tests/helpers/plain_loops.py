"""References for the experiments, written out plainly: one image at a time, nothing batched, nothing of the package."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import ipvit
from helpers.adapter_networks import calibrate
from helpers.tiny import PatchNet, write_images
from ipvit.api import bind_context
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.experiments.base import Measurement
from ipvit.experiments.registry import make_experiment
from ipvit.models.dry_pass import noise

CLASSES = [f"c{i}" for i in range(4)]
DISCRETE = ("image", "condition", "label", "prediction", "correct", "correct5", "dropped")
NETWORKS = "from helpers.plain_loops import loud, quiet_vit as vit, plain as net, salience, two_headed\n"
"""A user's file of networks, for the command line."""


def photos(n: int = 6, size: int | tuple[int, int] = 32, seed: int = 0, **more: Any) -> MemoryDataset:
    """Random images without a single black pixel, so that a pixel that became black can be told."""
    height, width = (size, size) if isinstance(size, int) else size
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=rng)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    pixels = (smooth * 200 + torch.rand(n, 3, height, width, generator=rng) * 50).to(torch.uint8) + 1
    return MemoryDataset(pixels, np.arange(n) % 4, CLASSES, ids=[f"photo {i}" for i in range(n)], **more)


def coloured(n: int = 48, seed: int = 0, size: int = 32, shuffled: bool = False) -> MemoryDataset:
    """Images whose class is their colour; with shuffled labels, nothing at all."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]])
    pixels = colours[labels][:, :, None, None] + rng.integers(-25, 25, (n, 3, size, size))
    if shuffled:
        labels = rng.permutation(labels)
    ids = [f"{seed}/{i:03d}" for i in range(n)]
    return MemoryDataset(torch.from_numpy(pixels.astype(np.uint8)), labels, CLASSES, ids=ids, name=f"coloured {seed}")


class Counted(MemoryDataset):
    """Images that count how often one of them is read."""

    reads = 0

    def read(self, index: int) -> Tensor:
        self.reads += 1
        return super().read(index)


def rearranged(data: MemoryDataset, order: Sequence[int]) -> Counted:
    """The images of these places, in this order, which count how often one of them is read."""
    pixels = torch.stack([data.read(i) for i in order])
    return Counted(pixels, data.labels[list(order)], CLASSES, ids=[data.ids[i] for i in order])


def tiny_vit(seed: int = 0, **changes: Any) -> VisionTransformer:
    """A timm ViT with weights large enough that attention and answers differ from place to place."""
    torch.manual_seed(seed)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 4} | changes
    network = VisionTransformer(**sizes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for block in network.blocks:
            block.attn.qkv.weight.mul_(3)
    return network.eval()


class Loud(nn.Module):
    """Keeps every image that it is shown, but for those that networks are tried on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not torch.equal(x[0], noise((x.shape[2], x.shape[3]))[0]):  # what networks are tried on begins with it
            self.seen += list(x.detach().clone())
        return self.inner(x)


def wrapped(network: nn.Module, size: int | tuple[int, int] = 32, name: str = "net", **more: Any) -> ipvit.Model:
    return ipvit.wrap(network, **{"size": size, "crop_pct": 1.0, "classes": CLASSES, "name": name} | more)


def loud(size: int | tuple[int, int] = 32, seed: int = 0, **more: Any) -> ipvit.Model:
    """A network that remembers images exactly as they are after occlusion: its normalisation does nothing."""
    torch.manual_seed(seed)
    return wrapped(Loud(PatchNet()), size, **{"mean": (0, 0, 0), "std": (1, 1, 1)} | more)


def tiny_resnet() -> ipvit.Model:
    torch.manual_seed(3)
    network = ResNet(BasicBlock, (1, 1, 1, 1), 4, channels=(8, 12, 16, 24), stem_width=8)
    calibrate(network, torch.randn(16, 3, 64, 64))
    return wrapped(network, 64, "resnet")


def plain(size: int = 32) -> ipvit.Model:
    torch.manual_seed(0)
    return wrapped(PatchNet(), size)


def quiet_vit(**options: Any) -> ipvit.Model:
    return wrapped(tiny_vit(**options), options.get("img_size", 32), name="vit")


def salience(**options: Any) -> ipvit.Model:
    """A network without classifier, as those are that salience comes from."""
    return wrapped(tiny_vit(**{"seed": 9, "num_classes": 0} | options), options.get("img_size", 32), name="where")


def two_headed() -> ipvit.Model:
    return salience(num_heads=2)


def working_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with networks in nets.py and photos in images/."""
    monkeypatch.chdir(path)
    (path / "nets.py").write_text(NETWORKS)
    write_images(path / "images", per_class=2, size=(36, 40))
    return path


# Randomness: the words of a key, in Python's own integers.


def key_of(image_id: str, *words: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(words).encode() + image_id.encode(), digest_size=8).digest(), "little")


def random_words_of(key: int, n: int) -> list[int]:
    """SplitMix64."""
    whole, found = 2**64, []
    for step in range(1, n + 1):
        z = (key + step * 0x9E3779B97F4A7C15) % whole
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % whole
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % whole
        found.append(z ^ (z >> 31))
    return found


def order_of(key: int, n: int) -> list[int]:
    words = random_words_of(key, n)
    return sorted(range(n), key=words.__getitem__)


def parts_of(share: float, n: int) -> int:
    """How many of n a share is, rounded down, in whole thousandths to be exact."""
    return round(share * 1000) * n // 1000


# Networks, by their weights.


def normed(x: Tensor, norm: Any) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def vit_by_hand(
    network: VisionTransformer,
    pixels: Tensor,
    *,
    only: Iterable[int] | None = None,
    zeroed: tuple[int, Iterable[int]] | None = None,
) -> dict[str, Any]:
    """Run a timm ViT on one normalised image (3, H, W), written out from its weights.

    ``only`` are the patches that enter; ``zeroed`` is a block and the patches that are zero before it. Returns the
    logits, the class token after the last norm per block, and per block the attention maps (heads, T, T).
    """
    weight = network.patch_embed.proj.weight
    side = weight.shape[-1]
    rows, columns = pixels.shape[1] // side, pixels.shape[2] // side
    tiles = [
        pixels[:, r * side : (r + 1) * side, c * side : (c + 1) * side].flatten()
        for r in range(rows)
        for c in range(columns)
    ]
    patches = torch.stack(tiles) @ weight.flatten(1).T + network.patch_embed.proj.bias
    x = torch.cat([network.cls_token[0], patches])
    if network.pos_embed is not None:
        x = x + network.pos_embed[0]
    if only is not None:
        x = x[[0, *(1 + place for place in only)]]
    maps, tokens = [], []
    for number, block in enumerate(network.blocks):
        if zeroed is not None and zeroed[0] == number:
            x = x.clone()
            x[[1 + place for place in zeroed[1]]] = 0
        y = normed(x, block.norm1) @ block.attn.qkv.weight.T + block.attn.qkv.bias
        heads, width = block.attn.num_heads, x.shape[1]
        size = width // heads
        answers, seen = [], []
        for head in range(heads):
            q, k, v = (y[:, part * width + head * size : part * width + (head + 1) * size] for part in range(3))
            scores = q @ k.T / math.sqrt(size)
            scores = (scores - scores.amax(dim=1, keepdim=True)).exp()
            seen.append(scores / scores.sum(dim=1, keepdim=True))
            answers.append(seen[-1] @ v)
        x = x + torch.cat(answers, dim=1) @ block.attn.proj.weight.T + block.attn.proj.bias
        hidden = nn.functional.gelu(normed(x, block.norm2) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
        x = x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
        maps.append(torch.stack(seen).detach())
        tokens.append(normed(x, network.norm)[0].detach())
    logits = None
    if isinstance(network.head, nn.Linear):
        logits = (tokens[-1] @ network.head.weight.T + network.head.bias).detach()
    return {"logits": logits, "tokens": tokens, "maps": maps}


def normalised(model: ipvit.Model, pixels: np.ndarray | Tensor) -> Tensor:
    """Return (3, H, W) in [0, 1] as the network itself wants it."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    return (torch.as_tensor(pixels) - mean) / std


def pixels_of(data: Any, image_id: str) -> np.ndarray:
    """Return (3, H, W) float32 in [0, 1] of the image of that id."""
    return data.read(list(data.ids).index(image_id)).numpy().astype(np.float32) / 255


def answer(model: ipvit.Model, pixels: np.ndarray | Tensor) -> Tensor:
    """Return the logits for one image."""
    with torch.no_grad():
        return model(torch.as_tensor(pixels)[None])[0]


# Runs.


def measured(experiment: ipvit.Experiment, models: Any, data: Any, out: Path, **options: Any) -> pl.DataFrame:
    run = ipvit.run(experiment, models=models, data=data, out=out, progress=False, **{"workers": 0} | options)
    assert not run.manifest.failures, run.manifest.failures
    return run.records(experiment.name)


def probed(out: Path, model: Any = None, data: Any = None, **fields: Any) -> ipvit.Run:
    """A run of the probe: heads fitted on coloured images, measured on others."""
    experiment = ipvit.Probe(**({"train": coloured()} | fields))
    return ipvit.run(
        experiment, models=model or quiet_vit(), data=data or coloured(24, 1), out=out, workers=0, progress=False
    )


def heads_in(out: Path) -> dict[str, Path]:
    """The probe files of a run's heads, by blocks, tokens and kind of head."""
    return {path.name.rpartition("-")[0]: path for path in out.glob("probes/*/*-*.safetensors")}


def bound(experiment: ipvit.Experiment, model: ipvit.Model, data: Any = None) -> Measurement:
    """Bind an experiment to one network."""
    return experiment.bind([model], data, bind_context())


def seen_by(
    model: ipvit.Model, records: pl.DataFrame, experiment: ipvit.Experiment, data: Any
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Pair every record with the picture that the network was really shown; all images were in one batch."""
    rows = {(row["condition"], row["image"]): row for row in records.iter_rows(named=True)}
    conditions = bound(experiment, model, data).conditions(model)
    asked = itertools.product((condition.key for condition in conditions), data.ids)
    shown = [picture.numpy() for picture in model.backbone.seen]
    return [(rows[key], picture) for key, picture in zip(asked, shown, strict=True)]


def share_changed(image: np.ndarray, occluded: np.ndarray) -> float:
    return float((image != occluded).any(axis=0).mean())


def agrees(row: dict[str, Any], logits: Tensor) -> None:
    """Check a record against the logits of a plain loop."""
    assert row["prediction"] == int(logits.argmax())
    assert row["correct"] == (int(logits.argmax()) == row["label"])
    assert row["correct5"] == (row["label"] in logits.topk(min(5, len(logits))).indices.tolist())
    share = logits.softmax(dim=0)
    assert row["confidence"] == pytest.approx(float(share.max()), abs=1e-5)
    assert row["label_probability"] == pytest.approx(float(share[row["label"]]), abs=1e-5)


def same_records(one: pl.DataFrame, other: pl.DataFrame) -> None:
    """Check that two runs measured the same: what counts exactly, what is computed up to rounding."""
    key = ["image", "condition"]
    one, other = (frame.sort(key) for frame in (one, other))
    assert one.height == other.height > 0
    exact = [name for name in DISCRETE if name in one.columns]
    assert one.select(exact).equals(other.select(exact))
    for name in ("confidence", "label_probability", "correlation", "distance"):
        if name in one.columns:
            assert np.allclose(one[name].to_numpy(), other[name].to_numpy(), atol=1e-5, equal_nan=True)


def same_for_any_batch_size(
    make: Callable[[], ipvit.Experiment], models: Callable[[], Any], data: Any, out: Path
) -> None:
    """Check that the records do not depend on the batch size, nor on an earlier run that only did a part."""
    whole = measured(make(), models(), data, out / "all")
    for size in (1, 3):
        same_records(whole, measured(make(), models(), data, out / str(size), batch_size=size))
    measured(make(), models(), data, out / "partly", limit=2)
    run = ipvit.run(make(), models=models(), data=data, out=out / "partly", workers=0, progress=False, batch_size=3)
    assert 0 < run.manifest.measured_in_this_call < whole.height
    same_records(whole, run.records(make().name))


def same_from_everywhere(name: str, parameters: dict[str, Any], model: str = "nets.py:net") -> pl.DataFrame:
    """Check that Python, the command line and a study file measure the same in a :func:`working_folder`."""
    words = []
    for key, value in parameters.items():
        words += [f"--{key.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    assert main([name, "--model", model, "--data", "images", "--out", "cli", "--workers", "0", *words]) == 0
    study = {"models": [model], "data": "images", "experiments": {name: parameters}, "workers": 0}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["run", "study.yaml", "--out", "yaml"]) == 0
    records = measured(make_experiment(name, parameters), model, "images", Path("python"))
    for folder in ("cli", "yaml"):
        assert (Path(folder) / "report.html").exists()
        same_records(records, ipvit.Run(folder).records(name))
    return records
