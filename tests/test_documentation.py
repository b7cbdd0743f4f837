# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What a reader can find. Sphinx itself, ``./runtests.sh --docs``, checks references and headings."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import runpy
from pathlib import Path

import pytest
import torch

import monai_fewshot
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ADNet

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDES = [page for page in sorted(DOCS.glob("*.md")) if page.name not in {"README.md", "index.md"}]
BUNDLES = sorted(ROOT.glob("bundles/*/docs/README.md"))
TUTORIALS = sorted(ROOT.glob("tutorials/*.ipynb"))
MARKDOWN = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *BUNDLES, *(ROOT / "monai_fewshot").rglob("*.md")]
ROOMS = sorted(
    item.name
    for item in pkgutil.walk_packages(monai_fewshot.__path__, "monai_fewshot.")
    if item.ispkg and hasattr(importlib.import_module(item.name), "__all__")
)


def linked(page):
    """The files of the project that a Markdown file links to or shows."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    paths = [target.partition("#")[0] for target in targets if not re.match(r"\w+:", target)]
    return {Path(os.path.normpath(page.parent / path)) for path in paths if path}


def listed():
    """The files in the tables of contents of the built documentation."""
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    names = [re.sub(r".*<(.+)>$", r"\1", line) for line in lines]
    kinds = (".md", ".rst", ".ipynb")
    return {Path(os.path.normpath(file)) for name in names for kind in kinds for file in DOCS.glob(name + kind)}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    assert sorted(str(path) for path in linked(page) if not path.exists()) == []


def test_every_page_is_in_the_list_of_pages_and_in_the_built_documentation():
    pages = {*GUIDES, *BUNDLES, *TUTORIALS}
    assert len(BUNDLES) > 5
    assert sorted(map(str, pages - linked(DOCS / "README.md"))) == []
    assert sorted(map(str, {*pages, *MARKDOWN} - listed() - {DOCS / "index.md"})) == []


def test_every_bundle_and_tutorial_is_in_the_readme():
    assert sorted(map(str, {*BUNDLES, *TUTORIALS} - linked(ROOT / "README.md"))) == []


def test_every_tutorial_is_executed():
    tree = ast.parse((ROOT / "tests/tutorials/test_tutorials.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "execute"]
    assert sorted(call.args[0].value for call in calls) == [tutorial.name for tutorial in TUTORIALS]


def test_every_room_is_in_the_api_reference():
    assert sorted(re.findall(r"^   (monai_fewshot\S+)$", (DOCS / "api.rst").read_text(), re.MULTILINE)) == ROOMS


def example(language):
    """The first block of a language in the page on adding a method."""
    return re.search(rf"^```{language}\n(.*?)^```", (DOCS / "add_a_method.md").read_text(), re.DOTALL | re.MULTILINE)[1]


def test_the_example_of_adding_a_method_is_adnet():
    namespace = {}
    exec(example("python"), namespace)
    theirs, ours = namespace["ADNet"](2, UNetEncoder(), num_classes=2), ADNet(2, UNetEncoder(), num_classes=2)
    theirs.load_state_dict(ours.state_dict())
    episode = (torch.rand(2, 1, 32, 32), torch.rand(2, 1, 1, 32, 32), torch.randint(0, 3, (2, 1, 1, 32, 32)))
    torch.testing.assert_close(theirs(*episode), ours(*episode), rtol=0, atol=0)
    torch.testing.assert_close(theirs.eval()(*episode), ours.eval()(*episode), rtol=0, atol=0)


def test_the_table_of_settings_is_that_of_the_bundles():
    made = runpy.run_path(str(ROOT / "scripts/settings_table.py"))["page"]()
    assert (DOCS / "settings.md").read_text() == made, "run python scripts/settings_table.py"


def test_the_example_of_adding_a_bundle_is_that_of_adnet():
    config = json.loads((ROOT / "bundles/adnet/configs/train.json").read_text())
    shown = json.loads(example("json"))
    assert shown == {key: config[key] for key in shown}
    assert example("yaml") in (ROOT / "benchmarks/full.yaml").read_text()
