# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""How Sphinx builds the documentation: ``python -m sphinx -W --keep-going -c docs . docs/_build``.

The source is the whole repository, so that links between Markdown files work on GitHub and on the site alike.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections import ChainMap
from typing import Any

from docutils.nodes import document
from myst_parser.sphinx_ import Parser
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import monai_fewshot


def constants(room: str) -> dict[str, str]:
    """Docstrings of a room's public names that are no class and no function, from the modules that define them."""
    package = importlib.import_module(room)
    modules = [module.name for module in pkgutil.walk_packages(package.__path__, f"{room}.")]
    docstrings = ChainMap(*(ModuleAnalyzer.for_module(module).find_attr_docs() for module in modules))
    public = {name: getattr(package, name) for name in getattr(package, "__all__", ())}
    names = [name for name, value in public.items() if not (inspect.isclass(value) or inspect.isfunction(value))]
    return {name: "\n".join(docstrings["", name]) for name in names}


class NotebookParser(Parser):
    """Tutorials as pages: their text and code. Continuous integration executes them elsewhere."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: document) -> None:
        """Fill a document with the cells of a notebook."""
        cells = json.loads(inputstring)["cells"][1:]  # the first one holds the license
        texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        pages = [text if kind == "markdown" else f"```ipython3\n{text}\n```" for kind, text in texts]
        super().parse("\n\n".join(pages), document)


def escape_shapes(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep the ``*S`` at the end of a shape from beginning an emphasis."""
    lines[:] = [re.sub(r"(?<=, )\*(?=\w+[()])", r"\*", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Teach Sphinx to read notebooks and shapes."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.connect("autodoc-process-docstring", escape_shapes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


rooms = [package.name for package in pkgutil.walk_packages(monai_fewshot.__path__, "monai_fewshot.") if package.ispkg]

project = "monai_fewshot"
author = project_copyright = "monai_fewshot contributors"
release = monai_fewshot.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**",
    "bundles/*/docs/README.md",
    "monai_fewshot/apps/README.md",
    "tutorials/*.ipynb",
]
exclude_patterns = [".*", "docs/_build", "docs/_templates"]
templates_path = ["docs/_templates", "_templates"]  # autosummary looks below the source, the theme below this folder
nitpicky = True
nitpick_ignore_regex = [
    ("py:(class|exc)", ".*"),  # types of other packages, and words in the place of a type
    ("py:obj", r"typing\.~P|.*\.Row"),  # arguments that a function hands on as they are, and rows of any kind
]

highlight_language = "sh"  # commands, where nothing else is said
html_theme = "furo"
html_title = f"monai_fewshot {release}"
html_copy_source = False
html_additional_pages = {"index": "redirect.html"}

myst_heading_anchors = 4
myst_enable_extensions = ["linkify"]  # bare addresses are links, as on GitHub
myst_linkify_fuzzy_links = False
autosummary_ignore_module_all = False
autosummary_context = {"constants": {room: constants(room) for room in rooms}}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of a NamedTuple are described once, in the class
