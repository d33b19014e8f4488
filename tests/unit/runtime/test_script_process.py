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


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("import nothing_of_this_name", ImageError, "cannot be imported: ModuleNotFoundError: No module named"),
        ("def main(:", ImageError, "cannot be imported: SyntaxError:"),
        ("1 / 0", ImageError, "cannot be imported: ZeroDivisionError: division by zero; see its log"),
        ("async def mian(guest): ...", ConfigError, "no function 'main'; did you mean 'mian'?"),
        ("def main(guest): ...", ConfigError, "'main' is no coroutine function; async def main(guest)"),
    ],
)
def test_script_that_is_none_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, error: type[Exception], message: str
) -> None:
    """The guest, the script and what to do; the traceback of an import is in the log."""
    file = tmp_path / "broken_script.py"
    file.write_text(text)
    with caplog.at_level(logging.ERROR), pytest.raises(error) as caught:
        load_script(spec("broken_script.py", "main", file))
    assert str(caught.value).startswith(f"guest load: broken_script.py:main: {message}")
    assert ("Traceback" in caplog.text) == (error is ImageError)
