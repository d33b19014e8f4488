"""What ``iovirt nbd`` makes of its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.cli.nbd import AdHocGateway, topology_text
from iovirt_dist.topology import BlockSpec, NbdSpec, Origin, topology_from_text


def test_options_become_a_topology_with_one_gateway(tmp_path: Path) -> None:
    """Image, size, limits and address are where they belong; the image is written back."""
    options = AdHocGateway(
        image="/srv/a.img", disk_size="8MiB", read_only=True, port=10809, export="a", iops=100, bandwidth="2MiB"
    )

    topology = topology_from_text(topology_text(options, tmp_path / "run"), Origin("options", None, tmp_path))

    disk, gateway = topology.controller("disk0"), topology.guest("nbd")
    assert isinstance(disk, BlockSpec)
    assert isinstance(gateway, NbdSpec)
    assert (disk.image, disk.size_bytes, disk.extents[0].read_only) == (Path("/srv/a.img"), 8 << 20, True)
    assert (gateway.uri, gateway.qos["disk"].iops, gateway.qos["disk"].bandwidth) == (
        "nbd://127.0.0.1:10809/a",
        100,
        2 << 20,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no.img"], "--disk-size: {here}/no.img does not exist and no size is given; add --disk-size 16MiB"),
        (["no.img", "--disk-size", "5q"], '--disk-size: expected a size such as 512, "64KiB" or "1GiB", got "5q"'),
        (["new.img", "--disk-size", "1MiB", "--bandwidth", "x"], '--bandwidth: expected a size such as 512, "64KiB"'),
        (
            ["new.img", "--disk-size", "1MiB", "--socket", "s", "--port", "5"],
            "--port: a gateway has a socket or a port",
        ),
    ],
)
def test_option_that_is_wrong_is_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the words of the options."""
    monkeypatch.chdir(tmp_path)

    code = main(["nbd", *options])

    assert code == 2
    assert capsys.readouterr().err.startswith(f"iovirt: error: iovirt nbd: {message.format(here=tmp_path)}")


@pytest.mark.parametrize("option", ["--port", "--iops"])
def test_number_out_of_range_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    assert main(["nbd", "a.img", option, "0"]) == 2
    assert option in capsys.readouterr().err
