"""What is listed and explained needs neither torch nor the other large libraries, and says so quickly."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

import ipvit
from ipvit.cli import COMMANDS, EXPERIMENTS
from ipvit.experiments.registry import BUILT_IN, classes, experiment_class
from ipvit.models import libraries
from ipvit.models.catalogue import catalogue

BLOCKED = ("torch", "torchvision", "timm", "transformers", "polars", "altair", "cv2", "openvino")

ROOT = Path(__file__).parents[1]

SCRIPT = """
import contextlib, importlib.abc, io, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in set({blocked!r}):
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
from ipvit.cli import main

answers = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    answers.append([code, out.getvalue(), err.getvalue()])
json.dump(answers, sys.stdout)
"""

HELPS = [["--help"], *([name, "--help"] for name in (*COMMANDS, *EXPERIMENTS))]
LISTINGS = [
    ["--version"],
    ["experiments"],
    ["experiments", "--json"],
    ["datasets"],
    ["datasets", "--json"],
    ["models"],
    ["models", "--json"],
    ["models", "deit*"],
    ["models", "torchvision:resnet*"],
    ["models", "--paper"],
    ["models", "--paper", "--json"],
    ["train", "--list"],
    ["train", "--list", "--json"],
    ["reproduce", "--list"],
]
MISTAKES = {
    ("oclusion",): "there is no command 'oclusion'. Did you mean 'occlusion'",
    ("--halp",): "there is no option '--halp'. Did you mean '--help'?",
    ("",): "there is no command ''",
    ("run", "--strickt"): "Did you mean --strict?",
    ("run",): "run needs STUDY",
    ("train", "--lits"): "Did you mean --list?",
    ("occlusion", "--modles", "resnet50"): "--model",
    ("shuffle", "-m", "resnet50", "-d", "images", "--grid", "2x2"): "Did you mean --grids?",
    ("models", "deit_smol*"): "no model matches 'deit_smol*'",
    ("models", "--papr"): "Did you mean --paper?",
    ("models", "--paper", "deit_smol"): "Did you mean 'deit_small'",
    ("reproduce", "tabel-8"): "Did you mean 'table-8'",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, ...], tuple[int, str, str]]:
    """Exit code, output and errors of every call, all made by one process in which the large libraries are missing."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:  # somebody has listed the models before
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(sys, "platform", "linux")
        libraries.families.cache_clear()
        catalogue.cache_clear()  # another test may have given timm a network since it was made
        for library in libraries.LISTS:
            libraries.families(library)
    calls = [*HELPS, *LISTINGS, *map(list, MISTAKES)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(blocked=BLOCKED)],
        input=json.dumps(calls),
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "COLUMNS": "200"},
    )
    return {
        tuple(call): (code, out, err) for call, (code, out, err) in zip(calls, json.loads(done.stdout), strict=True)
    }


def name_of(arguments: list[str] | tuple[str, ...]) -> str:
    return " ".join(arguments) or "ipvit"


@pytest.mark.parametrize("arguments", HELPS, ids=name_of)
def test_help_needs_no_large_library(arguments, answers):
    code, out, err = answers[tuple(arguments)]
    assert (code, err) == (0, "")
    assert out.startswith("Usage: ipvit")


@pytest.mark.parametrize("arguments", LISTINGS, ids=name_of)
def test_listings_need_no_large_library(arguments, answers):
    code, out, err = answers[tuple(arguments)]
    assert (code, err) == (0, "")
    assert out.strip()
    if "--json" in arguments:
        assert json.loads(out)


def test_the_models_are_those_of_the_libraries(answers):
    listed = {row["name"] for row in json.loads(answers["models", "--json"][1])}
    assert listed == {entry.name for entry in catalogue()}
    assert {"resnet50", "torchvision:resnet50", "paper:deit_small", "demo:deit_micro"} <= listed


@pytest.mark.parametrize("arguments", MISTAKES, ids=name_of)
def test_a_mistyped_word_is_answered_without_any_large_library(arguments, answers):
    code, out, err = answers[arguments]
    assert (code, out) == (2, "")
    assert MISTAKES[arguments] in err and err.count("\n") == 1


# --- the list of experiments ------------------------------------------------------------------------------------------


def test_everything_that_lists_the_experiments_lists_those_of_the_registry():
    assert list(EXPERIMENTS) == list(BUILT_IN)
    rows = {
        "README.md": (r"^\| `([\w-]+)` \|.*\|.*\|$", BUILT_IN),
        "docs/experiments/index.md": (r"^\| \[([\w-]+)\]\(", BUILT_IN),
        "docs/api/experiments.md": (r"autoclass:: ipvit\.experiments\.\w+\.experiment\.(\w+)", classes()),
    }
    for page, (row, known) in rows.items():
        named = re.findall(row, (ROOT / page).read_text("utf-8"), flags=re.M)
        assert sorted(named) == sorted(known), f"{page} lists other experiments"
    assert {path.stem for path in (ROOT / "docs" / "experiments").glob("*.md")} == {*BUILT_IN, "index"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_registry_names_the_class_and_says_what_it_does_on_one_line(name):
    path, text = BUILT_IN[name]
    kind = experiment_class(name)
    assert f"{kind.__module__}:{kind.__name__}" == path and kind.name == name
    assert getattr(ipvit, kind.__name__) is kind
    assert text.endswith(".") and len(text) <= 80 and "\n" not in text


def imported_for_type_checkers(package: str) -> dict[str, str]:
    """Return the names that a package imports for type checkers alone, and the modules they come from."""
    source = ROOT / "src" / Path(*package.split(".")) / "__init__.py"
    found = {}
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                found |= {alias.name: line.module or "" for alias in line.names}
    return found


@pytest.mark.parametrize(
    "package", ["ipvit", "ipvit.models", "ipvit.perturb", "ipvit.perturb.corruptions", "ipvit.training"]
)
def test_names_that_are_imported_on_first_use_are_those_that_type_checkers_see(package):
    module = sys.modules[package] if package in sys.modules else __import__(package, fromlist=["_"])
    names = imported_for_type_checkers(package)
    assert names.keys() <= set(module.__all__)
    constants = {"CORRUPTIONS", "EXTRA", "FAMILIES", "KEYED", "KEYED_VERSION", "RANDOM", "REVISIONS", "SEVERITIES"}
    assert set(module.__all__) - names.keys() <= constants
    for name, where in names.items():
        expected = __import__(where, fromlist=[name])
        value = getattr(module, name)
        assert value is getattr(expected, name), f"{package}.{name} is not that of {where}"
        assert name in dir(module)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_function_is_not_hidden_by_the_submodule_of_its_name():
    check = (
        "import ipvit.perturb.shuffle, ipvit.perturb.patchdrop\n"
        "from ipvit.perturb import patchdrop, shuffle\n"
        "import ipvit\n"
        "assert callable(shuffle) and callable(patchdrop) and callable(ipvit.perturb.shuffle)\n"
        "assert ipvit.perturb.place.shrink_into is ipvit.perturb.shrink_into\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


# --- the list of models that is kept ----------------------------------------------------------------------------------


@pytest.fixture
def listing(tmp_path, monkeypatch) -> list[str]:
    """Count how often timm itself is asked; its list is kept in a folder of the test."""
    asked: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    made = {"resnet50": "resnet", "deit_tiny_patch16_224": "deit"}
    monkeypatch.setitem(libraries.LISTS, "timm", lambda: asked.append("timm") or dict(made))
    yield asked
    libraries.families.cache_clear()


def families_anew() -> dict[str, str]:
    libraries.families.cache_clear()
    return dict(libraries.families("timm"))


def test_the_library_is_asked_once_for_each_of_its_versions(listing, tmp_path, monkeypatch):
    first = families_anew()
    assert families_anew() == first and list(families_anew()) == ["resnet50", "deit_tiny_patch16_224"]
    assert listing == ["timm"]
    assert [path.name for path in (tmp_path / "ipvit").iterdir()] == [f"timm-{version('timm')}.json"]
    monkeypatch.setattr(libraries, "version", lambda _: "99.0")
    families_anew()
    assert listing == ["timm", "timm"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"families": {"resnet50": "resnet"}}',
        b'{"format": 0, "library": "timm", "version": "VERSION", "families": {"resnet50": "resnet"}}',
        b'{"format": 1, "library": "torchvision", "version": "VERSION", "families": {"resnet50": "resnet"}}',
        b'{"format": 1, "library": "timm", "version": "0.1", "families": {"resnet50": "resnet"}}',
        b'{"format": 1, "library": "timm", "version": "VERSION", "families": {}}',
        b'{"format": 1, "library": "timm", "version": "VERSION", "families": {"resnet50": 3}}',
        b'{"format": 1, "library": "timm", "version": "VERSION", "families": ["resnet50"]}',
    ],
)
def test_a_damaged_or_foreign_list_is_made_again(listing, content):
    expected = families_anew()
    file = libraries.list_file("timm")
    assert file is not None
    whole = file.read_bytes()
    file.write_bytes(content.replace(b"VERSION", version("timm").encode()))
    assert families_anew() == expected
    assert listing == ["timm", "timm"]
    assert file.read_bytes() == whole


def test_a_library_in_development_is_asked_every_time(listing, tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "version", lambda _: "1.0.32.dev0")
    families_anew()
    families_anew()
    assert listing == ["timm", "timm"]
    assert not list(tmp_path.rglob("*.json"))


def test_a_cache_folder_that_cannot_be_written_is_no_error(listing, tmp_path, monkeypatch):
    (tmp_path / "ipvit").write_text("a file is in the way")
    assert families_anew()["resnet50"] == "resnet"


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", ".cache/ipvit"), ("darwin", "Library/Caches/ipvit"), ("win32", "AppData/Local/ipvit/Cache")],
)
def test_the_cache_folder_is_the_operating_systems(platform, expected, tmp_path, monkeypatch):
    from ipvit.core.files import cache_folder

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/to/be/ignored")
    assert cache_folder() == tmp_path / expected
    if platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "stated"))
        assert cache_folder() == tmp_path / "stated" / "ipvit"
