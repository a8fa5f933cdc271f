"""Cut a release: head the changelog's section, set the version where it is written; or look whether that was done.

python .ci/cut_release.py X.Y.Z [YYYY-MM-DD]    change the files of this checkout
python .ci/cut_release.py --check X.Y.Z         say what is missing, with exit code 1
python .ci/cut_release.py --notes X.Y.Z         print the section of the changelog
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHANGELOG = Path("CHANGELOG.md")
VERSION = Path("src/ipvit/__init__.py")
CITATION = Path("CITATION.cff")
CONDA = Path("packaging/conda/recipe.yaml")
UNRELEASED = "## Unreleased"


def cut(root: Path, version: str, date: str) -> None:
    """Give the changelog's newest section its head, and write the version into the package and the citation.

    Raises:
        ValueError: the version is no X.Y.Z or was released before, or there is nothing to release.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"{version!r} is no version: write X.Y.Z")
    changelog = (root / CHANGELOG).read_text("utf-8")
    if _head(version).search(changelog):
        raise ValueError(f"{CHANGELOG} has a section for {version} already")
    if not section(changelog, UNRELEASED).strip():
        raise ValueError(f"{CHANGELOG} has nothing under {UNRELEASED!r} to release")
    _change(root / CHANGELOG, rf"^{UNRELEASED}$", f"{UNRELEASED}\n\n## {version} ({date})")
    _change(root / VERSION, r'^__version__ = ".*"$', f'__version__ = "{version}"')
    _change(root / CITATION, r"^version: .*$", f"version: {version}")
    _change(root / CONDA, r'^  version: ".*"$', f'  version: "{version}"')
    text = (root / CITATION).read_text("utf-8")
    if not re.search(r"^date-released:", text, re.MULTILINE):
        (root / CITATION).write_text(text.replace(f"version: {version}\n", f"version: {version}\ndate-released: \n", 1))
    _change(root / CITATION, r"^date-released:.*$", f"date-released: {date}")


def missing(root: Path, version: str) -> list[str]:
    """Return what this version lacks to be released, a sentence each."""
    found = []
    head = _head(version).search(changelog := (root / CHANGELOG).read_text("utf-8"))
    if head is None:
        found.append(f"{CHANGELOG} has no section '## {version} (YYYY-MM-DD)'")
    elif not section(changelog, head[0]).strip():
        found.append(f"{CHANGELOG}: the section of {version} is empty")
    if f'__version__ = "{version}"' not in (root / VERSION).read_text("utf-8"):
        found.append(f"{VERSION} has another version than {version}")
    if f'  version: "{version}"\n' not in (root / CONDA).read_text("utf-8"):
        found.append(f"{CONDA} has another version than {version}")
    citation = (root / CITATION).read_text("utf-8")
    if f"\nversion: {version}\n" not in citation:
        found.append(f"{CITATION} has another version than {version}")
    if head is not None and f"\ndate-released: {head[1]}\n" not in citation:
        found.append(f"{CITATION} has another date than {head[1]}")
    return found


def section(changelog: str, head: str) -> str:
    """Return what stands under a heading of the second level."""
    after = re.split(rf"^{re.escape(head)}$", changelog, maxsplit=1, flags=re.MULTILINE)
    return re.split(r"^## ", after[1], maxsplit=1, flags=re.MULTILINE)[0] if len(after) > 1 else ""


def _head(version: str) -> re.Pattern[str]:
    return re.compile(rf"^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)$", re.MULTILINE)


def _change(path: Path, pattern: str, replacement: str) -> None:
    text, times = re.subn(pattern, replacement, path.read_text("utf-8"), flags=re.MULTILINE)
    if times != 1:
        raise ValueError(f"{path}: expected one line {pattern!r}, found {times}")
    path.write_text(text, "utf-8")


def main(arguments: list[str]) -> int:
    """Do what the command line says; return its exit code."""
    match arguments:
        case ["--check", version]:
            faults = missing(ROOT, version)
            sys.stderr.write("".join(f"{fault}\n" for fault in faults))
            return 1 if faults else 0
        case ["--notes", version]:
            changelog = (ROOT / CHANGELOG).read_text("utf-8")
            head = _head(version).search(changelog)
            sys.stdout.write(section(changelog, head[0]).strip() + "\n" if head else "")
            return 0 if head else 1
        case [version] | [version, _] if not version.startswith("-"):
            date = arguments[1] if len(arguments) > 1 else datetime.datetime.now(datetime.UTC).date().isoformat()
            try:
                cut(ROOT, version, date)
            except ValueError as error:
                sys.stderr.write(f"{error}\n")
                return 2
            return 0
        case _:
            sys.stderr.write(__doc__ or "")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
