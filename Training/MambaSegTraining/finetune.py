"""The job ``finetune``: a model and a few labelled cases -> a candidate, what the gate says of it, and its promotion.

Everything that takes time fits into the budget: reading, training with its validations, and the gate. The last weights
(their moving average) are the candidate, never those that did best on the held-out cases: these judge it.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from MambaSegLib import catalogue, label_table, model_store
from MambaSegLib.bundle import ModelBundle, write_bundle
from MambaSegLib.errors import UserError
from MambaSegLib.inference import load_network, resolve_device
from MambaSegLib.wording import counted

from . import adapters, checkpoint, gate
from .anchor import Anchored
from .checkpoint import RunState
from .config import TrainConfig
from .evaluate import Predictor, only_cancel
from .finetune_bundle import child_data, config_of, plain_network
from .finetune_data import REPLAY_SHARE, Gathered, Mixture, gather, read_training, told_anew
from .loop import LAST, Run, loop
from .losses_partial import partial
from .mirroring import swap_of
from .optimisation import build_optimizer, moving_average
from .pace import Pace, in_words
from .patches import PatchSource
from .preview import Preview, pictures_in
from .reading import held_out_case, read_image
from .run_folder import RunFolder, Untold
from .structures import Table, class_keys, network_for, new_table
from .supervision import loss_function

BUDGET_S = 600.0
CURVE_CASES, CURVE_POINTS = 3, 3  # validations show the way, they choose nothing
LEAST_SHARE = 0.4  # of the budget is for training, whatever the gate needs
GATE_SLACK = 1.3
MOST_FOLDS = 3


@dataclass
class Task:
    """One fine-tuning: what was asked for, opened."""

    parent: ModelBundle
    table: Table
    cases: Gathered
    config: TrainConfig
    method: str
    budget_s: float
    device: torch.device
    folder: Path  # of this run: checkpoints, candidate
    models: Path
    resume: bool
    report: object
    started: float

    @property
    def values(self) -> dict[str, int]:
        """Of the new table, by name."""
        return {label["name"]: label["value"] for label in self.table.labels}

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self.started


def run(request: dict, report, warm=None) -> dict:
    """The job ``finetune``.

    Args:
        request: "model" (id or folder); "corrections" (folder) or "data" (list of sources); optional "replay" (list of
            sources with the parent's own cases), "output" (models folder), "budget_s", "method" ("auto", "all",
            "decoder", "adapters"), "seed", "resume", "device", "structures_added" (names), "structures_renamed" ({old:
            new}), "structures_merged" ({new: [old]}), "structures_removed" (names).

    Returns:
        {"candidate", "decision", "promoted", "steps", "time_s", "method", "protocol"}.
    """
    started = time.monotonic()
    task = read_task(request, report, started)
    folder = RunFolder(task.folder, "finetune", request)
    with folder.working(), pictures_in(task.folder):
        state = train_on(task, task.cases.training, folder, steps=0)
        candidate = write_candidate(task, state)
        decision = judged(task, candidate, state)
        version = model_store.add(candidate, decision.as_json(), task.models)
        promoted = decision.accepted and put_in_use(task, version.id)
        clean_up(task)
        result = {"candidate": str(version.folder), "decision": decision.as_json(), "promoted": promoted}
        result |= {"steps": state.step, "time_s": round(task.spent_s, 1), "method": task.method}
        result |= {"protocol": decision.protocol}
        folder.update(state="finished", result=result)
    return result


def put_in_use(task: Task, name: str) -> bool:
    """Promote an accepted candidate; False, and said, when it was compared with a version that is no longer in use."""
    parent = catalogue.version_name(task.parent)
    is_kept = any(version.id == parent for version in model_store.versions(task.models))
    try:
        model_store.promote(name, task.models, instead_of=parent if is_kept else None)
    except UserError as error:
        task.report.message(f"{error.message} {error.hint}", "warning")
        return False
    return True


def read_task(request: dict, report, started: float) -> Task:
    """Open model and cases, and refuse what cannot work before any work is done."""
    parent = catalogue.find(request["model"])
    labels = parent.data["labels"]
    values = list(range(1, parent.network["out_channels"]))
    if [item["value"] for item in labels] != values:
        raise UserError(
            f"The labels of {parent.id} are not 1, 2, 3 ... one per output channel.",
            "Such a model cannot be taught yet.",
        )
    table = new_table(
        labels,
        request.get("structures_added") or (),
        request.get("structures_renamed"),
        request.get("structures_merged"),
        request.get("structures_removed") or (),
    )
    method = request.get("method") or "auto"
    if method not in ("auto", *adapters.METHODS):
        raise UserError(f"There is no method {method!r}.", f"Choose auto, {', '.join(adapters.METHODS)}.")
    method = "all" if method == "auto" else method
    seed, budget_s = int(request.get("seed") or 0), float(request.get("budget_s") or BUDGET_S)
    models = Path(request["output"]) if request.get("output") else catalogue.user_folder()
    return Task(
        parent,
        table,
        gather(request, parent, table, seed),
        config_of(parent, table, method, seed),
        method,
        budget_s,
        resolve_device(request.get("device") or "auto"),
        models / ".finetune" / catalogue.version_name(parent),
        models,
        bool(request.get("resume")),
        report,
        started,
    )


def train_on(task: Task, cases, folder, steps: int, title: str = "") -> RunState:
    """Fine-tune on ``cases``.

    Args:
        folder: ``RunFolder``, or ``Untold`` for the models of a cross-validation.
        steps: as many, or 0: as the budget allows.
        title: of this training in progress labels.
    """
    config, device, report = task.config, task.device, task.report
    state = new_state(task)
    free = changed_heads(task) if task.table.is_new else ()
    objective = Anchored(partial(loss_function(config)), state.network, free)
    if task.resume and folder.checkpoint.is_file():
        checkpoint.put(state, checkpoint.read(folder.checkpoint), folder.checkpoint)
    source, validation = source_of(task, cases), []
    work = Run(config, state, source, validation, objective, device, report, folder, keeps_best=False, title=title)
    if steps:
        state.steps = steps
    else:
        if task.cases.protocol == "hold-out":
            shown = task.cases.held_out[:CURVE_CASES]
            validation += [held_out_case(case, config.recipe, task.values) for case in shown]
            labels = label_table.from_json(task.table.labels)
            work.preview = Preview(validation[0], read_image(shown[0]), labels, task.folder, report)
        left, work.afterwards_s = training_budget(task)
        work.pace, work.validate_times = Pace(left), CURVE_POINTS
    loop(work)
    state.model.load_state_dict(state.best_weights)
    adapters.merge(state.model)
    return state


def new_state(task: Task) -> RunState:
    """The parent's network for the new table, with only what the method teaches free to learn."""
    torch.manual_seed(task.config.seed)
    network = network_for(task.table, task.parent.network, plain_network(task.parent).state_dict())
    network = adapters.choose(network, task.method, changed_heads(task))
    network = network.to(task.device).to(memory_format=LAST[len(task.config.patch)])
    return RunState(network, build_optimizer(task.config, network), moving_average(network, task.config.ema_decay))


def changed_heads(task: Task) -> list[str]:
    """Names of the parameters that depend on the classes."""
    return class_keys(task.parent.network | {"out_channels": len(task.table.origins)})


def source_of(task: Task, cases):
    """Patches of the user's cases, mixed with the parent's where they are at hand."""
    config, values = task.config, task.values
    labels, swap = task.parent.data["labels"], swap_of(config) if config.mirror_swap else None

    def patches(cases, seed):
        read = read_training(cases, config.preprocessing, values, task.report)
        arguments = (config.patch, config.foreground_share, 0.0, config.mirror_axes, seed, swap)
        return PatchSource(read, [], *arguments)

    new = patches(cases, config.seed)
    if not task.cases.replay:
        return new
    old = patches([told_anew(case, labels, task.table) for case in task.cases.replay], config.seed + 1)
    return Mixture(new, old, REPLAY_SHARE, config.seed)


def training_budget(task: Task) -> tuple[float, float]:
    """Seconds for one training with its validations, and for what comes behind it: further trainings and the gate.

    The gate's time is measured: the parent predicts one held-out case.
    """
    held_out, gate_s = task.cases.held_out, 0.0
    if held_out:
        predictor = Predictor.of(task.parent, task.device)
        begun = time.monotonic()
        predictor.label_map(predictor.read(held_out[0], task.values), only_cancel(task.report))
        gate_s = GATE_SLACK * 2 * len(held_out) * (time.monotonic() - begun)
    least = LEAST_SHARE * task.budget_s
    left = max(task.budget_s - task.spent_s - gate_s, least)
    if left == least:
        over = least + task.spent_s + gate_s - task.budget_s
        task.report.message(
            f"Comparing the models on {counted(len(held_out), 'case')} takes about {in_words(gate_s)}: "
            f"the budget will be exceeded by about {in_words(over)}.",
            "warning",
        )
    share = left / (1 + len(folds_of(task)))
    return share, left - share + gate_s


def folds_of(task: Task) -> list[tuple[list, list]]:
    """[(cases to train on, cases left out)], by patient, where there is no hold-out; at most ``MOST_FOLDS``."""
    patients = sorted({case.patient for case in task.cases.held_out})
    if task.cases.protocol == "hold-out" or len(patients) < 2:
        return []
    groups = [set(patients[i::MOST_FOLDS]) for i in range(min(MOST_FOLDS, len(patients)))]
    cases = task.cases.training
    return [([c for c in cases if c.patient not in g], [c for c in cases if c.patient in g]) for g in groups]


def write_candidate(task: Task, state: RunState) -> ModelBundle:
    """The child as a bundle in the run's folder."""
    target = task.folder / "candidate"
    shutil.rmtree(target, ignore_errors=True)  # of a run that was killed behind this point
    weights = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state.model.state_dict().items()}
    return write_bundle(target, child_data(task, state), weights)


def judged(task: Task, candidate: ModelBundle, state: RunState) -> gate.Decision:
    """What the gate says: on the hold-out, else by models that were trained alike without the cases they predict."""
    if not task.cases.held_out:
        return gate.unproven("The model in use was trained on every one of these cases.")
    if task.cases.protocol == "hold-out":
        return gate.compare(task.parent, candidate, task.cases.held_out, task.report, task.device)
    folds = folds_of(task)
    if not folds:
        return gate.unproven("All cases are of one patient.")
    task.report.message(
        f"Fewer than three held-out patients: leave-one-out with {counted(len(folds), 'more training')}."
    )

    def models():
        for number, (cases, left_out) in enumerate(folds, start=1):
            folder = task.folder / f"fold_{number}"
            folder.mkdir(exist_ok=True)
            title = f"Leave-one-out {number} of {len(folds)}: "
            trained = train_on(task, cases, Untold(folder), state.step, title)
            network = as_loaded(candidate, trained, task.device)
            yield Predictor(network, candidate.labels, task.config.recipe, task.device), left_out

    return gate.compare_folds(task.parent, models(), task.report, task.device)


def as_loaded(candidate: ModelBundle, trained: RunState, device) -> torch.nn.Module:
    """The fold's network in the form in which the gate gets the candidate."""
    network = load_network(candidate, device)
    inner = network.network if len(candidate.inference["patch"]) == 2 else network
    inner.load_state_dict(trained.model.state_dict())
    return network


def clean_up(task: Task) -> None:
    """The candidate is among the models now; of the run only ``run.json`` stays."""
    for path in (task.folder / "candidate", *task.folder.glob("fold_*")):
        shutil.rmtree(path, ignore_errors=True)
    (task.folder / "checkpoint.pt").unlink(missing_ok=True)
