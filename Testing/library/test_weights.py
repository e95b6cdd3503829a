"""Files with weights that others wrote: what is understood, and what is refused."""

import zipfile

import numpy as np
import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.networks.weights import load_strictly, read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def equal(read):
    return read.keys() == WEIGHTS.keys() and all(torch.equal(read[k], v) for k, v in WEIGHTS.items())


@pytest.mark.parametrize("container", ["network_weights", "model", "state_dict", "model_state_dict"])
def test_containers_prefixes_and_counters_are_taken_off(container, tmp_path):
    wrapped = {f"module._orig_mod.{k}": v for k, v in WEIGHTS.items()}
    wrapped |= {"module.a.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    torch.save({container: wrapped, "epoch": 3}, tmp_path / "net.pth")
    assert equal(read_weights(tmp_path / "net.pth"))


@pytest.mark.parametrize("numpy", [1, 2])
def test_numbers_of_both_numpys_in_nnunet_files(numpy, tmp_path):
    """nnU-Net keeps numpy numbers in its logs; their module has another name since numpy 2."""
    content = {
        "network_weights": WEIGHTS,
        "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.7)], "epochs": [np.int64(1)]},
        "_best_ema": np.float64(0.8),
        "init_args": {"device": torch.device("cpu")},
    }
    torch.save(content, tmp_path / "saved.pth")
    names = {1: b"numpy.core.multiarray", 2: b"numpy._core.multiarray"}
    with zipfile.ZipFile(tmp_path / "saved.pth") as old, zipfile.ZipFile(tmp_path / "net.pth", "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("data.pkl"):
                data = data.replace(names[2], names[1]) if numpy == 1 else data.replace(names[1], names[2])
                assert names[numpy] in data
            new.writestr(entry, data)
    assert equal(read_weights(tmp_path / "net.pth"))


class Malice:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    torch.save({"network_weights": WEIGHTS, "logging": Malice()}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="could run code"):
        read_weights(tmp_path / "net.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half a file"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_rubbish_is_refused(content, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="net"):
        read_weights(path)


def test_missing_files_and_files_without_weights(tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        read_weights(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="named tensors"):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "change,complaint",
    [
        (lambda w: w.pop("bias"), "bias is missing"),
        (lambda w: w.update(other=torch.ones(1)), "other has no place"),
        (lambda w: w.update(weight=torch.ones(3, 3)), r"weight is \(3, 3\) instead of \(2, 3\)"),
    ],
)
def test_weights_fit_or_nothing_changes(change, complaint):
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.clone()
    weights = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    change(weights)
    with pytest.raises(UserError, match=complaint):
        load_strictly(layer, weights, "net.pth")
    assert torch.equal(layer.weight, before)
