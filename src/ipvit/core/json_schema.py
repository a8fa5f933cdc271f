"""JSON schemas of pydantic models, as people and editors read them."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The version of JSON schema that these are written in."""

Schema = dict[str, Any]


def schema_of(kind: type[BaseModel], title: str, *, written: bool = False) -> Schema:
    """Return the schema of a file that holds one model.

    Args:
        kind: of the model.
        title: what the file is.
        written: the schema of what is written, rather than of what is accepted.
    """
    schema = cleaned(kind.model_json_schema(mode="serialization" if written else "validation"))
    return {"$schema": DIALECT, **schema, "title": title}


def cleaned(schema: Any) -> Any:
    """Return a schema without made-up titles, and with one kind of quotation marks in its descriptions."""
    if isinstance(schema, list):
        return [cleaned(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = cast("Schema", schema)
    return {
        key: value.replace("``", "`") if key == "description" and isinstance(value, str) else cleaned(value)
        for key, value in found.items()
        if not (key == "title" and isinstance(value, str))
    }
