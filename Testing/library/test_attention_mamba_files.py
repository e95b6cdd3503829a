"""Attention-Mamba and files of others: the authors' names and outputs, ImageNet weights of the backbone."""

import zlib

import numpy as np
import pytest
import torch

from MambaSegLib.checkpoint_import import import_checkpoint
from MambaSegLib.errors import UserError
from MambaSegLib.networks import create, spec
from MambaSegLib.networks.attention_mamba import DeepStemResNet
from MambaSegLib.networks.weights import load_encoder, load_strictly, read_weights


def authors_manifest(classes, width=128, states=16):
    """Names and shapes of the authors' state dict, from the key list of the specification."""
    shapes = {"layer0.0.0.weight": (64, 3, 3, 3), "layer0.0.3.weight": (64, 64, 3, 3)}
    shapes["layer0.0.6.weight"] = (128, 64, 3, 3)
    norms = {"layer0.0.1": 64, "layer0.0.4": 64, "layer0.1": 128}
    before = 128
    for level, out in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"layer{level}.0.{block}"
            shapes[f"{name}.conv1.weight"] = (out, before if block == 0 else out, 3, 3)
            shapes[f"{name}.conv2.weight"] = (out, out, 3, 3)
            norms |= {f"{name}.bn1": out, f"{name}.bn2": out}
        shapes[f"layer{level}.0.0.downsample.0.weight"] = (out, before, 1, 1)
        norms[f"layer{level}.0.0.downsample.1"] = out
        shapes[f"channel_changes.{level - 1}.0.weight"] = (width, out, 1, 1)
        norms[f"channel_changes.{level - 1}.1"] = width
        before = out
    for group, count in (("feature_fuses_up", 3), ("feature_fuses_down", 3), ("stage_fuses", 2)):
        for i in range(count):
            shapes[f"{group}.{i}.0.weight"] = (width, width, 3, 3)
            norms[f"{group}.{i}.1"] = width
    for name, n in norms.items():
        shapes |= {f"{name}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.num_batches_tracked"] = ()
    for i in range(3):
        shapes[f"stages_offset.{i}.channel_change1.weight"] = (width // 2, width, 1, 1)
        shapes[f"stages_offset.{i}.channel_change2.weight"] = (width // 2, width, 1, 1)
        shapes[f"stages_offset.{i}.offset_map.weight"] = (2, width, 3, 3)
    return shapes | authors_heads(classes, width) | authors_branches(width, states) | authors_attention(classes, width)


def authors_heads(classes, width):
    shapes = {}
    for i in range(4):
        for group in ("in_deep_sup_heads", "multi_loss_head"):
            shapes[f"{group}.{i}.0.weight"], shapes[f"{group}.{i}.0.bias"] = (classes, width, 1, 1), (classes,)
    return shapes


def authors_branches(width, states):
    inner, rank, shapes = 2 * width, width // 16, {}
    for name in (f"mamba_branches.{i}.blocks.{j}" for i in range(4) for j in range(2)):
        scan = f"{name}.self_attention"
        shapes |= {f"{name}.ln_1.weight": (width,), f"{name}.ln_1.bias": (width,)}
        shapes |= {f"{scan}.in_proj.weight": (2 * inner, width), f"{scan}.out_proj.weight": (width, inner)}
        shapes |= {f"{scan}.conv2d.weight": (inner, 1, 3, 3), f"{scan}.conv2d.bias": (inner,)}
        shapes |= {f"{scan}.x_proj_weight": (4, rank + 2 * states, inner), f"{scan}.dt_projs_bias": (4, inner)}
        shapes |= {f"{scan}.dt_projs_weight": (4, inner, rank), f"{scan}.A_logs": (4 * inner, states)}
        shapes |= {f"{scan}.Ds": (4 * inner,), f"{scan}.out_norm.weight": (inner,), f"{scan}.out_norm.bias": (inner,)}
    return shapes


def authors_attention(classes, width):
    root = "multi_scale_attentions"
    shapes = {f"{root}.fc1_channel.weight": (width // 16, 4 * width, 1, 1)}
    shapes |= {f"{root}.fc2_channel.weight": (4 * classes, width // 16, 1, 1)}
    shapes |= {f"{root}.fc_spatial.weight": (1, 2), f"{root}.fc_spatial.bias": (1,)}
    for kind, d in (("channel", 1), ("spatial", 2)):
        for mixer in (f"{root}.{kind}_relation", f"{root}.{kind}_relation_reverse"):
            shapes |= {f"{mixer}.in_proj.weight": (4 * d, d), f"{mixer}.out_proj.weight": (d, 2 * d)}
            shapes |= {f"{mixer}.conv1d.weight": (2 * d, 1, 4), f"{mixer}.conv1d.bias": (2 * d,)}
            shapes |= {f"{mixer}.x_proj.weight": (33, 2 * d), f"{mixer}.dt_proj.weight": (2 * d, 1)}
            shapes |= {f"{mixer}.dt_proj.bias": (2 * d,), f"{mixer}.A_log": (2 * d, 16), f"{mixer}.D": (2 * d,)}
    return shapes


def weights_from_names(manifest):
    """Weights that follow from the parameters' names, of the size that training gives them."""
    weights = {}
    for key, shape in manifest.items():
        kind = key.rpartition(".")[2]
        noise = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).random(shape) * 2 - 1
        tensor = torch.from_numpy(np.asarray(noise))
        if kind in ("A_log", "A_logs"):
            tensor = torch.log(torch.arange(1.0, 17.0)) + 0.1 * tensor
        elif key.endswith(("dt_proj.bias", "dt_projs_bias")):
            tensor = 0.1 * tensor - 3
        elif kind in ("weight", "running_var", "D", "Ds") and len(shape) == 1:
            tensor = 1 + 0.1 * tensor
        elif len(shape) > 1:
            tensor = tensor * (3 / tensor[0].numel()) ** 0.5
        else:
            tensor = 0.1 * tensor
        weights[key] = tensor.long() if kind == "num_batches_tracked" else tensor.float()
    return weights


# Mean absolute value and element [0, 1, 30, 40] of the nine outputs of the authors' layers, transcribed with a scan
# step by step, for four classes and the image below: fused, branches, before the branches.
AUTHORS = [
    (0.533482, -0.123241),
    (0.819886, -0.927345),
    (0.892207, -0.721799),
    (0.547209, -0.926185),
    (0.527288, 1.136120),
    (0.171782, -0.035823),
    (0.215914, -0.077006),
    (0.221614, 0.296460),
    (0.148011, 0.128551),
]


def test_outputs_are_those_of_the_authors():
    network = create("attention_mamba", 1, 4).eval()
    network.load_state_dict(spec("attention_mamba").rename_upstream_keys(weights_from_names(authors_manifest(4))))
    x = torch.sin(0.05 * torch.arange(64 * 72, dtype=torch.float64)).view(1, 1, 64, 72).float()
    with torch.no_grad():
        outputs = network.forward_multiscale(x)
    for output, (mean, element) in zip(outputs, AUTHORS, strict=True):
        assert output.abs().mean().item() == pytest.approx(mean, abs=1e-4)
        assert output[0, 1, 30, 40].item() == pytest.approx(element, abs=1e-4)


def authors_file(path, classes, drop=()):
    """A checkpoint in the authors' naming, wrapped and littered as theirs are."""
    generator = torch.Generator().manual_seed(0)
    manifest = authors_manifest(classes)
    weights = {k: torch.rand(s, generator=generator) for k, s in manifest.items() if k not in drop}
    wrapped = {f"module.{k}": v for k, v in weights.items()}
    torch.save(wrapped | {"module.layer0.total_ops": torch.zeros(1), "module.total_params": torch.zeros(1)}, path)
    return weights


def test_the_authors_checkpoint_loads_completely(tmp_path):
    weights = authors_file(tmp_path / "best.pth", 4)
    trainable = [k for k in weights if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert sum(weights[k].numel() for k in trainable) == 14_049_483
    network = create("attention_mamba", 1, 4)
    load_strictly(
        network, spec("attention_mamba").rename_upstream_keys(read_weights(tmp_path / "best.pth")), "best.pth"
    )
    places = {
        "layer0.0.3.weight": network.backbone.conv1[3].weight,
        "layer3.0.1.bn2.running_var": network.backbone.layer3[1].bn2.running_var,
        "feature_fuses_up.2.0.weight": network.top_down[2][0].weight,
        "feature_fuses_down.0.1.bias": network.bottom_up[0][1].bias,
        "stages_offset.1.channel_change1.weight": network.flows[1].coarse.weight,
        "stages_offset.1.channel_change2.weight": network.flows[1].fine.weight,
        "in_deep_sup_heads.2.0.bias": network.early_heads[2].bias,
        "multi_loss_head.2.0.bias": network.heads[2].bias,
        "mamba_branches.3.blocks.1.self_attention.A_logs": network.branches[3][1].self_attention.A_logs,
        "multi_scale_attentions.channel_relation.A_log": network.attention.channel_relation.forwards.A_log,
        "multi_scale_attentions.channel_relation_reverse.D": network.attention.channel_relation.backwards.D,
        "multi_scale_attentions.spatial_relation.D": network.attention.pixel_relation.forwards.D,
        "multi_scale_attentions.fc_spatial.weight": network.attention.weigh.weight,
    }
    assert [k for k, place in places.items() if not torch.equal(place, weights[k])] == []


def test_the_authors_checkpoint_is_recognised(tmp_path):
    authors_file(tmp_path / "best.pth", 4)
    imported = import_checkpoint(tmp_path / "best.pth", in_channels=1, trust=True)
    assert (imported.name, imported.in_channels, imported.out_channels) == ("attention_mamba", 1, 4)


@pytest.mark.parametrize("fault", ["one missing", "other classes"])
def test_half_a_checkpoint_is_refused(fault, tmp_path):
    drop = ("stages_offset.0.offset_map.weight",) if fault == "one missing" else ()
    authors_file(tmp_path / "best.pth", 4, drop)
    with torch.device("meta"):
        network = create("attention_mamba", 1, 4 if drop else 9)
    state = spec("attention_mamba").rename_upstream_keys(read_weights(tmp_path / "best.pth"))
    with pytest.raises(UserError, match=r"flows\.0\.flow\.weight is missing" if drop else "instead of"):
        load_strictly(network, state, "best.pth")


def test_imagenet_weights_of_the_backbone(tmp_path):
    torch.manual_seed(3)
    source = DeepStemResNet(3, (4, 4, 8, 8))
    torch.save(
        source.state_dict() | {"fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}, tmp_path / "r.pth"
    )
    network = create("attention_mamba_test", 1, 3)
    assert load_encoder(network, tmp_path / "r.pth") == []
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in network.backbone.state_dict().items())


def test_torchvisions_resnet_fills_what_it_has(tmp_path):
    """Its stem is one 7x7 convolution of half the width: stem and entry of level 1 stay fresh, and are named."""
    source = DeepStemResNet(3, (4, 4, 8, 8)).state_dict()
    stem = ("conv1.", "bn1.", "layer1.0.conv1.", "layer1.0.downsample.")
    plain = {k: torch.full_like(v, 7) for k, v in source.items() if not k.startswith(stem)}
    plain |= {"conv1.weight": torch.ones(4, 3, 7, 7), "layer1.0.conv1.weight": torch.ones(4, 4, 3, 3)}
    plain |= {f"bn1.{part}": torch.ones(4) for part in ("weight", "bias", "running_mean", "running_var")}
    torch.save(plain | {"fc.weight": torch.zeros(1000, 8)}, tmp_path / "resnet18.pth")
    network = create("attention_mamba_test", 1, 3)
    remarks = load_encoder(network, tmp_path / "resnet18.pth")
    assert {remark.split(" starts fresh")[0] for remark in remarks} == {k for k in source if k.startswith(stem)}
    assert (network.backbone.layer4[1].conv2.weight == 7).all() and (network.backbone.layer1[0].bn1.bias == 7).all()
    assert not (network.backbone.layer1[0].conv1.weight == 1).any()
