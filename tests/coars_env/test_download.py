import hashlib
import http.server
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coars_env.datasets.download import cache_folder, check_digest, fetch, unzip
from coars_env.errors import DatasetError, MissingDataError

BODY = b"films and stars " * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    """/whole answers in full, /short breaks off in the middle, all else is not found."""

    def do_GET(self) -> None:
        if self.path not in ("/whole", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY if self.path == "/whole" else BODY[: len(BODY) // 2])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}"
        web.shutdown()
        thread.join()


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_file_is_fetched_checked_and_announced_with_its_licence(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    md5, sha256 = hashlib.md5(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()
    path = fetch(f"{server}/whole", tmp_path / "new" / "films.bin", md5=md5, sha256=sha256, licence="for research")
    assert path.read_bytes() == BODY
    assert os.listdir(path.parent) == ["films.bin"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.index(f"{server}/whole") < shown.err.index("Licence: for research")


def test_a_wrong_digest_shows_expected_and_found_and_keeps_the_old_file(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "kept" / "films.bin"
    source.write_bytes(b"abc")
    destination.parent.mkdir()
    destination.write_bytes(b"old")
    # The md5 of "abc" is the test vector of RFC 1321.
    with pytest.raises(DatasetError, match=f"Expected md5 {'0' * 32} .*found 900150983cd24fb0d6963f7d28e17f72.*verify"):
        fetch(source.as_uri(), destination, md5="0" * 32)
    assert destination.read_bytes() == b"old"
    assert os.listdir(destination.parent) == ["films.bin"]


@pytest.mark.parametrize(
    ("page", "message"), [("/short", "must be complete. Expected 80000 bytes .*found 40000"), ("/gone", "404")]
)
def test_a_broken_download_leaves_nothing_behind(tmp_path: Path, server: str, page: str, message: str) -> None:
    with pytest.raises(MissingDataError, match=message):
        fetch(server + page, tmp_path / "films.bin")
    assert os.listdir(tmp_path) == []


def test_an_unreachable_host_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"must be reachable.*data_dir or in COARS_DATA"):
        fetch("http://127.0.0.1:9/films.zip", tmp_path / "films.zip", timeout=2.0)


def test_a_host_that_gave_no_answer_is_not_asked_again_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MissingDataError, match=r"found: .*refused.*\. Check the connection"):
        fetch("http://127.0.0.1:7/films.zip", tmp_path / "films.zip", licence="for research")
    assert "Downloading" in capsys.readouterr().err
    with pytest.raises(
        MissingDataError, match=r"stars\.zip, found: .*refused.* 0 s ago; the host is asked again after 60 s"
    ):
        fetch("http://127.0.0.1:7/stars.zip", tmp_path / "stars.zip", licence="for research")
    assert capsys.readouterr().err == ""
    assert os.listdir(tmp_path) == []


def test_a_host_that_answered_is_asked_again(tmp_path: Path, server: str) -> None:
    for page in ("/gone", "/short"):
        with pytest.raises(MissingDataError):
            fetch(server + page, tmp_path / "films.bin")
    with pytest.raises(MissingDataError, match="No such file"):
        fetch((tmp_path / "gone").as_uri(), tmp_path / "films.bin")
    (tmp_path / "here").write_bytes(b"1")
    assert fetch((tmp_path / "here").as_uri(), tmp_path / "films.bin").read_bytes() == b"1"
    assert fetch(f"{server}/whole", tmp_path / "films.bin").read_bytes() == BODY


def test_an_overlong_file_and_an_odd_address_are_refused(tmp_path: Path, server: str) -> None:
    with pytest.raises(DatasetError, match="Expected at most 100 bytes"):
        fetch(f"{server}/whole", tmp_path / "films.bin", max_bytes=100)
    with pytest.raises(DatasetError, match="found 'ftp://films'"):
        fetch("ftp://films", tmp_path / "films.bin")
    assert os.listdir(tmp_path) == []


def test_a_digest_is_compared_without_regard_to_case(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    check_digest(tmp_path / "file", "900150983CD24FB0D6963F7D28E17F72", "md5")


def test_an_archive_unpacks_with_its_folders(tmp_path: Path) -> None:
    unzip(zip_of(tmp_path / "a.zip", {"films/": b"", "films/one": b"1", "read.me": b"2"}), tmp_path / "out")
    assert (tmp_path / "out" / "films" / "one").read_bytes() == b"1"
    assert (tmp_path / "out" / "read.me").read_bytes() == b"2"
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "out"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "films/../../evil", "..\\evil", "C:/evil", "\\evil"])
def test_a_member_outside_the_folder_is_refused_and_nothing_is_unpacked(tmp_path: Path, name: str) -> None:
    archive = zip_of(tmp_path / "a.zip", {"fine": b"", name: b"evil"})
    with pytest.raises(DatasetError, match="must be plain files inside it"):
        unzip(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DatasetError, match="found 'link'"):
        unzip(tmp_path / "a.zip", tmp_path / "out")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"zeros": bytes(1_000_000)})
    assert archive.stat().st_size < 2_000
    with pytest.raises(DatasetError, match="Expected at most 999999 bytes"):
        unzip(archive, tmp_path / "out", max_bytes=999_999)
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("kept", [0, 30, 400])
def test_a_truncated_archive_is_refused(tmp_path: Path, kept: int) -> None:
    archive = zip_of(tmp_path / "a.zip", {"film": os.urandom(1000)})
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(DatasetError, match="must be a whole zip file"):
        unzip(archive, tmp_path / "out")


def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"film": b"star" * 1000})
    data = bytearray(archive.read_bytes())
    data[40] ^= 0xFF  # the header of the only member has 30 bytes and 4 of its name
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match="must be a whole zip file"):
        unzip(archive, tmp_path / "out")


def test_the_cache_lies_where_the_system_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "coars"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().name == "coars"
