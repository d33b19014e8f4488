"""Key files: made once, whole, and for their owner only."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.transport import keyring
from iovirt_dist.transport.curve import load_security, public_path, read_key, secret_path
from iovirt_dist.transport.keyring import Key, KeyState, list_keys, make_keys


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "some" / "keys"


def mode(path: Path) -> int:
    """Permissions."""
    return path.stat().st_mode & 0o777


def test_made_pair_is_in_two_files_and_belongs_together(keys: Path) -> None:
    """The public half can be given away, the secret one is its owner's."""
    (key,) = make_keys(keys, ["hv"])
    public, secret = read_key(secret_path(keys, "hv"), "hv")
    assert key == Key("hv", KeyState.MADE, public.decode())
    assert secret is not None
    assert zmq.curve_public(secret) == public
    assert read_key(public_path(keys, "hv"), "hv") == (public, None)
    assert secret not in public_path(keys, "hv").read_bytes()


def test_secrets_are_for_their_owner_only(keys: Path) -> None:
    """Nobody else may look into the folder, nor into the file."""
    make_keys(keys, ["hv"])
    assert mode(keys) == mode(keys / "private") == 0o700
    assert mode(secret_path(keys, "hv")) == 0o600


def test_folder_of_secrets_that_others_could_read_is_shut(keys: Path) -> None:
    """A folder copied from elsewhere may have any permissions."""
    (keys / "private").mkdir(parents=True, mode=0o755)
    make_keys(keys, ["hv"])
    assert mode(keys / "private") == 0o700


def test_nothing_but_keys_is_left(keys: Path) -> None:
    """No scratch files stay."""
    make_keys(keys, ["a", "b"])
    made = sorted(str(path.relative_to(keys)) for path in keys.rglob("*") if path.is_file())
    assert made == ["private/a.key_secret", "private/b.key_secret", "public/a.key", "public/b.key"]
    assert sorted(path.name for path in (keys / "private").iterdir()) == ["a.key_secret", "b.key_secret"]


def test_pairs_that_are_there_stay(keys: Path) -> None:
    """Making keys again changes nothing but what is missing."""
    (first,) = make_keys(keys, ["a"])
    again = make_keys(keys, ["a", "b"])
    assert again[0] == Key("a", KeyState.KEPT, first.public)
    assert again[1].state is KeyState.MADE


def test_renewed_pair_is_another_one(keys: Path) -> None:
    """Only the one that is named is made anew."""
    a, b = make_keys(keys, ["a", "b"])
    renewed, kept = make_keys(keys, ["a", "b"], renew=["a"])
    assert (renewed.state, kept) == (KeyState.RENEWED, Key("b", KeyState.KEPT, b.public))
    assert renewed.public != a.public
    assert load_security(keys, "a", ["b"]).public == renewed.public.encode()


def test_public_key_of_another_host_stays_alone(keys: Path, tmp_path: Path) -> None:
    """Here is no secret for it, and none is made: its owner would not be believed any more."""
    (made,) = make_keys(tmp_path / "elsewhere", ["hv"])
    make_keys(keys, [])
    public_path(keys, "hv").write_bytes(public_path(tmp_path / "elsewhere", "hv").read_bytes())
    assert make_keys(keys, ["hv"]) == [Key("hv", KeyState.PUBLIC, made.public)]
    assert not secret_path(keys, "hv").exists()


def test_lost_public_half_is_made_again_of_the_secret(keys: Path) -> None:
    """A pair is whole again without a new secret."""
    (made,) = make_keys(keys, ["hv"])
    public_path(keys, "hv").unlink()
    make_keys(keys, ["hv"])
    assert read_key(public_path(keys, "hv"), "hv") == (made.public.encode(), None)


def test_halves_of_two_pairs_are_told_with_what_to_do(keys: Path) -> None:
    """Something was copied to where it does not belong; it is not guessed what."""
    make_keys(keys, ["a", "b"])
    public_path(keys, "a").write_bytes(public_path(keys, "b").read_bytes())
    with pytest.raises(ConfigError, match=r"public/a\.key: is not the public half .*; .*'iovirt keys --renew a'"):
        make_keys(keys, ["a"])


def test_interrupted_making_leaves_no_half_file(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either a pair's secret is there, whole, or nothing of it is; the next run makes the rest."""

    def torn(scratch: Path, name: str) -> tuple[str, str]:
        (scratch / f"{name}.key_secret").write_text("curve\n")
        raise OSError(28, "No space left on device", str(scratch))

    make_keys(keys, ["a"])
    with monkeypatch.context() as patch:
        patch.setattr(keyring, "create_certificates", torn)
        with pytest.raises(LocalError, match="keys cannot be written: No space left"):
            make_keys(keys, ["a", "b"])
    assert [key.state for key in list_keys(keys, ["a", "b"])] == [KeyState.KEPT, KeyState.ABSENT]
    assert [path.name for path in (keys / "private").iterdir()] == ["a.key_secret"]
    assert make_keys(keys, ["b"])[0].state is KeyState.MADE


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """What, where, what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match=r"file.*: keys cannot be written: .*; choose another folder"):
        make_keys(tmp_path / "file" / "keys", ["a"])


def test_listing_tells_and_changes_nothing(keys: Path) -> None:
    """Also where there is no folder yet."""
    assert list_keys(keys, ["a"]) == [Key("a", KeyState.ABSENT, "")]
    assert not keys.exists()
