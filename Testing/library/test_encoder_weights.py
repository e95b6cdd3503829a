"""ImageNet weights of VMamba, in files made here in the authors' naming, as the start of the segmenters on it."""

import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.networks import create
from MambaSegLib.networks.vmamba import VMamba
from MambaSegLib.networks.weights import load_encoder

TOY = {"width": 8, "depths": (1, 1, 1, 1), "states": 2}
FIRST_NAMES = (("patch_embed.0.", "patch_embed.proj."), ("patch_embed.2.", "patch_embed.norm."))


def first_name(key: str) -> str:
    """The name that a tensor of today's code has in the file of January 2024."""
    for new, old in FIRST_NAMES:
        key = key.replace(new, old)
    if ".blocks." in key:
        key = key.replace(".norm.", ".ln_1.").replace(".op.", ".self_attention.")
    return key


def imagenet_file(path, names="first", **hyper):
    """A file as the authors write it, with its classifier; returns the backbone it is of."""
    torch.manual_seed(5)
    source = VMamba(3, generation="v0", **{**TOY, **hyper})
    head = "" if names == "first" else "classifier."
    state = {first_name(k) if names == "first" else k: t for k, t in source.state_dict().items()}
    state |= {f"{head}norm.weight": torch.ones(64), f"{head}head.weight": torch.zeros(10, 64)}
    torch.save({"model": state, "epoch": 292}, path)
    return source


@pytest.mark.parametrize("names", ["first", "today"])
@pytest.mark.parametrize("name", ["swin_umamba_d_test", "vm_unet_test", "mamba_unet_test"])
def test_the_encoder_is_vmambas(name, names, tmp_path):
    source = imagenet_file(tmp_path / "vmamba.pth", names)
    network = create(name, 3, 2)
    assert load_encoder(network, tmp_path / "vmamba.pth") == []
    part = network.vssm_encoder if name.startswith("swin") else network
    for level, stage in enumerate(source.layers):
        for key, tensor in stage.blocks.state_dict().items():
            own = part.layers[level].blocks.state_dict()[first_name("." + "blocks." + key)[len(".blocks.") :]]
            assert torch.equal(own, tensor), key
    assert torch.equal(part.patch_embed.proj.weight, source.patch_embed[0].weight)
    merging = part.downsamples[2] if name.startswith("swin") else part.layers[2].downsample
    assert torch.equal(merging.reduction.weight, source.layers[2].downsample.reduction.weight)


def test_the_decoder_starts_as_its_mirror_image(tmp_path):
    """As VM-UNet's authors do: level i of the encoder is also level i of the decoder."""
    source = imagenet_file(tmp_path / "vmamba.pth")
    network = create("vm_unet_test", 3, 2)
    load_encoder(network, tmp_path / "vmamba.pth")
    for i in range(4):
        own = network.layers_up[i].blocks[0].self_attention.in_proj.weight
        assert torch.equal(own, source.layers[3 - i].blocks[0].op.in_proj.weight)


def test_another_stem_stays_fresh_and_is_told(tmp_path):
    imagenet_file(tmp_path / "vmamba.pth")
    network = create("swin_umamba_test", 1, 2)
    before = network.vssm_encoder.patch_embed.proj.weight.clone()
    remarks = load_encoder(network, tmp_path / "vmamba.pth")
    assert len(remarks) == 1 and "patch_embed" in remarks[0]
    assert torch.equal(network.vssm_encoder.patch_embed.proj.weight, before)


def test_blocks_without_a_place_are_told(tmp_path):
    imagenet_file(tmp_path / "vmamba.pth", depths=(1, 1, 3, 1))
    remarks = load_encoder(create("vm_unet_test", 1, 2), tmp_path / "vmamba.pth")
    assert remarks == ["2 blocks of vmamba.pth without a place: this network has fewer per level."]


@pytest.mark.parametrize("hyper", [{"width": 16}, {"states": 4}])
def test_weights_that_do_not_fit_change_nothing(hyper, tmp_path):
    imagenet_file(tmp_path / "vmamba.pth", **hyper)
    network = create("vm_unet_test", 3, 2)
    before = {k: t.clone() for k, t in network.state_dict().items()}
    with pytest.raises(UserError, match="instead of"):
        load_encoder(network, tmp_path / "vmamba.pth")
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())


def test_an_incomplete_encoder_is_refused(tmp_path):
    imagenet_file(tmp_path / "vmamba.pth", depths=(1, 1, 1))
    with pytest.raises(UserError, match=r"layers\.3\.blocks"):
        load_encoder(create("vm_unet_test", 3, 2), tmp_path / "vmamba.pth")


def test_a_network_without_pretraining_says_which_have_one(tmp_path):
    imagenet_file(tmp_path / "vmamba.pth")
    with pytest.raises(UserError, match="no encoder with ImageNet weights") as error:
        load_encoder(create("segmamba_test", 1, 2), tmp_path / "vmamba.pth")
    assert "swin_umamba" in error.value.hint
