# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fewshot.apps.bundles import bundle_folder, bundle_folders, bundle_names

ROOT = Path(__file__).parents[3]


def test_bundles_lie_beside_the_package_in_a_checkout():
    assert bundle_names() == sorted(path.parent.name for path in (ROOT / "bundles").glob("*/LICENSE"))
    assert bundle_folder("panet") == ROOT / "bundles" / "panet"


def test_bundles_lie_in_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "monai_fewshot" / "bundles" / "mine" / "configs").mkdir(parents=True)
    (tmp_path / "bundles" / "theirs" / "configs").mkdir(parents=True)
    for metadata in tmp_path.rglob("configs"):
        (metadata / "metadata.json").touch()
    monkeypatch.setattr(bundle_folders, "files", lambda package: tmp_path / package)
    assert bundle_names() == ["mine"]
    assert bundle_folder("mine") == tmp_path / "monai_fewshot" / "bundles" / "mine"


def test_other_bundles_are_found_by_their_path(tmp_path, monkeypatch):
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert bundle_folder("mine") == bundle_folder(tmp_path / "mine") == tmp_path / "mine"


def test_a_bundle_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no bundle ssl_alpnt; did you mean ssl_alpnet\?"):
        bundle_folder("ssl_alpnt")
    with pytest.raises(FileNotFoundError, match=r"no bundle .*absent; there are: adnet, elsnet"):
        bundle_folder(tmp_path / "absent")
