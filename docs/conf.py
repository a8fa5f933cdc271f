"""Sphinx settings; build with ``sphinx-build -W docs OUT``."""

from importlib.metadata import version as installed_version

project = "ipvit"
copyright = "the ipvit authors"
release = version = installed_version("ipvit")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["figures"]
html_theme = "furo"
html_title = "ipvit"
html_copy_source = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
# Names in docstrings that are not pages of their own are left as text.
suppress_warnings = ["ref.class", "ref.meth", "ref.func", "ref.mod"]
