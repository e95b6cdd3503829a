"""The encoders of Deco-Mamba: timm 1.0.31's outputs for weights that a formula gives, its and others' names."""

import re

import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.networks import create
from MambaSegLib.networks.pvt_v2 import VARIANTS, PVTv2, rename_original_keys
from MambaSegLib.networks.swin import SwinTransformer, rename_keys
from MambaSegLib.networks.weights import load_encoder

# Mean absolute value and element [0, 1, 0, 1] of timm's four features.
TIMM = {
    "pvt_v2_b0": [(0.818621, -0.284983), (0.840171, 0.385481), (0.803832, 1.455106), (0.811275, 0.016155)],
    "pvt_v2_b2": [(0.841397, 0.995929), (0.842227, 1.146712), (0.820119, -0.614585), (0.812284, -0.015493)],
    "swin_t": [(1.149372, 1.2769), (1.229923, 0.330795), (5.154864, 1.731236), (2.690304, -2.653043)],
}


def fill(network):
    """A sine wave per parameter, its phase the place of the name in the alphabet."""
    state = network.state_dict()
    for place, key in enumerate(sorted(state)):
        tensor = state[key]
        wave = torch.sin(0.7 * torch.arange(tensor.numel(), dtype=torch.float64) + place).view(tensor.shape)
        scale = tensor.shape[1:].numel() ** -0.5 if tensor.dim() > 1 else 0.1
        tensor.copy_(wave * scale + (1 if "norm" in key and key.endswith("weight") else 0))


@pytest.mark.parametrize(
    "name,build,size",
    [
        ("pvt_v2_b0", lambda: PVTv2(3, **VARIANTS["pvt_v2_b0"]), (64, 96)),
        ("pvt_v2_b2", lambda: PVTv2(3, **VARIANTS["pvt_v2_b2"]), (64, 96)),
        ("swin_t", lambda: SwinTransformer(3), (224, 224)),
    ],
)
def test_features_are_those_of_timm(name, build, size):
    network = build().eval()
    fill(network)
    x = torch.sin(0.05 * torch.arange(3 * size[0] * size[1], dtype=torch.float64)).view(1, 3, *size).float()
    with torch.no_grad():
        features = network(x)
    for i, (feature, (mean, element)) in enumerate(zip(features, TIMM[name], strict=True)):
        assert feature.shape == (1, network.widths[i], size[0] // 2 ** (i + 2), size[1] // 2 ** (i + 2))
        assert feature.abs().mean().item() == pytest.approx(mean, abs=2e-5)
        assert feature[0, 1, 0, 1].item() == pytest.approx(element, abs=1e-4)


@pytest.mark.parametrize("name,count", [("pvt_v2_b0", 3_409_760), ("pvt_v2_b2", 24_849_856)])
def test_parameter_counts_without_the_classifier(name, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in PVTv2(3, **VARIANTS[name]).parameters()) == count


def original_name(key):
    """Ours -> the authors', which number stages from 1 and hold the patches outside."""
    key = re.sub(r"^patch_embed\.", "patch_embed1.", key)
    key = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"patch_embed{int(m[1]) + 1}.", key)
    key = re.sub(r"^stages\.(\d)\.blocks\.", lambda m: f"block{int(m[1]) + 1}.", key)
    key = re.sub(r"^stages\.(\d)\.norm\.", lambda m: f"norm{int(m[1]) + 1}.", key)
    return key.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")


NAMINGS = {
    "timm": lambda key: key,
    "features_only": lambda key: key.replace("stages.", "stages_", 1),
    "authors": original_name,
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_all_namings_arrive_at_the_same_weights(naming):
    torch.manual_seed(1)
    state = PVTv2(3, **VARIANTS["pvt_v2_test"]).state_dict()
    foreign = {NAMINGS[naming](k): v for k, v in state.items()} | {"head.weight": torch.zeros(1000, 8)}
    renamed = rename_original_keys(foreign)
    assert renamed.keys() == state.keys()
    assert all(torch.equal(renamed[k], v) for k, v in state.items())


def test_names_that_the_authors_files_have():
    names = {original_name(k) for k in PVTv2(3, **VARIANTS["pvt_v2_test"]).state_dict()}
    assert {
        "patch_embed1.proj.weight",
        "patch_embed4.norm.bias",
        "block1.0.attn.sr.weight",
        "block1.0.attn.norm.weight",
        "block3.0.attn.kv.bias",
        "block4.0.mlp.dwconv.dwconv.weight",
        "norm4.weight",
    } <= names


def test_swin_names_of_timm_and_of_the_authors():
    state = SwinTransformer(3, 6, (1, 1, 1, 1), (1, 1, 1, 1)).state_dict()
    later = {re.sub(r"^layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) + 1}.down", k): v for k, v in state.items()}
    extra = {"head.fc.weight": 0, "norm.weight": 0, "layers.0.blocks.0.attn.relative_position_index": 0}
    for foreign in (state, later):
        renamed = rename_keys(foreign | extra)
        assert renamed.keys() == state.keys() and all(renamed[k] is state[k] for k in state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_encoder_of_deco_mamba_loads_a_file(suffix, tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(2)
    source = PVTv2(3, **VARIANTS["pvt_v2_test"])
    weights = {original_name(k): v for k, v in source.state_dict().items()}
    path = tmp_path / f"pvt{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    network = create("deco_mamba_test", 1, 3)
    load_encoder(network, path)
    x = torch.randn(1, 3, 32, 64)
    assert all(torch.equal(a, b) for a, b in zip(source(x), network.encoder(x), strict=True))


def test_other_channels_see_a_grey_image_as_before(tmp_path):
    """Filters of colours are shared out over any number of channels, so that equal channels give equal answers."""
    source = PVTv2(3, **VARIANTS["pvt_v2_test"])
    with torch.no_grad():
        source.patch_embed.proj.weight.copy_(source.patch_embed.proj.weight.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    torch.save(source.state_dict(), tmp_path / "pvt.pth")
    network = create("deco_mamba_test", 5, 3)
    load_encoder(network, tmp_path / "pvt.pth")
    grey = torch.randn(1, 1, 32, 64)
    ours = network.encoder(grey.expand(-1, 5, -1, -1))
    assert torch.allclose(source(grey.expand(-1, 3, -1, -1))[3], ours[3], atol=1e-5)


def test_half_an_encoder_is_refused_and_changes_nothing(tmp_path):
    weights = PVTv2(3, **VARIANTS["pvt_v2_test"]).state_dict()
    weights.pop("stages.3.norm.weight")
    torch.save(weights, tmp_path / "pvt.pth")
    network = create("deco_mamba_test", 1, 3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(UserError, match=r"stages\.3\.norm\.weight is missing"):
        load_encoder(network, tmp_path / "pvt.pth")
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
