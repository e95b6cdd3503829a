"""A trained model as a folder: ``bundle.json`` (what it is), ``weights.safetensors``, ``README.md`` (the card).

Opening a bundle executes no code and needs no torch. A bundle is never changed in place: fine-tuning makes a child.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from . import weights_storage
from .bundle_schema import SCHEMA_VERSION, check_bundle_data
from .card import card_markdown
from .errors import UserError
from .job import to_json_value

__all__ = ["SCHEMA_VERSION", "Label", "ModelBundle", "card_markdown", "open_bundle", "write_bundle"]

BUNDLE_FILE = "bundle.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"
MAX_JSON_BYTES = 64 << 20

# (path, size, mtime_ns) -> sha256: a file that has not changed since is not read again in this process.
_hashes: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Label:
    """One structure of a label map.

    Args:
        value: its number in the label map, > 0.
        name: what a user reads.
        color: red, green, blue, 0..255.
        terminology: {"category": triplet, "type": triplet, "type_modifier": triplet or None}; a triplet is
            [coding scheme, code, meaning] such as ["SCT", "123037004", "Anatomical Structure"]. May be empty.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    terminology: dict

    @classmethod
    def from_json(cls, row: dict) -> Label:
        """Of {"value", "name", "color", "terminology"}, as ``bundle.json`` has it."""
        return cls(row["value"], row["name"], tuple(row["color"]), row["terminology"] or {})


@dataclass(frozen=True)
class ModelBundle:
    """A checked bundle. `data` is ``bundle.json`` as `bundle_schema.check_bundle_data` accepts it; do not change it."""

    folder: Path
    data: dict = field(repr=False)

    @property
    def id(self) -> str:
        return self.data["id"]

    @property
    def version(self) -> str:
        return self.data["version"]

    @property
    def title(self) -> str:
        return self.data["title"]

    @property
    def description(self) -> str:
        return self.data["description"]

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        return tuple(Label.from_json(row) for row in self.data["labels"])

    @property
    def network(self) -> dict:
        """{"name", "in_channels", "out_channels", "hyper"}: the arguments of `networks.create`."""
        return self.data["network"]

    @property
    def inputs(self) -> list[dict]:
        """One {"name", "modality", "description"} per input channel."""
        return self.data["inputs"]

    @property
    def is_for_pictures(self) -> bool:
        """Whether it looks at colour pictures: its three inputs are their colours, and pixels have no size."""
        has_size = any(self.preprocessing["spacing_mm"])
        return len(self.inputs) == 3 and len(self.inference["patch"]) == 2 and not has_size

    @property
    def takes_pictures(self) -> bool:
        """Whether it looks at pictures, in colour or grey: single slices whose pixels have no size."""
        is_alone = len(self.inputs) == 1 and not self.is_volumetric and not any(self.preprocessing["spacing_mm"])
        return self.is_for_pictures or is_alone

    @property
    def is_volumetric(self) -> bool:
        """Whether it needs volumes of several slices; else it looks at one after the other."""
        return len(self.inference["patch"]) == 3

    @property
    def preprocessing(self) -> dict:
        """{"orientation", "spacing_mm" (x, y, z), "normalisation"}."""
        return self.data["preprocessing"]

    @property
    def inference(self) -> dict:
        """{"patch" (z, y, x), "overlap", "mirror_axes", "min_component_mm3", "margin_mm"}."""
        return self.data["inference"]

    @property
    def sha256(self) -> str:
        """Of the weights file, hexadecimal."""
        return self.data["weights"]["sha256"]

    @property
    def weights_path(self) -> Path:
        return self.folder / self.data["weights"]["file"]

    def card(self, decision: dict | None = None) -> str:
        """The model card, Markdown; with what the gate decided about the model."""
        return card_markdown(self.data, decision)


def open_bundle(folder: str | os.PathLike, verify: bool = True) -> ModelBundle:
    """Read and check the bundle in `folder`.

    Args:
        folder: the folder that holds ``bundle.json``.
        verify: also read the weights and compare their sha256 (their size is always compared).

    Raises:
        UserError: anything missing, malformed or tampered with; the message names file, field, expected and found.
    """
    folder = Path(folder)
    data = _read_json(folder)
    check_bundle_data(data, str(folder / BUNDLE_FILE))
    bundle = ModelBundle(folder, data)
    _check_weights(bundle, verify)
    return bundle


def write_bundle(folder: str | os.PathLike, data: dict, weights: Mapping | str | os.PathLike) -> ModelBundle:
    """Write a new bundle; it appears complete or not at all, and an existing folder is never overwritten.

    Args:
        folder: the new folder; its parent is created.
        data: everything of ``bundle.json`` except "weights", which is computed. ``data["weights"]["dtype"]``
            ("float16", "int8" or "float32", default) chooses how floating arrays are stored, see ``weights_storage``.
        weights: name -> array (numpy, or torch on the CPU), or the path of a safetensors file to copy.

    Raises:
        UserError: the folder exists or cannot be written, or `data` or `weights` are not acceptable.
    """
    folder = Path(folder).absolute()
    if not isinstance(weights, Mapping) and not Path(weights).is_file():
        raise UserError(f"There is no weights file {weights}.", "Give a safetensors file, or arrays.")
    if folder.exists():
        raise UserError(
            f"A new model needs a new folder, but {folder} exists.",
            "Choose another name; models are never overwritten.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"The model cannot be written to {folder}: {error.strerror}.", "Choose a folder you may write to."
        ) from error
    try:
        data = _fill(temporary, data, weights)
        os.chmod(temporary, 0o755)  # mkdtemp makes private folders; a model is for everyone on the machine
        os.rename(temporary, folder)
    except OSError as error:
        raise UserError(
            f"The model cannot be written to {folder}: {error.strerror}.", "Check free space and rights."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ModelBundle(folder, data)


def sha256_of(path: str | os.PathLike) -> str:
    """sha256 of a file, hexadecimal; remembered within this process while size and time of the file stay the same."""
    path = os.path.abspath(path)
    status = os.stat(path)
    key = (path, status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        _hashes[key] = digest.hexdigest()
    return _hashes[key]


def _read_json(folder: Path) -> dict:
    path = folder / BUNDLE_FILE
    if not path.is_file():
        found = "no such folder" if not folder.is_dir() else f"a folder without {BUNDLE_FILE}"
        raise UserError(
            f"A model is a folder with {BUNDLE_FILE}, but {folder} is {found}.", "Give the folder of a model."
        )
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(
                f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB.", "This is not a model of this program."
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the rights of the file.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.", "Copy the model again from where it came.") from error


def _check_weights(bundle: ModelBundle, verify: bool) -> None:
    path, stated = bundle.weights_path, bundle.data["weights"]
    again = "Copy the model again from where it came."
    try:
        size = path.stat().st_size
        if size != stated["bytes"]:
            raise UserError(f"{path} must have {stated['bytes']} bytes as {BUNDLE_FILE} says, but has {size}.", again)
        found = sha256_of(path) if verify else stated["sha256"]
    except OSError as error:
        raise UserError(f"The weights of the model, {path}, cannot be read: {error.strerror}.", again) from error
    if found != stated["sha256"].lower():
        message = f"{path} was changed: its sha256 must be {stated['sha256']} as {BUNDLE_FILE} says, but is {found}."
        raise UserError(message, again)


def _fill(folder: Path, data: dict, weights: Mapping | str | os.PathLike) -> dict:
    """Write the three files of a bundle into `folder`; returns the complete data."""
    data = to_json_value(data)
    path = folder / WEIGHTS_FILE
    if isinstance(weights, Mapping):
        dtype = data.get("weights", {}).get("dtype", "float32")
        weights_storage.save_arrays(path, weights, dtype)
    else:
        shutil.copyfile(weights, path)
        dtype = weights_storage.dtype_of(path)
    data["weights"] = {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size, "dtype": dtype}
    check_bundle_data(data, BUNDLE_FILE)
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / BUNDLE_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
    (folder / CARD_FILE).write_text(card_markdown(data), encoding="utf-8", newline="\n")
    return data
