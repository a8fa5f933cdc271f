"""JSON schemas of study files and of tables as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from ipvit.analysis.columns import COMMON, Column
from ipvit.core.json_schema import DIALECT, Schema, cleaned
from ipvit.core.run_config import OF_ONE_CALL
from ipvit.engine.study import DataEntry, ExperimentEntry, ModelEntry, Study
from ipvit.experiments.registry import BUILT_IN, experiment_class, experiment_names

_UNITS = {"percent": "from 0 to 100", "share": "from 0 to 1", "count": "a whole number"}
_INTERVAL = {"low": "Lower", "high": "Upper"}


def study_schema() -> Schema:
    """Return the schema of a study file, with every parameter of every installed experiment.

    An experiment of a file (``FILE.py:CLASS``) may stand in a study; its parameters are not checked by the schema.
    """
    schema = cleaned(Study.model_json_schema())
    properties = schema["properties"]
    for name in (*OF_ONE_CALL, "made_in_python"):
        properties.pop(name, None)
    properties["models"] = _one_or_several(_name_or("ModelEntry", ModelEntry), Study, "models")
    properties["data"] = _name_or("DataEntry", DataEntry) | {"description": _description(Study, "data")}
    properties["experiments"] = _experiments() | {"description": _description(Study, "experiments")}
    used = {name: cleaned(kind.model_json_schema()) for name, kind in _ENTRIES.items()}
    return {"$schema": DIALECT, **schema, "title": "A study of ipvit", "$defs": used | _parameters()}


def tables_schema() -> Schema:
    """Return the schema of the tables as JSON: what ``--json`` prints, whose ``tables`` are ``tables/NAME.json``.

    The columns of an experiment's main table are described; tables may have others, all of them plain values.
    """
    plain: Schema = {"type": ["string", "number", "boolean", "null"]}
    rows: Schema = {"type": "array", "items": {"type": "object", "additionalProperties": plain}}
    described = {name: _rows(experiment_class(name)().analysis().columns, plain) for name in BUILT_IN}
    named: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    lists: Schema = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}
    properties: Schema = {
        "out": {"type": "string", "description": "The run folder."},
        "tables": {
            "type": "object",
            "description": "By the name of the table: its rows. The main table has the experiment's name.",
            "properties": described,
            "additionalProperties": rows,
        },
        "differences": {
            "type": "object",
            "description": "By experiment: paired comparisons of the models.",
            "additionalProperties": rows,
        },
        "leads": named | {"description": "By experiment: the sentence that its section begins with."},
        "answers": {
            "type": "object",
            "description": "By experiment, by model: the sentence that answers the experiment's question.",
            "additionalProperties": named,
        },
        "notes": lists | {"description": "By experiment: what a reader must know of its numbers."},
        "told": {"type": "array", "items": {"type": "string"}, "description": "What else the run folder holds."},
        "limited": {"type": "boolean", "description": "Whether only a part of the images was asked for."},
        "images_used": {"type": "integer", "description": "How many images the tables rest on."},
        "finished": {"type": "boolean", "description": "Whether all that was asked for was measured."},
        "profile": {"type": "object", "description": "One row a model, one column a question."},
    }
    return {
        "$schema": DIALECT,
        "title": "Tables of ipvit as JSON",
        "type": "object",
        "required": ["out", "tables"],
        "properties": properties,
    }


_ENTRIES = {"ModelEntry": ModelEntry, "DataEntry": DataEntry}


def _description(kind: type[Study], name: str) -> str:
    return (kind.model_fields[name].description or "").replace("``", "`")


def _name_or(definition: str, kind: type[ModelEntry | DataEntry]) -> Schema:
    """Return the schema of an entry that may be a name alone."""
    return {"anyOf": [{"type": "string", "description": _name_of(kind)}, {"$ref": f"#/$defs/{definition}"}]}


def _name_of(kind: type[ModelEntry | DataEntry]) -> str:
    return (kind.model_fields["name"].description or "").replace("``", "`")


def _one_or_several(item: Schema, kind: type[Study], name: str) -> Schema:
    return {"anyOf": [item, {"type": "array", "minItems": 1, "items": item}], "description": _description(kind, name)}


def _parameters() -> dict[str, Schema]:
    """Return the parameters of every experiment as definitions, by its name; each may name some of the models."""
    models = cleaned(ExperimentEntry.model_json_schema())["properties"]["models"]
    found: dict[str, Schema] = {}
    for name in experiment_names():
        schema = cleaned(experiment_class(name).model_json_schema())
        found |= schema.pop("$defs", {})
        schema["properties"] = {"models": models, **schema.get("properties", {})}
        found[name] = {"anyOf": [schema, {"type": "null"}]}
    return found


def _experiments() -> Schema:
    """Return the schema of the experiments: a mapping of names, a list of names or mappings, or one name."""
    names = experiment_names()
    by_name: Schema = {
        "type": "object",
        "minProperties": 1,
        "properties": {name: {"$ref": f"#/$defs/{name}"} for name in names},
        "patternProperties": {r"\.py:": {"type": ["object", "null"]}},
        "additionalProperties": False,
    }
    long: Schema = cleaned(ExperimentEntry.model_json_schema()) | {"description": "The long form of one experiment."}
    alone: Schema = {"anyOf": [{"enum": names}, {"type": "string", "pattern": r"\.py:"}]}
    entry: Schema = {"anyOf": [alone, by_name, long]}
    return {"anyOf": [by_name, alone, {"type": "array", "minItems": 1, "items": entry}]}


def _rows(columns: Mapping[str, Column], plain: Schema) -> Schema:
    described: Schema = {}
    for name, column in (COMMON | dict(columns)).items():
        described[name] = plain | {"description": _what(name, column)}
        if column.average or column.of:
            for end, word in _INTERVAL.items():
                described[f"{name}_{end}"] = plain | {"description": f"{word} end of the 95 % interval of `{name}`."}
    return {"type": "array", "items": {"type": "object", "properties": described, "additionalProperties": plain}}


def _what(name: str, column: Column) -> str:
    unit = _UNITS.get(column.unit)
    return f"{column.head(name)}{f', {unit}' if unit else ''}."
