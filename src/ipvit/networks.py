"""Models by the names of studies and commands: those too that need data, for their classes or for votes."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ipvit.core.files import cache_folder
from ipvit.data.dataset import Dataset
from ipvit.data.loading import load_dataset
from ipvit.engine.device import numerics, pick_device
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.preparation import default_batch
from ipvit.engine.worker_count import default_workers
from ipvit.features.neighbours import Neighbours, with_neighbours
from ipvit.models import loading
from ipvit.models.loading import GivenNames, GivenPrompts
from ipvit.models.model import Model
from ipvit.models.names import NEIGHBOURS, short_name, split_neighbours
from ipvit.models.openvino_model import with_backend

FEATURES = "features"
"""Where the features of images that vote are kept, below the user's cache folder."""


def models_named(
    name: str,
    *,
    pretrained: bool = True,
    label: str | None = None,
    prompts: Sequence[GivenPrompts] = (),
    class_names: GivenNames | None = None,
    open_data: Callable[..., Dataset] = load_dataset,
    device: str = "auto",
    workers: int | None = None,
) -> list[Model]:
    """Return the models of a name: one, or of a zero-shot model one for each set of prompts.

    Args:
        name: as :func:`ipvit.load_model` takes it.
        pretrained: likewise, and the next ones.
        label: likewise.
        prompts: sets of them.
        class_names: likewise.
        open_data: opens the images that vote, by their name and split.
        device: computes the features of these.
        workers: processes that decode them; by default none beside a CPU, which takes longer than decoding.
    """
    parts = split_neighbours(name)
    if parts is None:
        return loading.load_models(name, pretrained=pretrained, label=label, prompts=prompts, class_names=class_names)
    given, place, options = parts
    how = Neighbours.of(options, name)
    split: dict[str, Any] = {"split": options["split"]} if "split" in options else {}
    data = open_data(place, **split)
    (backbone,) = loading.load_models(given, pretrained=pretrained)
    where, found = pick_device(device), cache_folder()
    backbone.to(where).eval()
    with tempfile.TemporaryDirectory() as temporary, numerics(where, "fp32"):
        model = with_neighbours(
            backbone,
            data,
            how,
            Path(temporary) if found is None else found / FEATURES,
            name=label or f"{short_name(given)}+{how.k}nn:{Path(data.name).name}",
            batch_size=default_batch(where),
            workers=_decoders(where.type) if workers is None else workers,
        )
    model.to("cpu").eval()
    model.origin = name, pretrained
    model.dry_pass()
    return [model]


def _decoders(device_type: str) -> int:
    return 0 if device_type == "cpu" else default_workers((), device_type, ProcessGroup())


@functools.wraps(loading.load_model)
def load_model(name: str, **given: Any) -> Model:
    """See :func:`ipvit.models.loading.load_model`; ``NAME@knn:DATA`` as well."""
    if not isinstance(name, str) or NEIGHBOURS not in name:
        return loading.load_model(name, **given)
    chosen = {key: given.pop(key) for key in ("backend", "precision") if key in given}
    sets = (given.pop("prompts"),) if given.get("prompts") is not None else ()
    given.pop("prompts", None)
    (model,) = models_named(name, prompts=sets, **given)
    loading.check_texts_used([model], sets or None, given.get("class_names"))
    return with_backend(model, chosen.get("backend", "torch"), chosen.get("precision", "fp32"))
