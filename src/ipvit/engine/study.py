"""A study: models x experiments x data, as a YAML file or as options of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ipvit.core.run_config import OF_ONE_CALL, RunConfig
from ipvit.core.text.validation_messages import validated
from ipvit.core.yaml_files import read_mapping
from ipvit.engine.types import Selected
from ipvit.errors import InputError, did_you_mean
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import make_experiment

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset

STUDY = "study.yaml"
"""The resolved study in a run folder."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def _sets(value: Any) -> Any:
    return cast("object", value) if value is None or isinstance(value, list) else [value]


PromptSets: TypeAlias = Annotated[list[str | list[str]] | None, BeforeValidator(_sets)]
"""Sets of prompts, each a sentence with ``{}`` for the class name, ``openai80``, a file, or a list of sentences."""


class ModelEntry(_Strict):
    """A model of a study."""

    name: str
    """Model name, with weights after ``@``."""
    label: str | None = None
    """Name in tables and figures."""
    pretrained: bool = True
    """Fetch published weights; otherwise random ones from a fixed seed."""
    prompts: PromptSets = None
    """Of a zero-shot model, in the place of the study's own: one model for each set of prompts."""
    class_names: str | list[str] | None = None
    """Likewise: ``imagenet``, a file with one class a line, or the names."""


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
    labels: Literal["real"] | None = None
    """``real``: ReaL's labels of ImageNet's validation images, several or none an image."""
    subset: Literal["robustbench"] | None = None
    """``robustbench``: the 5,000 of ImageNet's validation images that RobustBench measures on."""

    def open(self) -> Dataset:
        """Open the images as the study says.

        Raises:
            InputError: there are none, or they cannot be read.
        """
        from ipvit.data.loading import load_dataset

        return load_dataset(
            self.name,
            root=self.root,
            split=self.split,
            decoder=self.decoder,  # pyright: ignore[reportArgumentType]
            classes=self.classes,
            labels=self.labels,
            subset=self.subset,
        )


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
    entry = _mapping(value)
    if entry is not None and len(entry) == 1 and "name" not in entry:
        ((name, parameters),) = entry.items()
        if parameters is None or isinstance(parameters, dict):
            rest = dict(_mapping(parameters) or {})
            return {"name": name, "models": rest.pop("models", None), "parameters": rest}
    return value


def _listed(value: Any) -> list[Any]:
    entries = _mapping(value)
    if entries is not None and "name" not in entries:
        return [{name: parameters} for name, parameters in entries.items()]
    return _one_or_several(value)


def _one_or_several(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _mapping(value: Any) -> dict[Any, Any] | None:
    return cast("dict[Any, Any]", value) if isinstance(value, dict) else None


class Study(RunConfig):
    """What to measure, and how. See ``docs`` for a commented example."""

    models: Annotated[
        list[Annotated[ModelEntry, BeforeValidator(_named)]],
        BeforeValidator(_one_or_several),
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
    prompts: PromptSets = None
    """Sets of prompts for the zero-shot models: a sentence with ``{}`` in it, ``openai80``, a file, or sentences."""
    class_names: str | list[str] | None = None
    """Class names of the zero-shot models: ``imagenet``, a file, or the names; by default the classes of the data."""
    out: str | None = None
    """The run folder; ``--out`` overrides it."""
    made_in_python: str | None = None
    """What of it was made in Python, written by ``ipvit.run``: such a study cannot be run from its file."""

    def with_options(self, given: RunConfig) -> Study:
        """Return the study with the options that were given explicitly."""
        return self.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})

    def text_keys(self) -> dict[str, Any]:
        """Return what the study says of zero-shot models, as its file has it."""
        return self.model_dump(include={"prompts", "class_names"}, exclude_none=True)

    def make_experiments(self, where: str = "") -> list[Selected]:
        """Make the experiments, each for its models; an unknown parameter is an InputError."""
        known = {name for model in self.models for name in (model.label, model.name) if name is not None}
        made: list[Selected] = []
        for entry in self.experiments:
            for name in entry.models or ():
                if name not in known:
                    prefix = f"{where}: " if where else ""
                    raise InputError(
                        f"{prefix}{entry.name}: no model of the study is called {name!r}.{did_you_mean(name, known)}"
                    )
            made.append(Selected(make_experiment(entry.name, entry.parameters, where), entry.models or None))
        return made


def read_study(path: str | Path, *, check: bool = True) -> Study:
    """Read a study file.

    Args:
        path: of the file.
        check: also check the parameters of its experiments, which imports what they name.

    Raises:
        InputError: no such file, not YAML, an unknown key or a value that does not fit; names the file and the key.
    """
    return make_study(read_mapping(path, "study", "models, data and experiments"), str(path), check=check)


def make_study(content: dict[str, Any], where: str = "", *, check: bool = True) -> Study:
    """Make a study from a mapping; see :func:`read_study`."""
    for key in content:
        if key in OF_ONE_CALL:
            prefix = f"{where}: " if where else ""
            raise InputError(f"{prefix}{key!r} is given with each call, on the command line or in Python: leave it out")
    study = validated(Study, content, where)
    if check:
        study.make_experiments(where)
    return study


def study_text(
    models: Sequence[ModelEntry],
    data: DataEntry,
    experiments: Iterable[tuple[ExperimentEntry, Experiment]],
    config: RunConfig,
    *,
    made_in_python: str | None = None,
    texts: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the resolved study as YAML: every parameter spelled out.

    Args:
        models: of the study.
        data: likewise.
        experiments: likewise.
        config: the options of the run.
        made_in_python: see :class:`Study`.
        texts: see :meth:`Study.text_keys`.
    """
    content = {
        "models": [entry.model_dump(exclude_none=True) for entry in models],
        "data": data.model_dump(exclude_none=True),
        **texts,
        **({} if made_in_python is None else {"made_in_python": made_in_python}),
        **config.model_dump(mode="json", include=set(RunConfig.model_fields), exclude_none=True),
        "experiments": [
            {entry.name: ({"models": entry.models} if entry.models else {}) | experiment.model_dump(mode="json")}
            for entry, experiment in experiments
        ],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
