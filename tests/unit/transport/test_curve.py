"""A process's keys, read from files that anybody may have touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.transport import zeromq
from iovirt_dist.transport.curve import KEY_BYTES, load_security, public_path, secret_path
from iovirt_dist.transport.keyring import make_keys


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with three pairs."""
    make_keys(tmp_path / "keys", ["hv", "alice", "disk0"])
    return tmp_path / "keys"


def test_security_has_the_own_pair_and_the_trusted_public_keys(keys: Path) -> None:
    """Keys are text of 40 bytes; the secret does not show when it is printed."""
    security = load_security(keys, "hv", ["alice", "disk0"])
    assert sorted(security.trusted) == ["alice", "disk0"]
    assert {len(key) for key in (security.public, security.secret, *security.trusted.values())} == {KEY_BYTES}
    assert security.secret.decode() not in repr(security)


def test_clients_are_those_named_by_raw_key(keys: Path) -> None:
    """The authenticator gets keys as 32 bytes."""
    security = load_security(keys, "hv", ["alice", "disk0"])
    assert sorted(security.clients().values()) == ["alice", "disk0"]
    assert list(security.clients(["alice", "unknown"]).values()) == ["alice"]
    assert {len(key) for key in security.clients()} == {32}


def test_missing_own_key_names_the_command(keys: Path) -> None:
    """One line: what, where, what to do."""
    with pytest.raises(ConfigError, match=r"private/hv1\.key_secret: no key of 'hv1'; make it with 'iovirt keys'"):
        load_security(keys, "hv1", [])


def test_missing_trusted_key_names_the_command(keys: Path) -> None:
    """So is the public half of somebody else."""
    with pytest.raises(ConfigError, match=r"public/bob\.key: no key of 'bob'; make it with 'iovirt keys', and copy"):
        load_security(keys, "hv", ["bob"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b'curve\n    public-key = "short"\n',
        b'curve\n    public-key = "' + b"~" * 40 + b'"\n',
        b'curve\n    public-key = "' + b"#" * 40 + b'"\n',
        b'curve\n    public-key = "' + b"0" * 45 + b'"\n',
        b"#" * 5000,
    ],
    ids=["empty", "binary", "short", "no-z85", "too-large", "long", "large-file"],
)
def test_file_that_is_no_key_is_told(keys: Path, content: bytes) -> None:
    """Whatever is in the file, it is one line and no traceback."""
    public_path(keys, "alice").write_bytes(content)
    with pytest.raises(ConfigError, match=r"alice\.key: is no key of 'alice'; make it with 'iovirt keys'"):
        load_security(keys, "hv", ["alice"])


def test_secret_file_without_its_secret_is_told(keys: Path) -> None:
    """The public file was copied where the pair belongs."""
    secret_path(keys, "hv").write_bytes(public_path(keys, "hv").read_bytes())
    with pytest.raises(ConfigError, match="no secret key of 'hv' in it"):
        load_security(keys, "hv", [])


def test_halves_that_do_not_belong_together_are_told(keys: Path) -> None:
    """A pair made of two would fail in every handshake without a word."""
    theirs = load_security(keys, "alice", [])
    path = secret_path(keys, "hv")
    path.write_text(path.read_text().replace(load_security(keys, "hv", []).public.decode(), theirs.public.decode()))
    with pytest.raises(ConfigError, match="do not belong together"):
        load_security(keys, "hv", [])


def test_secret_that_others_may_read_is_refused(keys: Path) -> None:
    """As ssh does, with the command that mends it."""
    path = secret_path(keys, "hv")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read it: its mode is 0640; chmod 600 .*hv\.key_secret"):
        load_security(keys, "hv", [])


def test_folder_in_place_of_a_key_is_told(keys: Path) -> None:
    """Whatever is there instead of a file."""
    public_path(keys, "alice").unlink()
    public_path(keys, "alice").mkdir()
    with pytest.raises(ConfigError, match=r"alice\.key: the key of 'alice' cannot be read"):
        load_security(keys, "hv", ["alice"])


def test_dialling_a_server_without_a_trusted_key_is_told(keys: Path) -> None:
    """Nobody is dialled whose key is not known."""
    security = load_security(keys, "alice", [])
    with pytest.raises(ConfigError, match=r"tcp://127\.0\.0\.1:1: no trusted key of 'hv'"):
        zeromq.dial("tcp://127.0.0.1:1", security, "hv")


def test_ipc_needs_no_keys(keys: Path, tmp_path: Path) -> None:
    """Its folder keeps others out: with and without keys the two ends understand each other."""
    security = load_security(keys, "hv", ["alice"])
    listener = zeromq.listen(f"ipc://{tmp_path}/run/a.sock", security)
    dialler = zeromq.dial(listener.endpoint, security, "unknown")
    dialler.send(b"", [b"x"])
    message = listener.receive_wait(10_000)
    assert message is not None
    assert listener.identity(message[0]) is None
    for port in (dialler, listener):
        port.close()
