"""``mambaseg networks``: what is printed comes from the registry and from what was measured."""

import json

import pytest

from MambaSegLib import cli, cli_networks
from MambaSegLib.networks import names, spec


def printed(capsys, *arguments) -> str:
    capsys.readouterr()
    assert cli.main(["networks", *arguments]) == 0
    return capsys.readouterr().out


@pytest.fixture
def one_measured(monkeypatch):
    """Only VM-UNet was measured."""
    row = {"size": [224, 224], "macs": 6333164544, "cpu_seconds": 1.25, "peak_memory_mb": 181}
    monkeypatch.setattr(cli_networks, "measured", lambda name: row if name == "vm_unet" else {})


def test_the_list_has_every_network_and_dashes_where_nothing_was_measured(one_measured, capsys):
    rows = {line.split()[0]: line for line in printed(capsys).splitlines() if line.strip()}
    assert {name for name in names() if name in rows} == {name for name in names() if not name.endswith("_test")}
    for text in ("27.43 M", "6.3 G (224x224)", "1.25 s", "181 MB", "Synapse", "Apache-2.0"):
        assert text in rows["vm_unet"]
    assert rows["segmamba"].split()[4:7] == ["-", "-", "-"]


def test_lines_of_the_list_begin_with_the_name_and_fit_a_wide_terminal(capsys):
    lines = printed(capsys).splitlines()
    assert {name for name in names() if not name.endswith("_test")} <= {line.split(" ")[0] for line in lines}
    assert max(map(len, lines)) <= 160


def test_a_card_tells_all(one_measured, capsys):
    card = printed(capsys, "vm_unet")
    entry = spec("vm_unet")
    for text in (entry.paper, entry.url, entry.licence, "27,427,761", "1.25 CPU seconds", "mambaseg import"):
        assert text in card
    assert "4.063 G in layers" in card and "6.333 G with scans" in card  # both conventions
    for figure in entry.figures:
        assert figure.source in card and figure.dataset in card


def test_json_has_the_same(capsys):
    facts = json.loads(printed(capsys, "deco_mamba_v0", "--json"))
    assert facts["parameters"] == [3, 9, 9_668_745]
    assert facts["macs"]["layers"] == pytest.approx(9.727e9, rel=1e-4)
    assert {item["name"] for item in json.loads(printed(capsys, "--json"))} == set(names())


def test_an_unknown_network(capsys):
    assert cli.main(["networks", "vm_unett"]) == 2
    assert "Did you mean vm_unet" in capsys.readouterr().err


def test_what_the_benchmark_wrote_can_be_read():
    for name in names():
        row = cli_networks.measured(name)
        assert not row or {"size", "macs", "cpu_seconds", "peak_memory_mb"} <= row.keys()
