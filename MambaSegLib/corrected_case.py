"""One corrected case of the store (see `corrections`): what its ``case.json`` says, and what one may rely on in it.

Torch-free.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import label_table
from .bundle import Label
from .errors import UserError
from .image import read_labels
from .volume import Volume, check_volume

SCHEMA_VERSION = 1
UNKNOWN = 255  # of a voxel that nobody looked at: no loss counts it
TRAINING, HOLD_OUT = "training", "hold-out"
CASE_FILE = "case.json"
_FIELDS = ("id", "title", "patient", "annotator", "date", "version", "model", "channels", "labels", "structures")
_FIELDS += ("annotated", "part", "image_sha256")


@dataclass(frozen=True)
class CorrectedCase:
    """One case of the store; `data` is its ``case.json``."""

    folder: Path
    data: dict = field(repr=False)

    @property
    def id(self) -> str:
        return self.data["id"]

    @property
    def title(self) -> str:
        return self.data["title"]

    @property
    def patient(self) -> str:
        """sha256 of the key that the user gave."""
        return self.data["patient"]

    @property
    def annotator(self) -> str:
        return self.data["annotator"]

    @property
    def part(self) -> str:
        """`TRAINING` or `HOLD_OUT`."""
        return self.data["part"]

    @property
    def annotated(self) -> dict:
        """{"structures": [names], "slices": None (all) or {"axis": 0 | 1 | 2 of (Z, Y, X), "indices": [...]}}."""
        return self.data["annotated"]

    @property
    def structures(self) -> tuple[Label, ...]:
        return label_table.from_json(self.data["structures"])

    @property
    def images(self) -> tuple[Path, ...]:
        """One file per channel."""
        return tuple(self.folder / name for name in self.data["channels"])

    @property
    def label_file(self) -> Path:
        return self.folder / self.data["labels"]

    @property
    def thumbnail(self) -> Path:
        return self.folder / "thumbnail.png"

    def label_volume(self) -> Volume:
        """The labels, uint8, (Z, Y, X), `UNKNOWN` in voxels and slices that were not annotated.

        A voxel of a structure that was not annotated is `UNKNOWN`. 0 means: none of the annotated structures.
        """
        volume = read_labels(self.label_file)
        return volume.with_array(known_labels(volume.array, self.structures, self.annotated))


def known_labels(labels: np.ndarray, structures: Sequence[Label], annotated: dict) -> np.ndarray:
    """`labels` (Z, Y, X) as uint8 with `UNKNOWN` where `annotated` (see `CorrectedCase`) does not vouch for them."""
    known = [s.value for s in structures if s.name in annotated["structures"]]
    result = np.where(np.isin(labels, [0, *known]), labels, UNKNOWN).astype(np.uint8)
    slices = annotated["slices"]
    if slices is not None:
        seen = np.zeros(labels.shape[slices["axis"]], bool)
        seen[slices["indices"]] = True
        np.moveaxis(result, slices["axis"], 0)[~seen] = UNKNOWN
    return result


def read_case(folder: Path) -> CorrectedCase | None:
    """The case in `folder`; None when another process has just taken it away.

    Raises:
        UserError: ``case.json`` is damaged, or was written by a newer version of the program.
    """
    path = folder / CASE_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["schema_version"]
        missing = [name for name in _FIELDS if name not in data]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}.", "Check the rights of the file.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged.", "Move this case's folder out of the store.") from error
    if version != SCHEMA_VERSION or missing:
        raise UserError(
            f"'{path}' has version {version} of the form, and {SCHEMA_VERSION} was expected"
            f"{' with ' + missing[0] if missing else ''}.",
            "Update the program, or move this case's folder out of the store.",
        )
    return CorrectedCase(folder, data)


def patient_hash(patient_key: str) -> str:
    """What is kept of a patient's key. Raises UserError when the key is empty."""
    key = unicodedata.normalize("NFC", patient_key).strip()
    if not key:
        raise UserError(
            "A patient's name or number was expected, but none came.",
            "Give one: it keeps a patient's images together on one side of the test, and only its hash is stored.",
        )
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def image_hash(channels: Sequence[Volume]) -> str:
    """sha256 of the voxels as float32 and of their place, whatever file format or number type they came in."""
    digest = hashlib.sha256()
    for volume in channels:
        place = np.round(volume.world_from_index(), 3) + 0.0  # no minus zero
        digest.update(repr((volume.array.shape, place.tolist())).encode())
        for plane in volume.array.reshape(-1, *volume.array.shape[-2:]):
            digest.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return digest.hexdigest()


def check_case(channels: Sequence[Volume], labels: Volume, structures: Sequence[Label], annotated: dict) -> None:
    """Raise UserError unless images, labels, names and what was annotated fit together."""
    for volume in channels:
        check_volume(volume)
        if not volume.same_grid(labels):
            raise UserError(
                f"Images and labels with the same voxels were expected, but '{volume.name}' has {volume.shape} and the "
                f"labels have {labels.shape} (Z, Y, X), or they lie elsewhere.",
                "Export the labels on the image's grid (its reference geometry).",
            )
    values = {s.value for s in structures}
    foreign = sorted(set(np.unique(labels.array).tolist()) - values - {0})
    if foreign or not values or min(values) < 1 or max(values) >= UNKNOWN:
        raise UserError(
            f"Numbers from 1 to {UNKNOWN - 1} that name a structure were expected as labels, but "
            f"{foreign or sorted(values)} came.",
            "Name every structure, and number them from 1 on.",
        )
    names = [s.name for s in structures]
    unknown = [name for name in annotated["structures"] if name not in names]
    if unknown or not annotated["structures"] or len(set(names)) < len(names):
        raise UserError(
            f"One or more of the structures {', '.join(names)}, each with its own name, were expected as annotated, "
            f"but {', '.join(unknown) or 'none'} came.",
            "Say which structures are really done.",
        )
    _check_slices(annotated["slices"], labels.shape)


def _check_slices(slices: dict | None, shape: tuple[int, int, int]) -> None:
    if slices is None:
        return
    axis, indices = slices["axis"], slices["indices"]
    if axis not in (0, 1, 2) or not indices or not all(0 <= index < shape[axis] for index in indices):
        raise UserError(
            f"Slices along axis 0, 1 or 2 of {shape} were expected as annotated, but axis {axis}, {indices} came.",
            "Count from 0, and name at least one slice.",
        )


def plain_annotated(annotated: dict) -> dict:
    """`annotated` made of what JSON knows, its slices sorted and named once."""
    slices = annotated["slices"]
    if slices is not None:
        slices = {"axis": int(slices["axis"]), "indices": sorted({int(index) for index in slices["indices"]})}
    return {"structures": list(annotated["structures"]), "slices": slices}
