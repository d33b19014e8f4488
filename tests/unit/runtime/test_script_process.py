"""Finding a script: in a file with its neighbours, in a module, and what is wrong with one that is not found."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError, ImageError
from iovirt_dist.guest.script import load
from iovirt_dist.ids import GuestName, ProcessName
from iovirt_dist.runtime.script_process import load_script
from iovirt_dist.topology.specs import ScriptSpec


@pytest.fixture(autouse=True)
def _modules_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing leaves its marks on the process, which here is the tests' own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def spec(place: str, function: str, file: Path | None = None) -> ScriptSpec:
    """A script guest."""
    return ScriptSpec(
        name=GuestName("load"),
        hypervisor=ProcessName("hv0"),
        restart="never",
        memory_bytes=1 << 20,
        script=f"{place}:{function}",
        file=file,
        module=file.stem if file else place,
        function=function,
        parameters={},
    )


def test_script_of_a_file_may_import_its_neighbour(tmp_path: Path) -> None:
    """As ``python FILE`` would."""
    (tmp_path / "neighbour_of_script.py").write_text("NAME = 'neighbour'\n")
    file = tmp_path / "some_script.py"
    file.write_text("from neighbour_of_script import NAME\nasync def main(guest): ...\n")
    script = load_script(spec("some_script.py", "main", file))
    assert script.__module__ == "some_script"


def test_script_of_a_module_is_imported() -> None:
    """The load generator that comes with the package."""
    assert load_script(spec("iovirt_dist.guest.script.load", "main")) is load.main


NO_MODULE = "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name' (broken_script.py:1)"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("import nothing_of_this_name", ImageError, NO_MODULE),
        ("def main(:", ImageError, "cannot be imported: SyntaxError: invalid syntax (broken_script.py, line 1)"),
        ("async def mian(guest): ...", ConfigError, "no function 'main'; did you mean 'mian'?"),
        ("def main(guest): ...", ConfigError, "'main' is no coroutine function; async def main(guest)"),
    ],
)
def test_script_that_is_none_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, error: type[Exception], message: str
) -> None:
    """The script, its line and what to do."""
    file = tmp_path / "broken_script.py"
    file.write_text(text)
    with caplog.at_level(logging.ERROR), pytest.raises(error) as caught:
        load_script(spec("broken_script.py", "main", file))
    assert str(caught.value) == f"broken_script.py:main: {message}"
    assert caplog.text == ""


def test_script_that_raises_while_it_is_imported_leaves_its_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the script's own frames; those of the import are nobody's concern."""
    file = tmp_path / "broken_script.py"
    file.write_text("def depth():\n    return 1 / 0\ndepth()\n")
    with caplog.at_level(logging.ERROR), pytest.raises(ImageError) as caught:
        load_script(spec("broken_script.py", "main", file))
    message = "cannot be imported: ZeroDivisionError: division by zero (broken_script.py:2); see its log"
    assert str(caught.value) == f"broken_script.py:main: {message}"
    assert "in depth" in caplog.text
    assert "importlib" not in caplog.text
