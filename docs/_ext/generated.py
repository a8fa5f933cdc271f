"""Pages made from the code: ``{generated} commands`` and others; and each page's Markdown beside it, with llms.txt."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

import ipvit
from ipvit.cli import COMMANDS, EXPERIMENTS, make_app
from ipvit.commands.schema import schema_for
from ipvit.core.manifest import Manifest
from ipvit.experiments.registry import BUILT_IN, experiment_class

Rows = Iterable[Sequence[str]]

COMMON_GROUPS = ("Models and data", "How it is run")
"""Groups of options that every experiment has: they are shown once."""


def table(heads: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table; a line break or a pipe in a cell is made harmless."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", r"\|")


# --- the command line ------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return every command with its options."""
    app = make_app()
    parts = ["## Experiments\n", "Every experiment has its own options, and these.\n"]
    shared = list(_arguments(app["accuracy"], COMMON_GROUPS))
    for group in COMMON_GROUPS:
        parts += [f"### {group}\n", _options(argument for argument in shared if _group(argument) == group)]
    for name in EXPERIMENTS:
        own = [argument for argument in _arguments(app[name]) if _group(argument) not in COMMON_GROUPS]
        title = f"### `ipvit {name}`\n"
        parts += [title, f"{app[name].help} See [its page](../experiments/{name}.md).\n"]
        parts += [_options(own) if own else "It has no options of its own.\n"]
    parts.append("## Other commands\n")
    for name in COMMANDS:
        parts += [f"### `ipvit {name}`\n", f"{_summary(app[name].help)}\n", _options(_arguments(app[name]))]
    return "\n".join(parts)


def _summary(text: str) -> str:
    return text.replace("\n", " ")


def _group(argument: Any) -> str:
    return argument.parameter.group[0].name if argument.parameter.group else ""


def _arguments(command: Any, groups: Sequence[str] | None = None) -> Iterator[Any]:
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.show and argument.names[0] != "*" and (groups is None or _group(argument) in groups):
            yield argument


def _options(arguments: Iterable[Any]) -> str:
    return table(("option", "default", "what it does"), (_option(argument) for argument in arguments))


def _option(argument: Any) -> tuple[str, str, str]:
    text = argument.parameter.help or ""
    stated = re.search(r"\[default: ([^\]]*)\]", text)
    text = re.sub(r"\s*\[default: [^\]]*\]", "", text)
    names = ", ".join(f"`{name}`" for name in argument.names if not name.startswith("--no-"))
    if not names.startswith("`-"):
        names = names.upper()
    return names, f"`{stated[1]}`" if stated and stated[1] else _default(argument), text


def _default(argument: Any) -> str:
    value = argument.field_info.default
    if argument.required:
        return "required"
    if value is None or value is argument.field_info.empty or value in ("", (), []):
        return ""
    if isinstance(value, bool):
        return "on" if value else ""
    shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"`{shown}`"


# --- files -----------------------------------------------------------------------------------------------------------


def study_keys() -> str:
    """Return the keys of a study file."""
    schema = schema_for("study")
    parts = ["## Keys of a study\n", _keys(schema, schema["$defs"])]
    parts += ["## Keys of a model\n", _keys(schema["$defs"]["ModelEntry"], {})]
    parts += ["## Keys of the data\n", _keys(schema["$defs"]["DataEntry"], {})]
    parts.append("## Keys of each experiment\n")
    parts.append("Every experiment also takes `models`: labels or names of the study's models that it is for.\n")
    for name in BUILT_IN:
        own = schema["$defs"][name]["anyOf"][0]
        properties = {key: value for key, value in own["properties"].items() if key != "models"}
        link = f"[{name}](../experiments/{name}.md)"
        parts += [f"### {link}\n", _keys({"properties": properties}, schema["$defs"]) if properties else "None.\n"]
    return "\n".join(parts)


def recipe_keys() -> str:
    """Return the keys of a training recipe, section by section."""
    schema = schema_for("recipe")
    parts = ["## Keys of a recipe\n", _keys(schema, schema["$defs"])]
    for name, section in schema["$defs"].items():
        if "properties" in section:
            text = (section.get("description") or name).split("\n\n")[0]
            parts += [f"## {name.removesuffix('Config')}\n", f"{text}\n", _keys(section, schema["$defs"])]
    return "\n".join(parts)


def _keys(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", _type(value, definitions), _value(value, name in required), value.get("description", ""))
        for name, value in schema["properties"].items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _value(value: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = value.get("default")
    if default is None or default in ("", [], {}):
        return ""
    shown = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
    return f"`{shown}`"


def _type(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(f"`{item}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value or "oneOf" in value:
        kinds = [_type(part, definitions) for part in value.get("anyOf", value.get("oneOf", ()))]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind and kind != "null"))
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        found = definitions.get(name, {})
        return _type(found, definitions) if "properties" not in found else "a mapping"
    names = {"array": "a list", "object": "a mapping", "string": "text", "number": "a number", "boolean": "yes or no"}
    kind = value.get("type", "")
    return names.get(kind, "a whole number" if kind == "integer" else str(kind))


def manifest_keys() -> str:
    """Return the keys of ``manifest.json``."""
    rows = [
        (f"`{field.serialization_alias or name}`", field.description or "")
        for name, field in Manifest.model_fields.items()
    ]
    return table(("key", "meaning"), rows)


def columns() -> str:
    """Return the columns of every experiment's records and tables that are not in all of them."""
    parts: list[str] = []
    units = {"percent": "0 to 100", "share": "0 to 1", "count": "whole number", "": ""}
    for name in BUILT_IN:
        analysis = experiment_class(name)().analysis()
        rows = [(f"`{key}`", column.head(key), units[column.unit]) for key, column in analysis.columns.items()]
        parts += [f"### [{name}](../experiments/{name}.md)\n", table(("column", "what it is", "range"), rows)]
    return "\n".join(parts)


def corruption_pictures() -> str:
    """Return every corruption of one photo as a grid of pictures."""
    from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA

    return pictures([(f"corruption-{name}", name.replace("_", " ")) for name in (*CORRUPTIONS, *EXTRA)])


def pictures(shown: Sequence[tuple[str, str]], where: str = "..", columns: str = "2 3 4 4") -> str:
    """Return a grid of pictures with captions, as Markdown of sphinx-design."""
    items = [
        f"::::{{grid-item}}\n```{{image}} {where}/images/perturbations/{name}.jpg\n:alt: {caption}\n"
        f":class: perturbed\n```\n{caption}\n::::\n"
        for name, caption in shown
    ]
    head = f":::::{{grid}} {columns}\n:gutter: 2\n:class-container: perturbed-grid\n\n"
    return head + "\n".join(items) + ":::::\n"


NETWORKS = ("ResNet50", "DeiT-T", "DeiT-S", "DeiT-B")


def typical() -> str:
    """Return what a CNN and three transformers reach in the paper, from the numbers that ship with the package."""
    targets = json.loads((files("ipvit") / "analysis" / "paper_targets.json").read_text("utf-8"))
    rows: list[list[str]] = []

    def add(what: str, measured: str, key: str, source: str, pick: Callable[[Any], Any], part: str = "y") -> None:
        found = targets[key].get(part, targets[key]) if part else targets[key]
        values = [f"{pick(found[name]):g}" if name in found else "" for name in NETWORKS]
        rows.append([what, measured, *values, f"{source}, {targets[key]['src']}"])

    for what, key, levels in (
        ("[random occlusion](experiments/occlusion.md)", "fig3_random", (0, 50, 80)),
        ("salient occlusion", "fig3_salient", (50,)),
        ("non-salient occlusion", "fig3_nonsalient", (50,)),
    ):
        for level in levels:
            at = targets[key]["x"].index(level)
            add(what, f"top-1 with {level} % dropped", key, "figure 3", lambda values, at=at: values[at])
    add(
        "[correlation](experiments/correlation.md)", "at 50 % dropped", "table1_corr", "table 1", lambda v: v[1], "mean"
    )
    add("[shape bias](experiments/shape-bias.md)", "0 to 1", "fig6_shape_bias", "figure 6", float, "")
    cells = targets["fig10_shuffle"]["cells"].index(64)
    add("[shuffle](experiments/shuffle.md)", "top-1 at 64 cells", "fig10_shuffle", "figure 10", lambda v: v[cells])
    add("[position](experiments/position.md)", "top-1, top left", "table8_corner", "table 8", lambda v: v[1], "")
    add("[corruptions](experiments/corruptions.md)", "mCE", "mce", "table 4", float, "")
    add("[attack](experiments/attack.md)", "top-1 under PGD, 5 steps, ε = 4", "fig13_pgd5", "figure 13", lambda v: v[1])
    return table(("experiment", "measured", "ResNet-50", *NETWORKS[1:], "source"), rows)


def changelog() -> str:
    """Return CHANGELOG.md without its title, its links made to lead from docs/."""
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text("utf-8").split("\n", 1)[1]
    text = text.replace("](docs/", "](")
    return re.sub(r"\[([^\]]+)\]\((?!http)[A-Z][A-Za-z.]*(?:#[\w-]*)?\)", r"\1", text)


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands,
    "study-keys": study_keys,
    "recipe-keys": recipe_keys,
    "manifest-keys": manifest_keys,
    "columns": columns,
    "corruption-pictures": corruption_pictures,
    "typical": typical,
    "changelog": changelog,
}


class Generated(SphinxDirective):
    """``{generated} NAME``: Markdown that a function of this file makes, read as if it stood there."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(GENERATED[self.arguments[0]](), allow_section_headings=True)


class Pictures(SphinxDirective):
    """``{pictures}``: one ``NAME: caption`` a line, of docs/images/perturbations, side by side."""

    has_content = True
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        shown: list[tuple[str, str]] = []
        for line in filter(str.strip, self.content):
            name, _, caption = line.partition(":")
            shown.append((name.strip(), caption.strip()))
        where = "/".join([".."] * self.env.docname.count("/")) or "."
        columns = f"2 3 {self.arguments[0]} {self.arguments[0]}" if self.arguments else "2 3 4 4"
        return self.parse_text_to_nodes(pictures(shown, where, columns))


class ProgramOutput(SphinxDirective):
    """``{program-output} NAME``: a command and what it printed, kept in docs/outputs/NAME.txt.

    A number behind the name shows so many lines of the output only.
    """

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "outputs" / f"{self.arguments[0]}.txt"
        self.env.note_dependency(str(path))
        command, _, output = path.read_text("utf-8").partition("\n")
        lines = output.splitlines()
        if len(self.arguments) > 1:
            lines = [*lines[: int(self.arguments[1])], "..."]
        broken = textwrap.fill(command, 84, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)
        text = "\n".join([broken.replace("\n", " \\\n"), *lines])
        return self.parse_text_to_nodes(f"```console\n{text}\n```\n")


def mute_search_words(_app: Any, doctree: nodes.document) -> None:
    """Let the line of search words be small: it is there for the search, not for who reads the page."""
    for paragraph in doctree.findall(nodes.paragraph):
        if paragraph.astext().startswith("Search words:"):
            paragraph["classes"].append("search-words")


# --- public names ------------------------------------------------------------------------------------------------


def public_name(module: str, name: str) -> str:
    """Return the shortest path by which an object of a module is imported: ``ipvit.NAME`` or ``ipvit.PACKAGE.NAME``."""
    found = getattr(sys.modules.get(module), name, None)
    packages = [part for name in ipvit.__all__ if isinstance(part := getattr(ipvit, name), ModuleType)]
    for place in (ipvit, *packages):
        if found is not None and getattr(place, name, None) is found:
            return f"{place.__name__}."
    return f"{module}."


def show_public_names(_app: Any, domain: str, _kind: str, content: nodes.Element) -> None:
    """Print objects under their public names, not under those of the files that they are defined in."""
    if domain != "py" or content.parent is None:
        return
    for signature in content.parent.findall(addnodes.desc_signature):
        for prefix in signature.findall(addnodes.desc_addname):
            module, name = signature.get("module"), signature.get("fullname", "")
            if module and "." not in name and prefix.astext() == f"{module}.":
                prefix.clear()
                prefix += nodes.Text(public_name(module, name))


# --- for programs ----------------------------------------------------------------------------------------------------


def write_for_programs(app: Any, error: Exception | None) -> None:
    """Put each page's Markdown beside its HTML, and write llms.txt, which lists them."""
    if error is not None or app.builder.name != "html":
        return
    out, source = Path(app.outdir), Path(app.srcdir)
    lines = ["# ipvit", "", f"> {_first_sentence(source / 'index.md')}", "", "## Pages", ""]
    for name in sorted(app.env.found_docs):
        page = source / f"{name}.md"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, out / f"{name}.md")
        lines.append(f"- [{app.env.titles[name].astext()}]({name}.md): {_first_sentence(page)}")
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _first_sentence(page: Path) -> str:
    """Return the first sentence of a page's first paragraph, without marks."""
    for block in re.split(r"\n\s*\n", page.read_text("utf-8")):
        text = " ".join(block.split())
        if text and text[0] not in "#`:!|-{<(" and not text.startswith("Search words"):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("*", "").replace("`", "")
            return re.split(r"(?<=[.?:])\s", plain)[0]
    return ""


def write_scorer(docs: Path, folder: Path) -> Path:
    """Write how the search ranks pages: by the words that each page itself says it is searched by.

    Args:
        docs: the folder of the pages.
        folder: where the script is written.
    """
    words: dict[str, list[str]] = {}
    for page in docs.rglob("*.md"):
        found = re.search(r"^\*Search words: (.*?)\.\*$", page.read_text("utf-8"), flags=re.M | re.S)
        if found:
            name = page.relative_to(docs).with_suffix("").as_posix()
            words[name] = [" ".join(word.split()).lower() for word in found[1].split(",")]
    script = (docs / "_ext" / "scorer.js").read_text("utf-8").replace("__WORDS__", json.dumps(words, sort_keys=True))
    path = folder / "scorer.js"
    path.write_text(script, encoding="utf-8")
    return path


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("generated", Generated)
    app.add_directive("pictures", Pictures)
    app.add_directive("program-output", ProgramOutput)
    app.connect("doctree-read", mute_search_words)
    app.connect("object-description-transform", show_public_names)
    app.connect("build-finished", write_for_programs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
