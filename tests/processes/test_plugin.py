"""The pytest plugin in sessions of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iovirt_dist.testing.processes import eventually

pytest_plugins = ("pytester",)

# A topology with nothing but a hypervisor starts in half a second.
SMALL = '"[hypervisor.hv0]"'


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    """A session with pytest-asyncio in automatic mode."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


def test_plugin_import_loads_neither_sockets_nor_cpu() -> None:
    """Every pytest session of the environment loads it."""
    code = (
        "import sys, iovirt_dist.testing.plugin; print([m for m in ('zmq', 'unicorn', 'msgspec') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_plugin_fixture_starts_processes_and_removes_everything(session: pytest.Pytester) -> None:
    """A test that passes leaves no process and no folder."""
    session.makepyfile(
        f"""
        async def test_it(iovirt):
            topology = await iovirt.up({SMALL})
            hypervisor = topology.hypervisor()
            assert hypervisor.running and hypervisor.status().state == "running"
            print("folder", topology.run_dir.path, "pid", hypervisor.pid)
        """
    )

    result = session.runpytest_subprocess("-s")

    result.assert_outcomes(passed=1)
    words = next(line for line in result.outlines if "folder" in line).split()
    folder, pid = words[words.index("folder") + 1], words[words.index("pid") + 1]
    assert not session.path.__class__(folder).exists()
    assert not session.path.__class__(f"/proc/{pid}").exists()


def test_plugin_failing_test_shows_the_log_of_each_process(session: pytest.Pytester) -> None:
    """The report says what the processes printed."""
    session.makepyfile(
        f"""
        async def test_it(iovirt):
            await iovirt.up({SMALL})
            assert False, "on purpose"
        """
    )

    result = session.runpytest_subprocess()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*log of hv0*", "*listening at ipc://*"])


def test_plugin_process_that_ends_by_itself_fails_the_test(session: pytest.Pytester) -> None:
    """A test cannot pass over a process that died under it."""
    session.makepyfile(
        f"""
        import os, signal
        async def test_it(iovirt):
            topology = await iovirt.up({SMALL})
            os.kill(topology.hypervisor().pid, signal.SIGKILL)
            await topology.hypervisor().exited()
        """
    )

    result = session.runpytest_subprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the topology did not end well: hv0 ended by itself (-9)*"])


def test_plugin_process_that_ignores_sigterm_is_killed_and_fails_the_test(session: pytest.Pytester) -> None:
    """A stopped process cannot take itself down."""
    session.makepyfile(
        f"""
        import signal
        import iovirt_dist.testing.live as live
        async def test_it(iovirt):
            live.GRACE_S = 0.2
            topology = await iovirt.up({SMALL})
            topology.hypervisor().send_signal(signal.SIGSTOP)
        """
    )

    result = session.runpytest_subprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*hv0 had to be killed*"])


def test_plugin_process_killed_by_its_handle_is_excused(session: pytest.Pytester) -> None:
    """Breaking things on purpose is what it is for; what the dead process left behind is not held against it."""
    session.makepyfile(
        f"""
        async def test_it(iovirt):
            topology = await iovirt.up({SMALL})
            topology.hypervisor().kill()
        """
    )

    session.runpytest_subprocess().assert_outcomes(passed=1)


def test_plugin_file_left_behind_fails_the_test(session: pytest.Pytester) -> None:
    """Sockets, locks and status files go with their processes."""
    session.makepyfile(
        f"""
        async def test_it(iovirt):
            topology = await iovirt.up({SMALL})
            topology.run_dir.status("ghost").write_text("")
        """
    )

    result = session.runpytest_subprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*status/ghost.json was left behind*"])


def test_plugin_process_that_cannot_start_shows_its_last_words(session: pytest.Pytester) -> None:
    """The reason is in the failure itself."""
    session.makepyfile(
        """
        async def test_it(iovirt):
            await iovirt.up("[hypervisor.hv0]\\nendpoint = 'ipc:///proc/nowhere/hv0'")
        """
    )

    result = session.runpytest_subprocess()

    result.stdout.fnmatch_lines(["*hv0 is not running (exit status 1)*", "*iovirt: error: hypervisor: *"])


async def test_plugin_processes_end_with_a_runner_that_is_killed(session: pytest.Pytester) -> None:
    """They are children of the server that forks them, and neither is left to itself."""
    session.makepyfile(
        f"""
        import os, signal
        from multiprocessing.util import get_temp_dir
        from pathlib import Path
        async def test_it(iovirt):
            topology = await iovirt.up({SMALL})
            Path("server").write_text(str(Path(get_temp_dir()).parent))
            Path("pid").write_text(str(topology.hypervisor().pid))
            Path("folder").write_text(str(topology.run_dir.path))
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    result = session.runpytest_subprocess()

    assert result.ret == -signal.SIGKILL
    process = Path("/proc", (session.path / "pid").read_text())
    await eventually(lambda: not process.exists(), 10, lambda: "the hypervisor does not end")
    server = Path((session.path / "server").read_text())
    await eventually(lambda: not server.exists(), 10, lambda: "the server leaves its socket's folder")
    shutil.rmtree((session.path / "folder").read_text())


def test_plugin_works_below_a_temporary_folder_with_a_long_path(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's path has 107 bytes at most."""
    folder = session.path / ("t" * 107)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    session.makepyfile(f"async def test_it(iovirt):\n    await iovirt.up({SMALL})\n")

    session.runpytest_subprocess().assert_outcomes(passed=1)
