"""``ipvit schema``: JSON schemas for editors and programs."""

from __future__ import annotations

from typing import Any, Literal

from ipvit.core.terminal import print_json

Kind = Literal["study", "recipe", "manifest", "tables"]


def schema(kind: Kind, /) -> int:
    """Print the JSON schema of a kind of file, so that an editor completes and checks it.

    Parameters
    ----------
    kind
        study: a study file. recipe: a training recipe. manifest: manifest.json of a run folder. tables: what --json
        prints, and tables/NAME.json.
    """
    return print_json(schema_for(kind))


def schema_for(kind: Kind) -> dict[str, Any]:
    """Return the JSON schema of a kind of file."""
    from ipvit.core.json_schema import schema_of
    from ipvit.core.manifest import Manifest
    from ipvit.engine.schemas import study_schema, tables_schema
    from ipvit.training.recipe import Recipe

    match kind:
        case "study":
            return study_schema()
        case "recipe":
            return schema_of(Recipe, "A training recipe of ipvit")
        case "manifest":
            return schema_of(Manifest, "manifest.json of a run folder of ipvit", written=True)
        case "tables":
            return tables_schema()
