"""``iovirt keys``: which keys are made where, and what is said about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.transport.curve import load_security, secret_path

TOPOLOGY = """
[topology]
keys = "keys"
[host.a]
address = "127.0.0.1"
[host.b]
address = "127.0.0.2"
[hypervisor.hva]
host = "a"
[hypervisor.hvb]
host = "b"
[controller.rng0]
kind = "rng"
host = "a"
[guest.here]
kind = "script"
hypervisor = "hva"
script = "x.py:main"
[guest.web]
kind = "script"
hypervisor = ["hva", "hvb"]
count = 2
script = "x.py:main"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A topology of two hosts."""
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "t.toml"
    path.write_text(TOPOLOGY)
    return str(path)


def states(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What the last command has printed as JSON: states by name."""
    return {key["name"]: key["state"] for key in json.loads(capsys.readouterr().out)["keys"]}


def test_all_keys_are_made_in_one_place(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One for each process and supervisor, one for all replicas of a guest; the table says where each belongs."""
    assert main(["keys", "-f", file]) == 0
    printed = capsys.readouterr()
    rows = [line.rstrip().split(maxsplit=2) for line in printed.out.splitlines()[2:]]
    assert rows == [
        ["rng0", "made", "a"],
        ["hva", "made", "a"],
        ["hvb", "made", "b"],
        ["here", "made", "a"],
        ["web", "made", "a, b"],
        ["@a", "made", "a"],
        ["@b", "made", "b"],
    ]
    assert max(map(len, printed.out.splitlines())) <= 80
    assert "copy" in printed.err


def test_keys_made_again_stay(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that is believed somewhere is replaced without being asked for."""
    main(["keys", "-f", file])
    before = load_security(Path(file).parent / "keys", "hva", ["web"])
    capsys.readouterr()
    assert main(["keys", "-f", file, "--json", "--renew", "web"]) == 0
    assert states(capsys) == dict.fromkeys(("rng0", "hva", "hvb", "here", "@a", "@b"), "kept") | {"web": "renewed"}
    after = load_security(Path(file).parent / "keys", "hva", ["web"])
    assert after.public == before.public
    assert after.trusted != before.trusted


def test_keys_of_one_host_are_its_own(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that several hosts share is made on the first of them only; made on each it would be several."""
    assert main(["keys", "-f", file, "--host", "b", "--json"]) == 0
    assert states(capsys) == {"hvb": "made", "@b": "made", "web": "absent"}
    assert not secret_path(Path(file).parent / "keys", "web").exists()


def test_json_tells_where_each_secret_belongs(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One object: the folder, and of each key its public half and hosts, never the secret."""
    main(["keys", "-f", file, "--json"])
    text = capsys.readouterr().out
    told = {key["name"]: key for key in json.loads(text)["keys"]}
    security = load_security(Path(file).parent / "keys", "web", [])
    assert told["web"] == {
        "name": "web",
        "state": "made",
        "public": security.public.decode(),
        "hosts": ["a", "b"],
        "secret_here": True,
    }
    assert security.secret.decode() not in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--renew", "wep"], "--renew: no key 'wep'; did you mean 'web'?"),
        (["--host", "b", "--renew", "web"], "--renew: the key 'web' is made on host 'a'; renew it there"),
        (["--host", "c"], "no host 'c'; hosts: a, b"),
    ],
)
def test_keys_that_cannot_be_made_are_one_line(
    file: str, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    """What, where, what to do; nothing is made."""
    assert main(["keys", "-f", file, *argv]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (Path(file).parent / "keys").exists()


def test_topology_without_a_folder_of_keys_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The key to add is named."""
    (tmp_path / "t.toml").write_text("[hypervisor.hv0]\n")
    assert main(["keys", "-f", str(tmp_path / "t.toml")]) == 2
    assert 'topology.keys: the topology says not where its keys are; add keys = "keys"' in capsys.readouterr().err
