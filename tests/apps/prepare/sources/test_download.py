# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from monai_fewshot.apps.prepare.sources import download
from monai_fewshot.apps.prepare.sources.download import RemoteFile, download_file

CONTENT = np.random.default_rng(0).bytes(1_000_003)
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serve ``server.content``, as far as ``server.cuts`` lets it, with parts where ``server.ranges`` is set."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if self.path == "/moved.zip":
            return self._answer(302, {"Location": f"http://127.0.0.1:{server.server_port}/set.zip?download=1"})
        if self.path.startswith("/absent"):
            return self._answer(404, {"Content-Length": "0"})
        if server.errors:
            return self._answer(server.errors.pop(0), {"Content-Length": "0"})
        self._send(server)

    def _send(self, server):
        start, wanted = 0, self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        size = len(server.content)
        if start >= size:
            return self._answer(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
        headers = {"Content-Length": str(size - start), "ETag": server.tag}
        if start:
            headers["Content-Range"] = f"bytes {start + server.shift}-{size - 1}/{size}"
        self._answer(206 if start else 200, headers)
        end = start + server.cuts.pop(0) if server.cuts else size
        self.wfile.write(server.content[start:end])
        self.close_connection = True

    def _answer(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "SECONDS_BETWEEN_RETRIES", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.tag, server.ranges, server.shift = CONTENT, '"v1"', True, 0
    server.asked, server.cuts, server.errors = [], [], []
    server.url = f"http://127.0.0.1:{server.server_port}/set.zip"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ranges(server):
    return [wanted for _, wanted in server.asked]


@pytest.mark.parametrize("sums", [{"sha256": SHA256}, {"md5": MD5}, {"sha256": SHA256.upper(), "md5": MD5}])
def test_file_is_fetched_and_checked(server, tmp_path, sums):
    path = download_file(RemoteFile(server.url, **sums), tmp_path / "new")
    assert path == tmp_path / "new" / "set.zip"
    assert path.read_bytes() == CONTENT
    assert {file.name for file in path.parent.iterdir()} == {"set.zip", "set.zip.json"}
    record = json.loads((tmp_path / "new" / "set.zip.json").read_text())
    kind = "SHA-256" if "sha256" in sums else "MD5"
    assert record == {"url": server.url, "bytes": len(CONTENT), "sha256": SHA256, "checked against": kind}
    assert ranges(server) == [None]
    assert download_file(RemoteFile(server.url, **sums), tmp_path / "new") == path
    assert len(server.asked) == 1


def test_cut_connections_go_on_where_they_stopped(server, tmp_path):
    server.cuts = [300_000, 200_000, 1]
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=300000-", "bytes=500000-", "bytes=500001-"]


def test_without_parts_it_starts_anew(server, tmp_path):
    server.cuts, server.ranges = [300_000, 200_000], False
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=300000-", "bytes=200000-"]


@pytest.mark.parametrize("tag", ["", 'W/"v1"'])
def test_without_a_sure_version_no_part_is_asked_for(server, tmp_path, tag):
    server.cuts, server.tag = [300_000], tag
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_a_later_run_goes_on(server, tmp_path):
    server.cuts = [300_000, *[0] * 9]
    with pytest.raises(ValueError, match=r"set\.zip cannot be downloaded: the connection is cut again and again\. Run"):
        download_file(RemoteFile(server.url, SHA256), tmp_path, retries=2)
    assert (tmp_path / "set.zip.part").stat().st_size == 300_000
    assert not (tmp_path / "set.zip").exists()
    server.cuts, server.asked = [], []
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT
    assert ranges(server) == ["bytes=300000-"]


def test_parts_of_two_versions_are_never_joined(server, tmp_path):
    server.cuts = [300_000, *[0] * 9]
    with pytest.raises(ValueError, match="cannot be downloaded"):
        download_file(RemoteFile(server.url), tmp_path, retries=0)
    server.cuts, server.tag, server.content = [], '"v2"', CONTENT[::-1]
    assert download_file(RemoteFile(server.url), tmp_path).read_bytes() == CONTENT[::-1]


def test_a_part_from_elsewhere_is_not_taken(server, tmp_path):
    server.cuts, server.shift = [300_000], 7
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=300000-", None]


def test_a_part_that_is_whole_is_not_fetched_again(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    (tmp_path / "set.zip.part.version").write_text(server.tag)
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={len(CONTENT)}-"]
    assert {file.name for file in tmp_path.iterdir()} == {"set.zip", "set.zip.json"}


def test_a_part_that_is_too_long_is_fetched_again(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "set.zip.part.version").write_text(server.tag)
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT


def test_redirects_are_followed_with_the_range(server, tmp_path):
    server.cuts = [300_000]
    remote = RemoteFile(server.url.replace("set", "moved"), SHA256)
    assert download_file(remote, tmp_path).read_bytes() == CONTENT
    assert server.asked == [
        (path, r) for r in (None, "bytes=300000-") for path in ("/moved.zip", "/set.zip?download=1")
    ]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.errors = [503, 429, 500]
    assert download_file(RemoteFile(server.url, SHA256), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("sums", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"sha256": SHA256, "md5": "0" * 32}])
def test_another_file_is_refused_and_removed(server, tmp_path, sums):
    with pytest.raises(ValueError, match=r"set\.zip is not the expected file: its (SHA-256|MD5) is \w+, not 0{32}"):
        download_file(RemoteFile(server.url, **sums), tmp_path)
    assert not [file.name for file in tmp_path.iterdir() if not file.name.endswith("version")]


def test_a_file_that_is_there_and_another_is_kept_and_told(server, tmp_path):
    (tmp_path / "set.zip").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"is not the expected file: .* Remove or rename it\. Run again to fetch it"):
        download_file(RemoteFile(server.url, SHA256), tmp_path)
    assert (tmp_path / "set.zip").read_bytes() == b"other"
    assert not server.asked


def test_an_unknown_checksum_is_said_and_recorded(server, tmp_path, caplog):
    download_file(RemoteFile(server.url), tmp_path)
    assert f"No checksum is known for {server.url}; its SHA-256 is {SHA256}." in caplog.text
    record = json.loads((tmp_path / "set.zip.json").read_text())
    assert (record["sha256"], record["checked against"]) == (SHA256, "nothing: no checksum is known")


def test_what_the_server_refuses_is_said(server, tmp_path):
    url = server.url.replace("set", "absent")
    with pytest.raises(
        ValueError, match=r"absent\.zip cannot be downloaded: the server answers 404 Not Found\. Look at"
    ):
        download_file(RemoteFile(url), tmp_path)
    assert len(server.asked) == 1


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SECONDS_BETWEEN_RETRIES", 0)
    with pytest.raises(ValueError, match=r"cannot be downloaded: .*refused"):
        download_file(RemoteFile("http://127.0.0.1:9/set.zip"), tmp_path, retries=1)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.b/c.zip", "set.zip", "https://a.b/"])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(ValueError, match="is not the address of a file: give one that begins with https"):
        download_file(RemoteFile(url), tmp_path)


def test_a_folder_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Cannot write .*set\.zip\.part: .* Name a folder that you may write to"):
        download_file(RemoteFile(server.url), tmp_path / "file")
