"""``iovirt initramfs``: options, and what is left when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.errors import ImageError
from iovirt_dist.vmm.initramfs import InitramfsPlan


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[InitramfsPlan]:
    """What was to be written; one with the word ``broken`` for a script fails half way."""
    made: list[InitramfsPlan] = []

    def write(file: BinaryIO, plan: InitramfsPlan) -> None:
        made.append(plan)
        file.write(b"070701")
        if plan.script == "broken":
            raise ImageError("no such file", "broken")

    monkeypatch.setattr("iovirt_dist.vmm.initramfs.write_initramfs", write)
    monkeypatch.setattr("iovirt_dist.vmm.initramfs.kernel_modules", lambda vmm, kernel: Path(f"/{vmm}/{kernel}"))
    return made


def test_options_make_a_plan(plans: list[InitramfsPlan], tmp_path: Path) -> None:
    """A file without a place goes to /bin."""
    (tmp_path / "job").write_text("echo\n")
    argv = ["--for", "uml", "--kernel", "k", "--add", "/usr/bin/fio", "--add", "a:b:/etc/c", "--script"]

    assert main(["initramfs", str(tmp_path / "out"), *argv, str(tmp_path / "job")]) == 0

    files = {"/bin/fio": Path("/usr/bin/fio"), "/etc/c": Path("a:b").absolute()}
    assert plans == [InitramfsPlan(vmm="uml", modules=Path("/uml/k"), files=files, script="echo\n")]
    assert (tmp_path / "out").read_bytes() == b"070701"


def test_failure_leaves_nothing_and_takes_nothing(plans: list[InitramfsPlan], tmp_path: Path) -> None:
    """What was there before stays."""
    (tmp_path / "out").write_bytes(b"before")
    (tmp_path / "job").write_text("broken")

    assert main(["initramfs", str(tmp_path / "out"), "--script", str(tmp_path / "job")]) == 2

    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "out"]
    assert (tmp_path / "out").read_bytes() == b"before"


@pytest.mark.parametrize(
    ("argv", "status", "expected"),
    [
        (["out", "--add", "a:b"], 2, '--add: expected FILE or HERE:THERE, got "a:b"; THERE begins with'),
        (["no/out"], 1, "No such file or directory"),
        (["."], 2, ".: is a folder; name a file"),
        (["out", "--script", "none"], 1, "none: No such file or directory"),
        (["out", "--script", "binary"], 2, "binary: the script is no text"),
    ],
)
def test_mistakes_are_one_line(
    plans: list[InitramfsPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    status: int,
    expected: str,
) -> None:
    """With what it is about."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff")

    assert main(["initramfs", *argv]) == status

    assert expected in capsys.readouterr().err
