"""``ipvit schema``: JSON schemas for editors and programs."""

from __future__ import annotations

from typing import Literal

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
    from ipvit.engine.schemas import SCHEMAS

    return print_json(SCHEMAS[kind]())
