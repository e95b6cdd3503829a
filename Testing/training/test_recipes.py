"""Every recipe: a configuration that reads, a network that is built, a loss that its family's toy learns from."""

from pathlib import Path

import pytest
import torch

import MambaSegTraining
from MambaSegLib.networks import create, spec
from MambaSegTraining.config import read_config
from MambaSegTraining.losses_partial import partial
from MambaSegTraining.mirroring import swap_of
from MambaSegTraining.optimisation import build_optimizer, learning_rate
from MambaSegTraining.supervision import check_levels, halving, loss_function
from MambaSegTraining.train import check_description, describe, new_run

RECIPES = sorted((Path(MambaSegTraining.__file__).parent / "recipes").glob("*.json"))
PAPERS = ("deco_mamba_synapse", "deco_mamba_acdc", "mm_unet_btcv", "mm_unet_amos", "attention_mamba_isic2018")


def toy_of(name: str) -> str:
    """The toy of a network's family."""
    families = ("attention_mamba", "deco_mamba", "mm_unet", "ultralight_vm_unet", "umamba_bot")
    return next(f"{family}_test" for family in families if name.startswith(family))


def test_the_papers_are_there():
    assert set(PAPERS) <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe(path):
    config = read_config(path)
    swap_of(config)
    dims = spec(config.network).dims
    assert len(config.patch) == dims and len(config.model["inputs"]) == config.in_channels
    with torch.device("meta"):  # names and shapes of the full network; no hour of random numbers
        network = create(config.network, config.in_channels, config.classes, **config.hyper)
    assert sum(p.numel() for p in network.parameters()) > 10_000
    rates = [learning_rate(config, step, config.steps) for step in range(0, config.steps, max(1, config.steps // 50))]
    assert 0 < max(rates) <= config.learning_rate and min(rates) >= 0

    toy = toy_of(config.network)
    small = {"patch": [32, 32] if spec(toy).dims == 2 else [16, 16, 16]}
    config.hyper = {}  # those of the full network
    config.network, config.inference, config.encoder_weights = toy, config.inference | small, ""
    state = new_run(config, torch.device("cpu"), None)
    check_levels(config, state.network, torch.device("cpu"))
    names = {"training": [], "validation": [], "context": []}
    check_description(describe(config, state, names, []))
    images = torch.randn(2, config.in_channels, *config.patch)
    labels = torch.randint(0, config.classes, (2, *config.patch))
    loss = partial(loss_function(config))(state.network.train().forward_multiscale(images), labels, None)
    loss.backward()
    optimizer = build_optimizer(config, state.network)
    optimizer.step()
    assert torch.isfinite(loss)
    assert (len(optimizer.param_groups) == 1) == config.decay_all


def test_weights_of_levels():
    assert halving(4) == [1, 0.5, 0.25, 0] and halving(1) == [1.0]
