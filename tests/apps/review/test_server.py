# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from dicom_files import made_pixels, ras_affine, write_seg, write_series
from PIL import Image

from monai_fewshot.apps.command.segmented_scans import note_scans
from monai_fewshot.apps.review.reviewed_scans import list_reviewed_scans
from monai_fewshot.apps.review.server import ReviewPages, make_server_app
from monai_fewshot.data import load_scans

nib = pytest.importorskip("nibabel")
testclient = pytest.importorskip("starlette.testclient", exc_type=(ImportError, RuntimeError))

TOKEN = "a-token"
BASE = "http://127.0.0.1:8000"
ORIGIN = {"Origin": BASE}
PATHS = ["/", "/scans", "/scans/0/image", "/scans/0/mask", "/static/review.js", "/reviews", "/absent"]


def client_of(folder, scans=None):
    pages = ReviewPages(folder, list_reviewed_scans(folder, scans), {1: "liver"})
    return testclient.TestClient(make_server_app(pages, TOKEN), base_url=BASE)


@pytest.fixture
def stranger(folder):
    """Somebody without the token."""
    return client_of(folder)


@pytest.fixture
def client(stranger):
    """Somebody who has opened the address with the token."""
    assert stranger.get(f"/?token={TOKEN}").status_code == 200
    return stranger


def review(client, headers=ORIGIN, **told):
    told = {"scan": "phantom_1", "verdict": "rejected", "note": "", **told}
    return client.post("/reviews", json=told, headers=headers)


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_answered(stranger, folder, path):
    for answer in (stranger.get(path), stranger.get(f"{path}?token=another"), review(stranger)):
        assert answer.status_code == 403
        assert "needs the token" in answer.text
        assert "set-cookie" not in answer.headers
    assert not (folder / "review.csv").exists()


def test_a_token_beyond_ascii_is_refused(stranger):
    assert stranger.get("/?token=%C3%A4").status_code == 403
    assert stranger.get("/", headers={"Cookie": b"review_x=\xe4; \xff"}).status_code == 403


def test_the_token_of_the_address_is_kept_in_a_cookie_that_scripts_cannot_read(stranger):
    answer = stranger.get(f"/?token={TOKEN}")
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
    assert TOKEN not in answer.text
    assert stranger.get("/scans").status_code == 200


@pytest.mark.parametrize("host", ["example.com", "192.168.1.2:8000", "127.0.0.1.example.com", ""])
def test_another_host_is_refused_even_with_the_token(client, host):
    assert client.get(f"/?token={TOKEN}", headers={"Host": host}).status_code == 400


def test_every_answer_forbids_what_lies_elsewhere(client):
    for path in PATHS:
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("origin", [{}, {"Origin": "http://127.0.0.1:9999"}, {"Origin": "null"}])
def test_a_change_is_taken_from_its_own_page_alone(client, folder, origin):
    assert review(client, origin).status_code == 403
    assert client.get("/reviews").status_code == 405
    assert not (folder / "review.csv").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2f..%2f..%2fsetup.cfg",
        "/static//etc/passwd",
        "/scans/..%2f..%2freview.csv/image",
        "/scans/-1/image",
        "/scans/99/image",
        "/scans/0/review.csv",
        "/scans/phantom_1/image",
    ],
)
def test_no_path_leads_to_other_files(client, path):
    assert client.get(path).status_code == 404


def test_the_overview_lists_scans_with_reviews(client):
    assert review(client, note="misses the tail").json()["verdict"] == "rejected"
    told = client.get("/scans").json()
    assert told["folder"] == "masks"
    assert [(scan["name"], scan["quality"], scan["verdict"], scan["note"]) for scan in told["scans"][:2]] == [
        ("phantom_2", 0.55, "", ""),
        ("phantom_1", 0.75, "rejected", "misses the tail"),
    ]
    assert [each["name"] for each in told["classes"]] == ["liver"]


def test_images_and_masks_are_given_as_they_are(client, made):
    for part, file in (("image", "scans/phantom_2.nii.gz"), ("mask", "masks/phantom_2_seg.nii.gz")):
        assert client.get(f"/scans/0/{part}").content == gzip.decompress((made / file).read_bytes())


def test_scans_of_other_formats_are_converted(made, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    source = sitk.ReadImage(str(made / "scans" / "phantom_1.nii.gz"))
    (tmp_path / "scans").mkdir()
    sitk.WriteImage(source, str(tmp_path / "scans" / "phantom_1.nrrd"))
    (tmp_path / "phantom_1_seg.nii.gz").write_bytes((made / "masks" / "phantom_1_seg.nii.gz").read_bytes())
    client = client_of(tmp_path, tmp_path / "scans")
    given = nib.Nifti1Image.from_bytes(client.get(f"/scans/0/image?token={TOKEN}").content)
    expected = nib.load(made / "scans" / "phantom_1.nii.gz")
    np.testing.assert_array_equal(given.get_fdata(), expected.get_fdata())
    np.testing.assert_allclose(given.affine, expected.affine)
    assert given.get_data_dtype() == np.int16


def test_a_dicom_series_and_its_dicom_segmentation_are_converted(tmp_path):
    pytest.importorskip("highdicom")
    pixels = made_pixels()
    write_series(tmp_path / "scans", pixels)
    (scan,) = load_scans(tmp_path / "scans")
    (tmp_path / "masks" / "model").mkdir(parents=True)
    note_scans(tmp_path / "masks" / "model", [scan])
    label = (pixels > np.median(pixels)).astype(np.uint8)
    write_seg(tmp_path / "masks" / f"{scan['name']}_seg.dcm", scan["image"], label, ["liver"])
    client = client_of(tmp_path / "masks")
    image, mask = (
        nib.Nifti1Image.from_bytes(client.get(f"/scans/0/{part}?token={TOKEN}").content) for part in ("image", "mask")
    )
    np.testing.assert_allclose(image.affine, ras_affine(), atol=1e-4)
    np.testing.assert_allclose(mask.affine, image.affine)
    np.testing.assert_array_equal(image.get_fdata(), pixels)
    np.testing.assert_array_equal(mask.get_fdata(), label)
    assert mask.get_data_dtype() == np.uint8


def test_pictures_are_shown_with_and_without_their_masks(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for folder in ("images", "masks/model", "masks/previews"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    Image.fromarray(255 * (pixels > 20).astype(np.uint8)).save(tmp_path / "masks" / "a_seg.png")
    Image.fromarray(pixels).save(tmp_path / "masks" / "previews" / "a.png")
    note_scans(tmp_path / "masks" / "model", load_scans(tmp_path / "images"))
    client = client_of(tmp_path / "masks")
    assert client.get(f"/scans?token={TOKEN}").json()["scans"][0]["picture"] is True
    for part in ("image", "preview"):
        np.testing.assert_array_equal(Image.open(io.BytesIO(client.get(f"/scans/0/{part}").content)), pixels)
    (tmp_path / "masks" / "previews" / "a.png").unlink()
    assert client_of(tmp_path / "masks").get(f"/scans/0/preview?token={TOKEN}").status_code == 404


def test_a_scan_that_is_gone_is_told(made, tmp_path):
    (tmp_path / "scans").mkdir()
    for folder, name in (("scans", "phantom_1.nii.gz"), ("masks", "phantom_1_seg.nii.gz")):
        target = tmp_path / ("scans" if folder == "scans" else "") / name
        target.write_bytes((made / folder / name).read_bytes())
    client = client_of(tmp_path, tmp_path / "scans")
    (tmp_path / "scans" / "phantom_1.nii.gz").unlink()
    answer = client.get(f"/scans/0/image?token={TOKEN}")
    assert answer.status_code == 404
    assert "phantom_1, is not there: put it back" in answer.json()["error"]
    (tmp_path / "phantom_1_seg.nii.gz").write_bytes(b"\x1f\x8bno")
    answer = client.get("/scans/0/mask")
    assert answer.status_code == 409
    assert "phantom_1_seg.nii.gz" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"scan": 1}', b'{"scan": "phantom_1", "verdict": "maybe", "note": ""}'])
def test_a_bad_review_is_not_kept(client, folder, body):
    assert client.post("/reviews", content=body, headers=ORIGIN).status_code == 409
    assert not (folder / "review.csv").exists()


def test_a_review_of_an_unknown_scan_or_too_long_is_not_kept(client, folder):
    assert review(client, scan="../phantom_1").status_code == 404
    assert review(client, note="a" * 200_000).status_code == 409
    assert not (folder / "review.csv").exists()


def test_a_file_that_was_broken_meanwhile_is_told_and_left(client, folder):
    (folder / "review.csv").write_text("scan,verdict\nphantom_1,accepted\n")
    answer = review(client)
    assert answer.status_code == 409
    assert "review.csv, line 1: lacks the column(s) note, time" in answer.json()["error"]
    assert client.get("/scans").status_code == 409
    assert (folder / "review.csv").read_text() == "scan,verdict\nphantom_1,accepted\n"
