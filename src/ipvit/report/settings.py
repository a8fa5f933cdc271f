"""The settings of an experiment for a reader: what departs from the defaults first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel


@dataclasses.dataclass(frozen=True)
class Setting:
    """One parameter of an experiment.

    Attributes:
        name: of the parameter.
        value: as text; how an option of the command line takes it.
        default: likewise; None where nobody knows it.
        where: which runs have this value, where others have another one.
    """

    name: str
    value: str
    default: str | None
    where: str = ""

    @property
    def departs(self) -> bool:
        """Whether the value is another one than the default."""
        return self.value != self.default


def settings_of(experiment: BaseModel | Mapping[str, Any] | None) -> list[Setting]:
    """Return the settings of an experiment, those that depart from the defaults in front.

    Args:
        experiment: itself, or its parameters as a study states them, whose defaults nobody knows; None for nothing.
    """
    if experiment is None:
        return []
    if not isinstance(experiment, BaseModel):
        return [Setting(name, as_text(value), None) for name, value in experiment.items()]
    values = experiment.model_dump(mode="json")
    found: list[Setting] = []
    for name, field in type(experiment).model_fields.items():
        if name not in values:
            continue
        default = None if field.is_required() else _dumped(experiment, name)
        found.append(Setting(name, as_text(values[name]), default))
    return sorted(found, key=lambda setting: not setting.departs)


def _dumped(experiment: BaseModel, name: str) -> str | None:
    """Return the default of a parameter, written as its value is."""
    default = type(experiment).model_fields[name].get_default(call_default_factory=True)
    try:
        made = experiment.model_copy(update={name: default}).model_dump(mode="json", include={name}, warnings=False)
    except Exception:  # noqa: BLE001 - somebody's own class; its value is told all the same
        return None
    return as_text(made[name])


def as_text(value: Any) -> str:
    """Return a value as text.

    >>> as_text([0, 0.5, 0.9]), as_text(True), as_text(None), as_text([14, 14]), as_text("")
    ('0, 0.5, 0.9', 'yes', 'none', '14, 14', 'none')
    """
    if value is None or value == "" or value == [] or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {as_text(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(as_text(one) for one in value)
    return str(value)
