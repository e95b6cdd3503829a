"""What a training run does, as one dataclass that reads and writes JSON."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from MambaSegLib.errors import UserError


@dataclass
class TrainConfig:
    """One training run. Relative paths are relative to the configuration file."""

    # The model
    model: dict  # id, title, description, keywords, labels, inputs, intended_use, ...: goes into bundle.json
    network: str = "mm_unet"
    hyper: dict = field(default_factory=dict)
    in_channels: int = 1
    preprocessing: dict = field(default_factory=dict)  # orientation, spacing_mm (x, y, z), normalisation
    inference: dict = field(default_factory=dict)  # patch (z, y, x), overlap, mirror_axes, ...

    # The data
    data: str = ""  # folder in Medical Segmentation Decathlon layout
    context: str = ""  # folder of the same layout whose cases only teach what is not a structure (label 255 = unknown)
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
    schedule: str = "cosine"  # or poly (power 0.9)
    warmup_steps: int = 50
    clip_norm: float = 1.0
    ema_decay: float = 0.0  # 0: the last weights; else an exponential moving average of the weights is the model
    scale_weights: tuple[float, ...] = (4 / 7, 2 / 7, 1 / 7)  # deep supervision, finest first (nnU-Net's halving)
    mirror_axes: tuple[int, ...] = ()  # of (Z, Y, X), only where the anatomy is mirror-symmetric
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"  # or bf16: autocast in training, where the processor or GPU is faster with it
    threads: int = 0  # 0: torch's default
    validate_every: int = 250
    checkpoint_every: int = 50

    def __post_init__(self):
        _expect("optimizer", self.optimizer, "'adamw' or 'sgd'", self.optimizer in ("adamw", "sgd"))
        _expect("schedule", self.schedule, "'cosine' or 'poly'", self.schedule in ("cosine", "poly"))
        _expect("precision", self.precision, "'fp32' or 'bf16'", self.precision in ("fp32", "bf16"))
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
    for name in ("data", "context"):
        if raw.get(name):
            raw[name] = str((path.parent / raw[name]).resolve())
    return TrainConfig(**raw)
