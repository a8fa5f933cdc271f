"""Sphinx settings; build with ``sphinx-build -W docs OUT``."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon.docstring import GoogleDocstring

# autodoc imports what is not there yet as a type checker would, which pydantic's models do not survive
import ipvit.api
import ipvit.training
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import classes

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
from generated import write_scorer

project = "ipvit"
copyright = "The ipvit developers"
release = version = ipvit.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "generated",
]
# Links into other projects need their inventories, which are fetched: only where the site is built to be published.
if os.environ.get("IPVIT_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
    "polars": ("https://docs.pola.rs/api/python/stable", None),
}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["figures", "_ext"]
html_theme = "furo"
html_title = f"ipvit {version}"
html_static_path = ["_static"]
html_css_files = ["ipvit.css"]
html_search_scorer = str(write_scorer(Path(__file__).parent, Path(tempfile.mkdtemp(prefix="ipvit-docs-"))))
highlight_language = "none"  # a fence without a language is not Python
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_remove_prompts = True
html_copy_source = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
# Names in docstrings that are not pages of their own are left as text.
suppress_warnings = ["ref.class", "ref.meth", "ref.func", "ref.mod"]

# The description of a field is a sentence; what stands before a colon in it is not the field's type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end

_PYDANTIC = {"model_config", "model_post_init"}
_EXPERIMENTS = frozenset(classes())


def leave_out_what_all_experiments_have(_app: Any, _what: str, name: str, obj: Any, skip: bool, _options: Any) -> bool:
    """Show of an experiment its parameters: its methods are those of the base class, which is shown in full."""
    owner = getattr(getattr(obj, "fget", obj), "__qualname__", "").rpartition(".")[0]
    return skip or name in _PYDANTIC or (owner in _EXPERIMENTS and name in vars(Experiment))


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", leave_out_what_all_experiments_have)
