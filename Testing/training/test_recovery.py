"""Faults put into a run: losses that are no numbers, memory that runs out. It goes on more carefully and says so."""

import json
from types import SimpleNamespace

import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.job import Report
from MambaSegTraining import checkpoint
from MambaSegTraining import train as train_module
from MambaSegTraining.checkpoint import RunState
from MambaSegTraining.distributed import Ranks
from MambaSegTraining.losses import deep_supervision
from MambaSegTraining.recovery import NotANumber, calm, is_out_of_memory, smaller_patch
from MambaSegTraining.train import run

FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes."


@pytest.fixture
def faulty(monkeypatch, config_file, tmp_path):
    """Runs the toy with a fault: ``fault(call, levels, loss)`` returns the loss; gives (losses, warnings)."""

    def train(fault, resume=False, **changes):
        calls, events = [0], []

        def loss(levels, labels):
            calls[0] += 1
            return fault(calls[0], levels, deep_supervision(levels, labels, (1, 1, 1)))

        monkeypatch.setattr(train_module, "loss_function", lambda config: loss)
        setting = {"steps": 6, "validate_every": 4, "checkpoint_every": 2, "precision": "bf16"} | changes
        request = {"config": str(config_file(**setting)), "output": str(tmp_path / "run"), "resume": resume}
        try:
            run(request, Report(events.append))
        finally:
            train.losses = [(e["step"], e["value"]) for e in events if e["event"] == "metric" and e["name"] == "loss"]
            train.warnings = [e["text"] for e in events if e.get("level") == "warning"]
        return train.losses, train.warnings

    return train


def test_nan_under_autocast_goes_on_in_fp32(faulty):
    def fault(call, levels, loss):
        return loss * float("nan") if call >= 6 and levels[0].dtype == torch.bfloat16 else loss

    found, warnings = faulty(fault)
    assert warnings == ["The loss became nan at step 5: on from step 4 in fp32."]
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 5, 6]
    # step 5 was made twice from the same state with the same batch: in bf16 and in fp32
    assert found[4][1] == pytest.approx(found[5][1], rel=0.02) and found[4][1] != found[5][1]


def test_nan_in_fp32_goes_on_with_a_lower_rate(faulty, tmp_path):
    found, warnings = faulty(lambda call, levels, loss: loss * float("inf") if call == 6 else loss, precision="fp32")
    assert warnings == ["The loss became inf at step 5: on from step 4 with 0.5 of the learning rate."]
    assert found[-1][0] == 6
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["rate_factor"] == 0.5


def test_a_gradient_that_is_no_number_never_reaches_the_weights(faulty, tmp_path):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    _, warnings = faulty(lambda call, levels, loss: Broken.apply(loss) if call == 3 else loss)
    assert warnings == ["The gradient became nan at step 2: on from step 2 in fp32."]
    state = checkpoint.read(tmp_path / "run" / "checkpoint.pt")
    assert all(torch.isfinite(t).all() for t in state["network"].values())


def test_nan_for_ever_fails_clearly_and_keeps_the_best(faulty, tmp_path):
    with pytest.raises(
        UserError, match=r"became nan at step 4, also in fp32 and with 0.1.*best weights so far \(step 4"
    ):
        faulty(lambda call, levels, loss: loss * float("nan") if call >= 6 else loss)
    assert [w.split(": ")[1] for w in faulty.warnings] == [
        "on from step 4 in fp32.",
        "on from step 4 with 0.5 of the learning rate.",
        "on from step 4 with 0.1 of the learning rate.",
    ]
    content = checkpoint.read(tmp_path / "run" / "checkpoint.pt")
    assert content["best_step"] == 4 and content["best_weights"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "failed"
    found, _ = faulty(lambda call, levels, loss: loss, resume=True)  # the data were put right
    assert [step for step, _ in found] == [5, 6]


def test_weights_that_exploded_are_replaced_by_the_best(tmp_path):
    """The checkpoint itself holds them: a lower rate alone would not help."""
    network = torch.nn.Linear(2, 1)
    good = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = RunState(network, torch.optim.AdamW(network.parameters()), None, step=5, best_weights=good)
    network.weight.data.fill_(1e30)
    checkpoint.save(state, tmp_path / "checkpoint.pt")
    config = SimpleNamespace(precision="fp32")
    folder = SimpleNamespace(checkpoint=tmp_path / "checkpoint.pt")
    calm(SimpleNamespace(state=state, config=config, folder=folder, ranks=Ranks(), report=Report()), NotANumber("NaN"))
    assert torch.equal(network.weight, good["weight"]) and state.rate_factor == 0.5


def test_memory_for_fewer_patches_adds_gradients_up(faulty, tmp_path):
    def fault(call, levels, loss):
        if levels[0].shape[0] > 1:
            raise RuntimeError(FULL)
        return loss

    found, warnings = faulty(fault, batch=4, precision="fp32")
    assert warnings == [
        "Not enough memory on cpu: on with 2 patch(es) at once, gradients added up to a batch of 4.",
        "Not enough memory on cpu: on with 1 patch(es) at once, gradients added up to a batch of 4.",
    ]
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["micro_batch"] == 1
    (tmp_path / "run").rename(tmp_path / "first")
    whole, _ = faulty(lambda call, levels, loss: loss, batch=4, precision="fp32")
    # Dice over one patch is not Dice over four, cross-entropy is; the curves stay together
    assert [v for _, v in found] == pytest.approx([v for _, v in whole], rel=0.25)


def test_memory_for_smaller_patches_only(faulty, tmp_path):
    inference = {"patch": [24, 20, 16], "overlap": 0.25, "mirror_axes": [], "margin_mm": 0, "min_component_mm3": 0}

    def fault(call, levels, loss):
        if levels[0][0, 0].numel() > 16**3:
            raise MemoryError
        return loss

    _, warnings = faulty(fault, inference=inference)
    assert warnings[-1] == "Not enough memory on cpu: on with patches of 16 x 16 x 16 voxels."
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["patch"] == [16, 16, 16]


def test_no_memory_at_all_is_told(faulty):
    def fault(call, levels, loss):
        raise RuntimeError(FULL)

    with pytest.raises(
        UserError, match="Not enough memory on cpu to train mm_unet_test with one patch of 16 x 16 x 16"
    ):
        faulty(fault)


def test_other_errors_are_not_hidden(faulty):
    def fault(call, levels, loss):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        faulty(fault)


def test_torch_says_that_memory_ran_out():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_patches_shrink_in_multiples():
    assert smaller_patch([40, 56, 40], (8, 8, 8)) == [24, 40, 24]
    assert smaller_patch([16, 160, 160], (16, 32, 32)) == [16, 96, 96]
    assert smaller_patch([256, 256], (32, 32)) == [192, 192]
    assert smaller_patch([16, 16, 16], (4, 4, 4)) is None
