"""Reading topologies from files, the package and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import default_text, load_topology, topology_from_environment

DEPLOY = Path(__file__).parents[3] / "deploy"


def test_default_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the run directory is here."""
    monkeypatch.chdir(tmp_path)
    topology = load_topology()
    assert topology.run_dir == tmp_path / ".iovirt"
    assert [spec.name for spec in topology.specs()] == ["disk0", "tty0", "hv0", "guest"]
    assert topology.environment() == {"IOVIRT_TOPOLOGY": ""}


def test_default_text_in_a_file_means_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in text can be copied as a start."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.toml").write_text(default_text())
    copied = load_topology("t.toml")
    assert copied.guests == load_topology().guests
    assert copied.source == tmp_path / "t.toml"
    assert copied.environment() == {"IOVIRT_TOPOLOGY": str(tmp_path / "t.toml")}


def test_environment_names_the_file(tmp_path: Path) -> None:
    """IOVIRT_TOPOLOGY is how a Procfile's processes find their topology."""
    (tmp_path / "t.toml").write_text('topology.name = "x"\n')
    assert topology_from_environment({"IOVIRT_TOPOLOGY": str(tmp_path / "t.toml")}).name == "x"


def test_environment_empty_means_built_in() -> None:
    """An empty variable is no file name."""
    assert topology_from_environment({"IOVIRT_TOPOLOGY": ""}).name == "default"


def test_file_absent_raises_with_its_name(tmp_path: Path) -> None:
    """The operating system's reason is given."""
    with pytest.raises(ConfigError, match=r"no\.toml: cannot read the topology: No such file or directory"):
        load_topology(tmp_path / "no.toml")


def test_file_not_text_raises_with_its_name(tmp_path: Path) -> None:
    """A disk image given by mistake is one line, not a traceback."""
    (tmp_path / "t.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_topology(tmp_path / "t.toml")


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.toml")), ids=lambda path: path.name)
def test_deployed_topology_is_valid(path: Path) -> None:
    """Every topology that ships loads."""
    assert load_topology(path).processes()
