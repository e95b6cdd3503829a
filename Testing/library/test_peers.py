"""The published networks beside ours: parameter counts of many plans, twins without Mamba, sizes that weights fix."""

import pytest
import torch

from MambaSegLib.networks import create
from MambaSegLib.networks.macs import count_variant
from MambaSegLib.networks.vmamba import VMamba

WIDTHS_3D = (32, 64, 128, 256, 320, 320)
FLAT = (1, 2, 2)
SYNAPSE = {"strides": (1, FLAT, 2, 2, 2, FLAT), "kernels": ((1, 3, 3), 3, 3, 3, 3, 3)}
ACDC_2D = {"features": (32, 64, 128, 256, 512, 512), "strides": (1, 2, 2, 2, 2, 2), "kernels": (3,) * 6}
EIGHT = {"features": (32, 64, 128, 256, 512, 512, 512, 512), "strides": (1, *(2,) * 7), "kernels": (3,) * 8}
TOOTH = {
    "features": (*WIDTHS_3D, 320),
    "strides": (1, 2, 2, 2, 2, 2, FLAT),
    "kernels": (3,) * 7,
    "blocks": (1, 3, 4, 6, 6, 6, 6),
}
COUNTS = [  # (network, hyper, in, out, parameters), measured on the authors' code
    ("umamba_bot", SYNAPSE, 1, 14, 41_945_158),
    ("umamba_enc", {**SYNAPSE, "patch": (48, 192, 192)}, 1, 14, 42_859_142),
    ("umamba_enc", {**SYNAPSE, "patch": (40, 224, 192)}, 1, 14, 42_842_798),
    ("umamba_bot_2d", ACDC_2D, 1, 4, 28_760_276),
    ("umamba_enc_2d", {**ACDC_2D, "patch": (256, 224)}, 1, 4, 27_561_556),
    ("umamba_enc_2d", {**ACDC_2D, "patch": (192, 160)}, 4, 4, 27_545_532),
    ("umamba_enc_2d", {"patch": (512, 448)}, 1, 14, 47_685_716),
    ("umamba_bot_2d", EIGHT, 3, 3, 64_797_301),
    ("umamba_enc_2d", {**EIGHT, "patch": (512, 512)}, 3, 3, 64_014_261),
    ("umamba_adj", SYNAPSE, 1, 14, 103_806_790),
    ("umamba_bot_resenc", SYNAPSE, 1, 14, 102_543_174),
    ("umamba2_bot", SYNAPSE, 1, 14, 102_509_598),
    ("umamba2_bot", TOOTH, 1, 2, 142_122_276),
    ("umamba2_bot", TOOTH, 1, 46, 142_171_820),
    ("resenc_unet", SYNAPSE, 1, 14, 101_867_334),
    ("plain_unet", SYNAPSE, 1, 14, 30_713_158),
    ("swin_umamba", {}, 3, 9, 59_891_412),
    ("swin_umamba_d", {}, 3, 9, 27_496_932),
    ("vm_unet", {}, 3, 1, 27_427_561),
    ("vm_unet", {}, 1, 1, 27_427_561),
    ("ultralight_vm_unet", {}, 3, 9, 49_529),
    ("segmamba", {}, 1, 2, 67_362_674),
    ("segmamba", {}, 1, 14, 67_363_262),
]


@pytest.mark.parametrize("name, hyper, in_channels, out_channels, count", COUNTS)
def test_parameter_counts_of_the_authors_plans(name, hyper, in_channels, out_channels, count):
    with torch.device("meta"):
        network = create(name, in_channels, out_channels, **hyper)
    assert sum(p.numel() for p in network.parameters()) == count


COSTS = [  # (network, in, out, size, GMAC of convolutions and products, GMAC of the scans by VMamba's rule): as above
    ("umamba_bot", 4, 4, (128, 128, 128), 975.6, 0.006),
    ("umamba_enc", 4, 4, (128, 128, 128), 1007.5, 26.1),
    ("umamba_enc_2d", 1, 14, (320, 320), 43.1, 1.26),
    ("umamba_adj", 4, 4, (128, 128, 128), 736.7, 6.5),
    ("swin_umamba", 1, 14, (320, 320), 63.7, 3.9),
    ("swin_umamba_d", 1, 14, (320, 320), 12.3, 6.4),
    ("vm_unet", 3, 9, (224, 224), 4.06, 2.27),
    ("mamba_unet", 3, 4, (224, 224), 4.45, 2.53),
    ("ultralight_vm_unet", 3, 1, (256, 256), 0.066, 0.015),
    ("lightm_unet", 1, 3, (128, 128, 128), 154.5, 91.9),
    ("segmamba", 4, 4, (128, 128, 128), 1468.7, 29.3),
    ("nnmamba", 1, 16, (128, 128, 128), 151.0, 6.4),
    ("plain_unet", 1, 14, (128, 128, 128), 478.0, 0.0),
    ("resenc_unet", 4, 4, (128, 128, 128), 723.0, 0.0),
]


@pytest.mark.parametrize("name, in_channels, out_channels, size, products, scans", COSTS)
def test_costs_are_those_of_the_authors_networks(name, in_channels, out_channels, size, products, scans):
    macs = count_variant(name, in_channels, out_channels, size)
    assert (macs.conv + macs.linear + macs.einsum) / 1e9 == pytest.approx(products, rel=0.005)
    assert macs.scan / 1e9 == pytest.approx(scans, rel=0.01, abs=0.0005)


TWINS = ("umamba_bot_test", "umamba_enc_test", "umamba_adj_test", "umamba2_bot_test", "segmamba_test", "nnmamba_test")


@pytest.mark.parametrize("name", TWINS)
def test_twin_without_mamba(name):
    """The same network less its Mamba parts: no scan left, every other weight under the same name."""
    torch.manual_seed(0)
    whole, twin = create(name, 1, 2), create(name, 1, 2, mamba=False)
    shapes, own = ({k: v.shape for k, v in n.state_dict().items()} for n in (whole, twin))
    assert own.items() <= shapes.items()
    left_out = shapes.keys() - own.keys()
    assert any("A_log" in key for key in left_out)
    assert all("mamba" in key or key.startswith("vit.stages.") for key in left_out)
    assert not any("mamba" in key for key in own)
    assert twin.eval()(torch.randn(1, 1, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


def test_resenc_twin_is_nnunets_network():
    twin, plain = create("umamba_adj_test", 1, 2, mamba=False), create("resenc_unet_test", 1, 2)
    plain.load_state_dict(twin.state_dict())
    x = torch.randn(1, 1, 8, 8, 8)
    assert torch.equal(twin.eval()(x), plain.eval()(x))


def test_images_larger_than_the_patch_are_worked_off_patch_by_patch():
    torch.manual_seed(0)
    network = create("umamba_enc_test", 1, 2).eval()
    x = torch.randn(2, 1, 16, 8, 24)
    scales = network.forward_multiscale(x)
    for d in (0, 8):
        for w in (0, 8, 16):
            alone = network.forward_multiscale(x[:, :, d : d + 8, :, w : w + 8])
            for i, scale in enumerate(2**n for n in range(len(alone))):
                depth, width, step = d // scale, w // scale, 8 // scale
                part = scales[i][:, :, depth : depth + step, :, width : width + step]
                torch.testing.assert_close(part, alone[i], rtol=1e-4, atol=1e-5)


def test_one_channel_stands_for_three():
    """VM-UNet and Mamba-UNet repeat a grey image, so the same weights serve both."""
    for name in ("vm_unet_test", "mamba_unet_test"):
        torch.manual_seed(0)
        grey, colour = create(name, 1, 2).eval(), create(name, 3, 2).eval()
        colour.load_state_dict(grey.state_dict())
        x = torch.randn(1, 1, 32, 64)
        torch.testing.assert_close(grey(x), colour(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("size", [(16, 16, 16), (32, 16, 48), (32, 32, 16)])
def test_segmamba_pads_only_where_its_slices_do_not_divide(size):
    network = create("segmamba_test", 1, 2)
    padded = network.pad(torch.zeros(1, 1, *size)).shape[2:]
    coarsest = (padded[0] // 16) * (padded[1] // 16) * (padded[2] // 16)
    assert coarsest % 8 == 0
    assert network.pad(torch.zeros(1, 1, 64, 64, 32)).shape[2:] == (64, 64, 32)


@pytest.mark.parametrize("generation", ["v0", "s1l8", "s2l5"])
def test_imagenet_weights_of_vmamba_load(generation):
    """Also with linear maps stored as 1x1 convolutions, as some of the authors' files have them."""
    torch.manual_seed(0)
    hyper = {"generation": generation, "depths": (1, 1, 1, 1), "width": 8}
    source, segmenter = VMamba(3, **hyper), create("vmamba_test", 3, 2, **hyper)
    state = {"classifier.head.weight": torch.zeros(10, 64), **source.state_dict()}
    state = {k: v[..., None, None] if k.endswith("_proj.weight") else v for k, v in state.items()}
    segmenter.load_encoder(state, "vmamba.pth")
    x = torch.randn(1, 3, 32, 32)
    for a, b in zip(source.eval()(x), segmenter.eval().backbone(x), strict=True):
        assert torch.equal(a, b)
