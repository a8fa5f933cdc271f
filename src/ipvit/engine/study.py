"""A study: models x experiments x data, as a YAML file or as options of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ipvit.errors import InputError, did_you_mean
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import make_experiment
from ipvit.faults import explain
from ipvit.models.backend import Backend, Precision
from ipvit.yaml_files import read_mapping


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ModelEntry(_Strict):
    """A model of a study."""

    name: str
    """Model name, with weights after ``@``."""
    label: str | None = None
    """Name in tables and figures."""
    pretrained: bool = True
    """Fetch published weights; otherwise random ones from a fixed seed."""


class DataEntry(_Strict):
    """The images of a study."""

    name: str
    """A folder, a tar file, ``demo:trifeature``, or a name that timm knows."""
    root: str | None = None
    """Where timm's data sets lie."""
    split: str = "validation"
    """Split of timm's data sets."""
    decoder: str = "fast"
    """``fast`` (torchvision) or ``pil`` (Pillow)."""
    classes: str | None = None
    """What integer labels are, where the data does not say: imagenet-1k, or a file with one class name per line."""


class ExperimentEntry(_Strict):
    """An experiment of a study, with its parameters."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    models: list[str] | None = None
    """Only these models of the study, by label or name; all by default."""


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _experiment_entry(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        ((name, parameters),) = value.items()
        if parameters is None or isinstance(parameters, dict):
            rest = dict(parameters or {})
            return {"name": name, "models": rest.pop("models", None), "parameters": rest}
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, dict) and "name" not in value:
        return [{name: parameters} for name, parameters in value.items()]
    return value if isinstance(value, list) else [value]


class Study(_Strict):
    """What to measure. See ``docs`` for a commented example."""

    models: Annotated[
        list[Annotated[ModelEntry, BeforeValidator(_named)]],
        BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
        Field(min_length=1),
    ]
    """Model names, or mappings with ``name``, ``label``, ``pretrained``."""
    data: Annotated[DataEntry, BeforeValidator(_named)]
    """A data name, or a mapping with ``name``, ``root``, ``split``, ``decoder``."""
    experiments: Annotated[
        list[Annotated[ExperimentEntry, BeforeValidator(_experiment_entry)]],
        BeforeValidator(_listed),
        Field(min_length=1),
    ]
    """Experiment names, each with a mapping of its parameters."""
    out: str | None = None
    """The run folder; ``--out`` overrides it."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    """Everything random follows from it."""
    limit: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    """Use that many images only; the run is marked as limited."""
    precision: Precision = "fp32"
    """fp32, bf16 or fp16."""
    backend: Backend = "torch"
    """What computes logits and attention: torch, or openvino on a CPU."""
    batch_size: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    """Images at a time; halved by itself where they do not fit into memory."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Decoding processes."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    compile: bool = False
    """Run the networks through torch.compile."""
    strict: bool = False
    """Make an unreadable image an error."""

    def make_experiments(self, where: str = "") -> list[Experiment]:
        """Make the experiments; an unknown parameter is an InputError."""
        known = {name for model in self.models for name in (model.label, model.name) if name is not None}
        made = []
        for entry in self.experiments:
            for name in entry.models or ():
                if name not in known:
                    prefix = f"{where}: " if where else ""
                    raise InputError(
                        f"{prefix}{entry.name}: no model of the study is called {name!r}.{did_you_mean(name, known)}"
                    )
            experiment = make_experiment(entry.name, entry.parameters, where).limited_to(entry.models or None)
            opening = {"root": self.data.root, "decoder": self.data.decoder, "classes": self.data.classes}
            made.append(experiment.opening_data(**opening))
        return made


def read_study(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        InputError: no such file, not YAML, an unknown key or a value that does not fit; names the file and the key.
    """
    return make_study(read_mapping(path, "study", "models, data and experiments"), str(path))


def make_study(content: dict[str, Any], where: str = "") -> Study:
    """Make a study from a mapping; see :func:`read_study`."""
    try:
        study = Study(**content)
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        raise InputError(prefix + explain(error, Study)) from None
    study.make_experiments(where)
    return study


def study_text(study: Study, experiments: list[Experiment]) -> str:
    """Return the resolved study as YAML: every parameter spelled out."""
    content = study.model_dump(mode="json", exclude={"experiments", "out"}, exclude_none=True)
    content["experiments"] = [
        {entry.name: ({"models": entry.models} if entry.models else {}) | experiment.model_dump(mode="json")}
        for entry, experiment in zip(study.experiments, experiments, strict=True)
    ]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
