# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_fewshot.networks.encoders import DilatedResNetEncoder, UNetEncoder, VGG16Encoder, load_encoder_weights
from monai_fewshot.networks.nets import ALPNet


@pytest.fixture(scope="module")
def trunk():
    """A torchvision resnet18 state dictionary without its fc, of values no initialization gives."""
    generator = torch.Generator().manual_seed(0)
    state = DilatedResNetEncoder(18, out_channels=None).state_dict()
    return {k: torch.rand(v.shape, generator=generator).to(v.dtype) for k, v in state.items()}


@pytest.fixture
def save(tmp_path):
    def _save(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return _save


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def assert_holds(encoder, state):
    own = encoder.state_dict()
    for name, tensor in state.items():
        torch.testing.assert_close(own[name], tensor)


def classification(trunk):
    return {**trunk, "fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}


def segmentation(trunk):
    heads = {"classifier.4.weight": torch.rand(21, 256, 1, 1), "aux_classifier.4.bias": torch.rand(21)}
    return {**{f"backbone.{k}": v for k, v in trunk.items()}, **heads}


def wrapped(trunk):
    return {"epoch": 3, "state_dict": {f"module.encoder.{k}": v for k, v in trunk.items()}, "optimizer": {"lr": 0.1}}


@pytest.mark.parametrize(
    ("make", "prefix", "unexpected"),
    [
        (classification, "", ("fc.bias", "fc.weight")),
        (segmentation, "backbone.", ("aux_classifier.4.bias", "classifier.4.weight")),
        (wrapped, "module.encoder.", ()),
        (
            lambda trunk: {"model": {f"model.network.backbone.{k}": v for k, v in trunk.items()}},
            "model.network.backbone.",
            (),
        ),
    ],
)
def test_published_forms_load(trunk, save, make, prefix, unexpected):
    encoder = DilatedResNetEncoder(18, out_channels=4)
    report = load_encoder_weights(encoder, save(make(trunk)))
    assert_holds(encoder, trunk)
    assert report.prefix == prefix
    assert report.matched == tuple(trunk)
    assert report.missing == ("reduce.weight",)
    assert report.unexpected == unexpected
    assert report.mismatched == {}


def test_constructors_load(trunk, save):
    assert_holds(DilatedResNetEncoder(18, weights=save(classification(trunk))), trunk)
    for make in (lambda **k: VGG16Encoder(num_blocks=4, **k), lambda **k: UNetEncoder(channels=(4, 8), **k)):
        state = make().state_dict()
        assert_holds(make(weights=save(state)), state)


def test_four_vgg_blocks_take_a_whole_vgg(save):
    whole = VGG16Encoder().state_dict()
    encoder = VGG16Encoder(num_blocks=4, stride=4)
    report = load_encoder_weights(encoder, save({**whole, "classifier.6.bias": torch.rand(1000)}))
    assert report.missing == ()
    assert report.unexpected[0] == "classifier.6.bias"
    assert {name.split(".")[1] for name in report.unexpected[1:]} == {"24", "26", "28"}
    assert_holds(encoder, {k: whole[k] for k in report.matched})


def test_encoder_of_a_whole_few_shot_network(save):
    network = ALPNet(2, UNetEncoder(channels=(4, 8), out_channels=6))
    encoder = UNetEncoder(channels=(4, 8), out_channels=6)
    report = load_encoder_weights(encoder, save({"network": network.state_dict()}))
    assert report.prefix == "encoder."
    assert_holds(encoder, network.encoder.state_dict())


def test_old_checkpoints_without_batch_counts_are_whole(trunk, save):
    old = {k: v for k, v in trunk.items() if not k.endswith("num_batches_tracked")}
    report = load_encoder_weights(DilatedResNetEncoder(18, out_channels=None), save(old))
    assert report.missing == ()


def test_other_shape_is_listed_and_warned_of(trunk, save, caplog):
    encoder = DilatedResNetEncoder(18, in_channels=1, out_channels=None)
    before = encoder.conv1.weight.clone()
    with caplog.at_level(logging.WARNING):
        report = load_encoder_weights(encoder, save(trunk))
    assert report.mismatched == {"conv1.weight": ((64, 3, 7, 7), (64, 1, 7, 7))}
    assert torch.equal(encoder.conv1.weight, before)
    assert "conv1.weight (64, 3, 7, 7) for (64, 1, 7, 7)" in caplog.text


def test_mostly_missing_is_warned_of(save, caplog):
    with caplog.at_level(logging.WARNING):
        load_encoder_weights(nn.BatchNorm2d(3), save({"weight": torch.zeros(3)}))
    assert "1 of 4 tensors of BatchNorm2d loaded, 3 missing" in caplog.text


def test_report_is_logged_and_readable(trunk, save, caplog):
    path = save(segmentation(trunk))
    with caplog.at_level(logging.INFO):
        report = load_encoder_weights(DilatedResNetEncoder(18), path)
    (record,) = [r for r in caplog.records if r.name.startswith("monai_fewshot")]
    assert record.levelno == logging.INFO
    assert record.getMessage() == str(report)
    assert str(report).splitlines() == [
        f"{path}: 120 of 121 tensors of DilatedResNetEncoder loaded without their prefix 'backbone.', "
        "1 missing, 2 unexpected, 0 of another shape",
        "  missing from the file, left as initialized: reduce.weight",
        "  unexpected, ignored: aux_classifier.4.bias, classifier.4.weight",
    ]


def test_long_lists_are_cut(save):
    state = {"weight": torch.zeros(2), **{f"extra.{i}": torch.zeros(1) for i in range(9)}}
    report = load_encoder_weights(nn.PReLU(2), save(state))
    assert "extra.0, extra.1, extra.2, extra.3, extra.4 and 4 more" in str(report)
    assert len(report.unexpected) == 9


def test_nothing_matches(save):
    path = save({"blocks.0.attn.qkv.weight": torch.zeros(4)}, "vit.pth")
    with pytest.raises(
        ValueError, match=r"vit\.pth fits DilatedResNetEncoder.*blocks\.0\.attn.*conv1\.weight"
    ) as error:
        DilatedResNetEncoder(18, weights=path)
    assert "and 116 more" in str(error.value)
    assert "same architecture, or none (weights=None)" in str(error.value)


def test_names_match_but_no_shape(save):
    with pytest.raises(ValueError, match=r"fits Linear, 2 have the right name but another shape"):
        load_encoder_weights(nn.Linear(2, 3), save(nn.Linear(4, 5).state_dict()))


def test_failed_loading_changes_nothing(save):
    layer = nn.Linear(2, 3)
    before = layer.weight.clone()
    with pytest.raises(ValueError, match="no tensor of"):
        load_encoder_weights(layer, save({"weight": torch.zeros(7)}))
    assert torch.equal(layer.weight, before)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"there is no weight file .*nowhere\.pth; give the path or the URL"):
        load_encoder_weights(nn.Linear(1, 1), "nowhere.pth")


def test_truncated_file(trunk, save):
    path = save(trunk)
    with open(path, "r+b") as file:
        file.truncate(10_000)
    with pytest.raises(ValueError, match=r"weights\.pth is not a checkpoint .*truncated.*fetch it again"):
        load_encoder_weights(DilatedResNetEncoder(18), path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>Not Found</html>", b"PK\x03\x04 no archive"])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"page\.pth is not a checkpoint .*a web page"):
        load_encoder_weights(nn.Linear(1, 1), path)


class Payload:
    """Not a tensor."""


def test_pickled_objects_are_refused(save):
    with pytest.raises(ValueError, match=r"weights\.pth holds a pickled \S*Payload; .*refused.*state_dict\(\) alone"):
        load_encoder_weights(nn.Linear(1, 1), save({"weight": Payload()}))


@pytest.mark.parametrize(
    ("content", "described"),
    [
        ({"epoch": 3, "lr": 0.1}, "a dictionary of 'epoch', 'lr'"),
        ({}, "an empty dictionary"),
        (torch.zeros(3), "an object of type Tensor"),
    ],
)
def test_no_tensors(save, content, described):
    with pytest.raises(ValueError, match=f"holds no named tensors but {described}"):
        load_encoder_weights(nn.Linear(1, 1), save(content))


def test_url_is_downloaded_once(save, hub):
    state = nn.Linear(2, 3).state_dict()
    url = f"file://{save(state)}"
    layer = nn.Linear(2, 3)
    report = load_encoder_weights(layer, url)
    assert_holds(layer, state)
    assert report.source == url
    assert (hub / "weights.pth").is_file()
    save({"other": torch.zeros(1)})
    assert load_encoder_weights(nn.Linear(2, 3), url).matched == ("weight", "bias")


def test_hash_in_the_name_is_verified(tmp_path, save, hub):
    content = Path(save(nn.Linear(2, 3).state_dict())).read_bytes()
    good = tmp_path / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    good.write_bytes(content)
    assert load_encoder_weights(nn.Linear(2, 3), f"file://{good}").missing == ()
    bad = tmp_path / "net-0123abcd.pth"
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=r"net-0123abcd\.pth cannot be downloaded \(invalid hash.*fetch it by hand"):
        load_encoder_weights(nn.Linear(2, 3), f"file://{bad}")
    assert not (hub / "net-0123abcd.pth").exists()


def test_downloaded_web_page_names_the_copy(tmp_path, hub):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(ValueError, match=rf"{hub}/page\.pth is not a checkpoint .*Delete it and fetch it again"):
        load_encoder_weights(nn.Linear(1, 1), f"file://{tmp_path}/page.pth")


def test_unreachable_url(tmp_path, hub):
    with pytest.raises(ValueError, match=r"gone\.pth cannot be downloaded .*fetch it by hand and give its path"):
        load_encoder_weights(nn.Linear(2, 3), f"file://{tmp_path}/gone.pth")
    with pytest.raises(ValueError, match="names no file"):
        load_encoder_weights(nn.Linear(2, 3), "https://example.org/")
