"""The JSON schemas accept what ipvit accepts and writes, and refuse what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from ipvit.cli import main
from ipvit.commands.schema import Kind, schema_for
from ipvit.engine.study import make_study
from ipvit.errors import InputError
from ipvit.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "src" / "ipvit" / "commands" / "studies").glob("*.yaml"))
RECIPES = sorted((ROOT / "src" / "ipvit" / "training" / "recipes").glob("*.yaml"))

ACCEPTED = {
    "names alone": {"models": "demo:deit_micro", "data": "demo:trifeature", "experiments": "occlusion"},
    "lists": {
        "models": ["a", {"name": "b", "label": "B"}],
        "data": {"name": "x", "split": "test"},
        "experiments": ["accuracy", {"shuffle": {"grids": ["2x2"]}}, {"mine.py:Mine": {"x": 1}}],
    },
    "a mapping": {
        "models": ["a"],
        "data": "x",
        "limit": 5,
        "experiments": {"shuffle": None, "occlusion": {"runs": 2, "models": ["a"]}},
    },
    "the long form": {"models": ["a"], "data": "x", "experiments": [{"name": "occlusion", "parameters": {"runs": 2}}]},
}
REFUSED = {
    "an unknown key": {"models": ["a"], "data": "x", "experiments": "accuracy", "modell": 1},
    "no data": {"models": ["a"], "experiments": "accuracy"},
    "no models": {"models": [], "data": "x", "experiments": "accuracy"},
    "an unknown experiment": {"models": ["a"], "data": "x", "experiments": "oclusion"},
    "an unknown parameter": {"models": ["a"], "data": "x", "experiments": {"occlusion": {"gird": "2x2"}}},
    "a level above one": {"models": ["a"], "data": "x", "experiments": {"occlusion": {"levels": [2]}}},
    "an option of one call": {"models": ["a"], "data": "x", "experiments": "accuracy", "fresh": True},
}


def fits(kind: Kind, content: Any) -> bool:
    return jsonschema.Draft202012Validator(schema_for(kind)).is_valid(content)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_schema_is_valid_json_schema_and_is_printed(kind, capsys):
    assert main(["schema", kind]) == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed == json.loads(json.dumps(schema_for(kind)))


@pytest.mark.parametrize("content", ACCEPTED.values(), ids=ACCEPTED)
def test_a_study_that_ipvit_accepts_fits_the_schema(content):
    make_study(content, check=False)
    assert fits("study", content)


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_a_study_that_ipvit_refuses_does_not_fit(content):
    with pytest.raises(InputError):
        make_study(content)
    assert not fits("study", content)


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_bundled_studies_fit(path):
    assert fits("study", yaml.safe_load(path.read_text("utf-8")))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_bundled_recipes_fit(path):
    content = yaml.safe_load(path.read_text("utf-8"))
    Recipe.model_validate(content)
    assert fits("recipe", content)


def test_what_a_run_writes_fits(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["-m", "demo:deit_micro", "-d", "demo:trifeature", "--limit", "4", "--workers", "0", "--out", str(out)]
    assert main(["shuffle", *arguments, "--grids", "2x2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert fits("tables", printed)
    assert set(printed) <= set(schema_for("tables")["properties"])
    assert fits("tables", {"out": "", "tables": {"shuffle": json.loads((out / "tables" / "shuffle.json").read_text())}})
    assert fits("manifest", json.loads((out / "manifest.json").read_text()))
    assert fits("study", yaml.safe_load((out / "study.yaml").read_text()))


def test_a_manifest_with_another_status_does_not_fit():
    assert not fits("manifest", {"status": "perhaps"})


def test_an_unknown_kind_is_refused_in_one_line(capsys):
    assert main(["schema", "studdy"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
