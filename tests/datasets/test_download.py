"""Downloads from a server of the test's own, and what is said when there is none."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile

import pytest

from merlin_models.datasets import download as module
from merlin_models.datasets.download import cache_folder, download, require_files, unpack


class Server(http.server.SimpleHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        type(self).requests += 1
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"too little")
        else:
            super().do_GET()

    def log_message(self, *arguments):
        """Says nothing."""


@pytest.fixture
def url(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "data.bin").write_bytes(b"0123456789" * 300_000)
    handler = functools.partial(Server, directory=str(tmp_path / "served"))
    Server.requests = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_downloads_once(url, tmp_path):
    target = tmp_path / "new" / "folder" / "data.bin"
    digest = hashlib.md5(b"0123456789" * 300_000).hexdigest()
    assert download(f"{url}/data.bin", target, digest) == target
    assert target.read_bytes() == b"0123456789" * 300_000
    assert download(f"{url}/data.bin", target, digest) == target
    assert Server.requests == 1
    assert [file.name for file in target.parent.iterdir()] == ["data.bin"]


def test_wrong_checksum(url, tmp_path):
    with pytest.raises(ValueError, match=r"data.bin must have the MD5 checksum 00. Received: [0-9a-f]{32}"):
        download(f"{url}/data.bin", tmp_path / "a" / "b", "00")
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("path", ["nothing.zip", "short"])
def test_what_does_not_come(path, url, tmp_path):
    with pytest.raises(
        ConnectionError, match=rf"{path} must be reachable.*by hand and save it as '.*/a/b'. Received: "
    ):
        download(f"{url}/{path}", tmp_path / "a" / "b")
    assert not list((tmp_path / "a").iterdir())


def test_no_network(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise module.urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(module.urllib.request, "urlopen", refuse)
    with pytest.raises(ConnectionError, match=r"Received: <urlopen error Name or service not known>"):
        download("https://example.com/a.zip", tmp_path / "a.zip")


def test_unpacks_what_is_wanted(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("ml/ratings.csv", "1")
        archive.writestr("ml/movies.csv", "2")
        archive.writestr("../../evil.csv", "3")
    files = unpack(tmp_path / "a.zip", tmp_path / "out", lambda name: name != "movies.csv")
    assert files == [tmp_path / "out" / "ratings.csv", tmp_path / "out" / "evil.csv"]
    assert (tmp_path / "out" / "ratings.csv").read_text() == "1"
    assert not (tmp_path.parent / "evil.csv").exists()
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"b.zip' must be a complete zip file. Received: File is not a zip file"):
        unpack(tmp_path / "b.zip", tmp_path / "out", lambda name: True)


def test_required_files(tmp_path):
    (tmp_path / "a.csv").touch()
    assert require_files(tmp_path, ["a.csv"], "From there.") == [tmp_path / "a.csv"]
    with pytest.raises(FileNotFoundError, match=r"must have b.csv, c.csv. From there. Received: no such files"):
        require_files(tmp_path, ["a.csv", "b.csv", "c.csv"], "From there.")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("INPUT_DATA_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("INPUT_DATA_DIR")
    assert cache_folder().name == "merlin_models"
