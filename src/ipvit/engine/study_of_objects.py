"""The study of a run from Python, as the file that repeats it, or that says why it cannot be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset
from ipvit.engine.study import DataEntry, ExperimentEntry, ModelEntry, study_text
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import BUILT_IN, plugins
from ipvit.models.model import Model
from ipvit.models.names import short_name


def text_of_objects(
    models: Sequence[Model], data: Dataset, experiments: Sequence[Experiment], config: RunConfig
) -> str:
    """Return the study of a run of objects as YAML.

    Args:
        models: by the names that they were loaded by, where they were loaded.
        data: likewise.
        experiments: with every parameter spelled out.
        config: the options of the run.
    """
    own = [f"the model {model.name!r}" for model in models if model.origin is None]
    origin = getattr(data, "origin", None)
    own += [] if origin else [f"the data {data.name!r}"]
    known = {*BUILT_IN, *(point.name for point in plugins())}
    own += [f"the experiment {one.name!r}" for one in experiments if one.name not in known]
    return study_text(
        [_model_entry(model) for model in models],
        DataEntry(**origin) if origin else DataEntry(name=data.name),
        [(ExperimentEntry(name=experiment.name), experiment) for experiment in experiments],
        config,
        made_in_python=", ".join(own) or None,
    )


def _model_entry(model: Model) -> ModelEntry:
    if model.origin is None:
        return ModelEntry(name=model.name)
    name, pretrained = model.origin
    label = None if model.name in (name, short_name(name)) else model.name
    return ModelEntry(name=name, label=label, pretrained=pretrained, **_texts(model))


def _texts(model: Model) -> dict[str, Any]:
    """Return what a zero-shot model was told, where that was not left to the data and the default."""
    if model.texts is None:
        return {}
    prompts, names = model.texts.prompts.given, model.texts.names.given
    return {
        "prompts": None if prompts is None else [prompts if isinstance(prompts, str) else list(prompts)],
        "class_names": names if names is None or isinstance(names, str) else list(names),
    }
