"""The job "devices": what torch can use, and a reason for everything else."""

import pytest

from MambaSegLib import devices
from MambaSegLib.job import Report, resolve

torch = pytest.importorskip("torch")


def test_the_job_tells_of_every_kind():
    found = resolve("devices")({}, Report())["devices"]
    assert found[0]["name"] == "cpu" and found[0]["usable"]
    assert {device["name"].split(":")[0] for device in found} == {"cpu", "cuda", "mps"}
    assert all(device["usable"] != bool(device["why_not"]) for device in found)


@pytest.mark.parametrize(("built", "reason"), [(None, "built without CUDA"), ("12.8", "driver")])
def test_why_there_is_no_cuda(monkeypatch, built, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    (cuda,) = (device for device in devices.found() if device.name == "cuda")
    assert not cuda.usable and reason in cuda.why_not


def test_two_cards_have_two_names(monkeypatch):
    card = type("Card", (), {"name": "Test card", "total_memory": 8 * 2**30})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert [d.name for d in devices.found() if d.usable][:3] == ["cpu", "cuda:0", "cuda:1"]
