"""What the project says of itself agrees: version, citation, changelog, oldest versions, the links of its pages."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import ipvit

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
OLDEST = runpy.run_path(str(ROOT / ".ci" / "oldest.py"))["oldest"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def test_package_pyproject_and_citation_have_one_version():
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    read_from = ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]
    assert re.findall(r'^__version__ = "(.+)"$', read_from.read_text("utf-8"), flags=re.M) == [ipvit.__version__]
    assert CITATION["version"] == ipvit.__version__


def test_the_version_is_printed_without_importing_torch():
    code = (
        "import sys; from ipvit.cli import main; main(['--version']); assert not {'torch', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ipvit.__version__


def test_runs_are_read_without_importing_torch():
    code = (
        "import sys, ipvit.engine.merge, ipvit.report.build, ipvit.results; "
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_citation_names_the_software_and_the_paper():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= CITATION.keys()
    assert CITATION["license"] == PYPROJECT["project"]["license"]
    assert CITATION["authors"] == PYPROJECT["project"]["authors"]
    (paper,) = CITATION["references"]
    assert paper["title"] == "Intriguing Properties of Vision Transformers"
    families = [author["family-names"] for author in paper["authors"]]
    assert families == ["Naseer", "Ranasinghe", "Khan", "Hayat", "Khan", "Yang"]
    assert paper["url"] == PYPROJECT["project"]["urls"]["Paper"]


def test_the_changelog_has_one_section_a_release_the_newest_first():
    unreleased, *released = re.findall(r"^## (.*)$", CHANGELOG, flags=re.M)
    assert unreleased == "Unreleased"
    sections = [re.fullmatch(r"(\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)", section) for section in released]
    assert all(sections), f"a section is headed VERSION (YYYY-MM-DD): {released}"
    versions = [version_numbers(section[1]) for section in sections if section]
    assert versions == sorted(set(versions), reverse=True)
    assert all(version <= version_numbers(ipvit.__version__) for version in versions)


def test_the_oldest_versions_are_those_of_pyproject():
    project = {
        "name": "ours",
        "dependencies": ["torch>=2.6", "pillow>=10.3,<13"],
        "optional-dependencies": {
            "more": ["open-clip_torch>=3.3"],
            "test": ["ours[more]", "pytest>=8.3"],
            "dev": ["ruff"],
        },
    }
    assert OLDEST(project) == ["torch==2.6", "pillow==10.3", "open-clip_torch==3.3", "pytest==8.3"]


def test_a_dependency_without_a_lower_bound_is_refused():
    with pytest.raises(ValueError, match="'torch' has no lower bound; write NAME>=VERSION"):
        OLDEST({"name": "ours", "dependencies": ["torch"], "optional-dependencies": {}})
    assert OLDEST(PYPROJECT["project"])


def test_every_step_and_test_file_that_ci_names_exists():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    defined = set(re.findall(r"^(\w+)\(\)", script, flags=re.M))
    steps = set(" ".join(re.findall(r"^ +(?:step|together) ([\w ]+)$", script, flags=re.M)).split())
    assert {"set_up", "release", "fast_tests"} < steps <= defined
    named = re.findall(r"tests/[\w/]+\.py", script)
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as the documentation and repository sites make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), flags=re.M
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_to_headings_find_them(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text("utf-8")):
        linked = page.parent / target if target else page
        assert anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


def contract(name: str) -> dict:
    (found,) = [one for one in PYPROJECT["tool"]["importlinter"]["contracts"] if one["name"] == name]
    return found


def test_the_page_on_the_architecture_shows_the_layers_that_are_checked():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    shown = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| \d+ \| (.*?) \|", page, flags=re.M)]
    layers = contract("Imports point downwards through the packages")["layers"]
    assert shown == [layer.split(" | ") for layer in layers]
    packages = {path.stem for path in (ROOT / "src" / "ipvit").iterdir() if not path.name.startswith(("__", "py."))}
    assert packages == {name for row in shown for name in row}, "every module has its layer"
    assert all(f"{name}/" in page for name in packages if (ROOT / "src" / "ipvit" / name).is_dir())


def test_every_experiment_is_held_apart_from_the_others():
    experiments = {
        f"ipvit.experiments.{path.parent.name}" for path in ROOT.glob("src/ipvit/experiments/*/experiment.py")
    }
    assert set(contract("No experiment knows another")["modules"]) == experiments
    apart = contract("The engine, the analysis and the report know no single experiment")
    assert set(apart["forbidden_modules"]) == experiments


def test_no_package_holds_more_than_twenty_files_side_by_side():
    folders = [path.parent for path in (ROOT / "src" / "ipvit").rglob("__init__.py")]
    assert {str(path): n for path in folders if (n := len(list(path.glob("*.py"))) - 1) > 20} == {}


def test_tests_lie_as_the_packages_do():
    packages = {path.parent.name for path in (ROOT / "src" / "ipvit").glob("*/__init__.py")}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"helpers", "kept"} == packages


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_files_and_folders_that_a_page_names_are_there(page):
    roots = (ROOT, ROOT / "src", ROOT / "src" / "ipvit")
    tops = {path.name for root in roots for path in root.iterdir() if path.is_dir() and path.name != "examples"}
    named = set(re.findall(r"`([\w./-]+/[\w./-]*)`", "" if page.name == "CHANGELOG.md" else page.read_text("utf-8")))
    ours = [name for name in named if name.split("/")[0] in tops and "NAME" not in name]
    assert [name for name in ours if not any((root / name).exists() for root in roots)] == []
