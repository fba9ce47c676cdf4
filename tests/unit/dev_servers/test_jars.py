"""Jars come from the cache when it has them, else from the network, and only with the hash of the lock file."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from dev_servers import jars
from dev_servers.cache import CACHE_VARIABLE, cache_directory
from dev_servers.jars import Jar
from dev_servers.process import DevServerError

CONTENT = b"a jar"


class MavenOf:  # its methods are those of jgo.maven
    """Stands where jgo downloads: writes ``content``, or fails, at first or always. Remembers what it was asked for."""

    def __init__(self, content: bytes | Exception, *failures: Exception) -> None:
        self.content = content
        self.failures = list(failures)
        self.asked: list[str] = []

    def __call__(self, repo_cache: Path, **_: object) -> "MavenOf":
        self.directory = repo_cache
        return self

    def project(self, group: str, artifact: str) -> "MavenOf":
        self.asked.append(f"{group}:{artifact}")
        return self

    def at_version(self, version: str) -> "MavenOf":
        self.asked[-1] += f":{version}"
        return self

    def artifact(self) -> "MavenOf":
        return self

    def resolve(self) -> Path:
        if self.failures:
            raise self.failures.pop()
        if isinstance(self.content, Exception):
            raise self.content
        file = self.directory / "downloaded"
        file.write_bytes(self.content)
        return file


@pytest.fixture
def jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jar:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    only = Jar("org.example", "thing", "1.2", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(jars, "locked_jars", lambda _: [only])
    monkeypatch.setattr(jars, "DOWNLOAD_WAIT_SECONDS", 0.0)
    return only


def test_a_missing_jar_is_downloaded_once_with_progress(
    jar: Jar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    maven = MavenOf(CONTENT)
    monkeypatch.setattr("jgo.maven.MavenContext", maven)
    assert jars.class_path("kafka") == str(jar.path)
    assert jar.path.read_bytes() == CONTENT
    assert "1 of 1" in capsys.readouterr().err
    jars.class_path("kafka")
    assert maven.asked == ["org.example:thing:1.2"]
    assert capsys.readouterr().err == ""


def test_what_is_in_the_cache_needs_no_downloader(jar: Jar, monkeypatch: pytest.MonkeyPatch) -> None:
    jar.path.parent.mkdir(parents=True)
    jar.path.write_bytes(CONTENT)
    monkeypatch.setitem(sys.modules, "jgo.maven", None)  # its import would fail
    assert jars.class_path("kafka") == str(jar.path)


def test_another_hash_is_refused_and_nothing_is_kept(jar: Jar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jgo.maven.MavenContext", MavenOf(b"another jar"))
    with pytest.raises(DevServerError, match=r"kafka: org\.example:thing:1\.2 was downloaded with SHA-256"):
        jars.download(["kafka"])
    assert not jar.path.exists()
    assert [path.name for path in cache_directory().iterdir()] == ["jars"]


def test_a_dropped_connection_is_tried_again(jar: Jar, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = MavenOf(CONTENT, *[ConnectionError("reset")] * (jars.DOWNLOAD_ATTEMPTS - 1))
    monkeypatch.setattr("jgo.maven.MavenContext", maven)
    jars.download(["kafka"])
    assert jar.path.read_bytes() == CONTENT
    assert len(maven.asked) == jars.DOWNLOAD_ATTEMPTS


def test_a_failed_download_names_the_jar_and_the_cache(jar: Jar, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = MavenOf(ConnectionError("no route"))
    monkeypatch.setattr("jgo.maven.MavenContext", maven)
    with pytest.raises(DevServerError, match=r"kafka: can't download org\.example:thing:1\.2 \(ConnectionError\)") as error:
        jars.download(["kafka"])
    assert len(maven.asked) == jars.DOWNLOAD_ATTEMPTS
    assert str(cache_directory()) in str(error.value)
    assert not jar.path.exists()


@pytest.mark.parametrize("name", sorted(jars.LOCKED))
def test_the_lock_file_holds_what_is_asked_for(name: str) -> None:
    locked = jars.locked_jars(name)
    assert set(jars.LOCKED[name]) <= {jar.coordinate for jar in locked}
    assert all(len(jar.sha256) == 64 for jar in locked)
    assert len({jar.path for jar in locked}) == len(locked)


def test_the_cache_is_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    assert cache_directory() == tmp_path / "login-stream"
