"""Files of the host that a program is to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.runtime import files
from iovirt_dist.runtime.files import read_files


def test_file_is_found_under_its_name_there(tmp_path: Path) -> None:
    """A file here may have another name there."""
    (tmp_path / "hosts").write_bytes(b"127.0.0.1")

    found = read_files({"/etc/hosts": tmp_path / "hosts"})

    assert {path: bytes(content) for path, content in found.items()} == {"/etc/hosts": b"127.0.0.1"}


def test_folder_brings_all_its_files_and_nothing_else(tmp_path: Path) -> None:
    """Links to files are followed; sockets, pipes and links to nowhere are left out; an empty file is one."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "deep").write_bytes(b"1")
    (tmp_path / "a" / "empty").touch()
    (tmp_path / "a" / "link").symlink_to("b/deep")
    (tmp_path / "a" / "dangling").symlink_to("nowhere")

    found = read_files({"/data": tmp_path / "a"})

    assert {path: bytes(content) for path, content in found.items()} == {
        "/data/b/deep": b"1",
        "/data/empty": b"",
        "/data/link": b"1",
    }


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody gave the root of a file system by mistake."""
    monkeypatch.setattr(files, "MAX_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()

    with pytest.raises(ConfigError, match="more than 2 files"):
        read_files({"/": tmp_path})
