"""What a training run does, as one dataclass that reads and writes JSON."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from MambaSegLib.errors import UserError
from MambaSegLib.weights_storage import DTYPES

SCHEDULES = ("cosine", "poly", "cosine_wave", "cosine_restarts")
LOSSES = ("dice_ce", "dice_ce_umamba", "dice_msda", "attention_mamba")


@dataclass
class TrainConfig:
    """One training run. Relative paths are relative to the configuration file."""

    # The model
    model: dict  # id, title, description, keywords, labels, inputs, intended_use, ...: goes into bundle.json
    network: str = "mm_unet"
    hyper: dict = field(default_factory=dict)
    encoder_weights: str = ""  # file with an encoder's pretrained weights, see networks.weights.load_encoder
    in_channels: int = 1
    preprocessing: dict = field(default_factory=dict)  # orientation, spacing_mm (x, y, z), normalisation
    inference: dict = field(default_factory=dict)  # patch (z, y, x), overlap, mirror_axes, ...

    about: str = ""  # of this configuration: where its values come from

    # The data
    data: str = ""  # folder or table with labelled cases, see sources
    context: str = ""  # the same, whose cases only teach what is not a structure (label 255 = unknown)
    context_share: float = 0.0  # share of patches drawn from it
    validation_share: float = 0.2  # of the patients, frozen by a hash of the patient's name
    foreground_share: float = 0.5  # patches centred on a labelled voxel

    # The loop
    steps: int = 3000
    batch: int = 2
    optimizer: str = "adamw"  # or sgd (Nesterov momentum)
    learning_rate: float = 1e-3
    momentum: float = 0.99
    weight_decay: float = 1e-2
    decay_all: bool = False  # also norms, biases and A_log, as the papers' single parameter group does
    schedule: str = "cosine"  # or poly, cosine_wave, cosine_restarts: see optimisation.learning_rate
    schedule_period: int = 0  # steps of half a wave of cosine_wave, of the first cycle of cosine_restarts
    least_rate: float = 0.0  # of the cosines
    warmup_steps: int = 50
    clip_norm: float = 1.0  # 0: gradients are not clipped
    ema_decay: float = 0.0  # 0: the last weights; else an exponential moving average of the weights is the model
    loss: str = "dice_ce"  # or dice_ce_umamba, dice_msda, attention_mamba: see supervision
    scale_weights: tuple[float, ...] = (4 / 7, 2 / 7, 1 / 7)  # of dice_ce's levels, finest first
    mirror_axes: tuple[int, ...] = ()  # of (Z, Y, X), only where the anatomy is mirror-symmetric
    mirror_swap: list | None = None  # pairs of label values that change sides with it; []: none do; see mirroring
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"  # or bf16: autocast in training, where the processor or GPU is faster with it
    threads: int = 0  # 0: torch's default
    weights_dtype: str = "float16"  # of the model's file; or float32, int8: see MambaSegLib.weights_storage
    validate_every: int = 250
    checkpoint_every: int = 50

    def __post_init__(self):
        _expect("optimizer", self.optimizer, "'adamw' or 'sgd'", self.optimizer in ("adamw", "sgd"))
        _expect("schedule", self.schedule, f"one of {', '.join(SCHEDULES)}", self.schedule in SCHEDULES)
        periodic = self.schedule in ("cosine_wave", "cosine_restarts")
        _expect("schedule_period", self.schedule_period, "at least 1", self.schedule_period >= 1 or not periodic)
        _expect("loss", self.loss, f"one of {', '.join(LOSSES)}", self.loss in LOSSES)
        _expect("precision", self.precision, "'fp32' or 'bf16'", self.precision in ("fp32", "bf16"))
        _expect("weights_dtype", self.weights_dtype, f"one of {', '.join(DTYPES)}", self.weights_dtype in DTYPES)
        for name in ("steps", "batch", "validate_every", "checkpoint_every"):
            _expect(name, getattr(self, name), "at least 1", getattr(self, name) >= 1)
        values = [label["value"] for label in self.model["labels"]]
        _expect("values of model.labels", values, "1, 2, 3 ...", values == list(range(1, len(values) + 1)))
        _expect("validation_share", self.validation_share, "0 to 1", 0 < self.validation_share < 1)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Voxels of a training patch (Z, Y, X); the same as at inference."""
        return tuple(self.inference["patch"])

    @property
    def classes(self) -> int:
        """Output channels: background and one per label."""
        return 1 + len(self.model["labels"])

    @property
    def recipe(self) -> dict:
        """Preprocessing and inference as the one dictionary that ``MambaSegLib.preprocessing.prepare`` takes."""
        return {**self.preprocessing, **self.inference}

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)


def _expect(field_name: str, found, expected: str, right: bool) -> None:
    if not right:
        raise UserError(f"{field_name}: expected {expected}, got {found!r}.", "Correct the configuration.")


def read_config(path) -> TrainConfig:
    """Read a JSON configuration; folders in it are resolved against its own place.

    Raises:
        UserError: no such file, not JSON, unknown or missing fields.
    """
    path = Path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the configuration {path}: {error.strerror}.", "Check the path.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}.", "Correct that line.") from error
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    if unknown := set(raw) - known:
        raise UserError(f"{path}: unknown fields {sorted(unknown)}.", f"Known are {sorted(known)}.")
    if "model" not in raw:
        raise UserError(f"{path}: the field 'model' is missing.", "See recipes/hippocampus.json for an example.")
    for name in ("data", "context", "encoder_weights"):
        if raw.get(name):
            raw[name] = str((path.parent / raw[name]).resolve())
    return TrainConfig(**raw)
