"""Finding what to import: a file with weights, or the folder that nnU-Net leaves behind after a training."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UserError

PLANS, DATASET = "plans.json", "dataset.json"
PREFERRED = ("checkpoint_final.pth", "checkpoint_best.pth")


@dataclass(frozen=True)
class Source:
    """Weights, and what stands beside them.

    Args:
        weights: the file.
        plans, dataset: nnU-Net's, or {}.
        configuration: of the plans, such as ``3d_fullres``; from the folder's name.
        trainer: likewise.
        notes: what else there was and is not imported.
    """

    weights: Path
    plans: dict = field(default_factory=dict)
    dataset: dict = field(default_factory=dict)
    configuration: str = ""
    trainer: str = ""
    notes: tuple[str, ...] = ()


def find_source(path, fold: str = "") -> Source:
    """The weights that a path means.

    Args:
        path: a file; or a folder with plans.json, dataset.json and fold_*; or one with exactly one such folder below.
        fold: which fold of such a folder; empty: ``fold_all``, else the first.

    Raises:
        UserError: there is nothing of that kind, or more than one.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _from_folder(_trained_folder(path), fold)
    folder = next((up for up in path.absolute().parents[:2] if (up / PLANS).is_file()), None)
    return Source(path) if folder is None else _with_plans(path, folder, ())


def _trained_folder(path: Path) -> Path:
    found = [path] if (path / PLANS).is_file() else sorted({file.parent for file in path.glob(f"**/{PLANS}")})
    if len(found) != 1:
        listed = ", ".join(folder.name for folder in found[:5]) or "none"
        raise UserError(
            f"One trained folder with {PLANS} was expected in {path}, but there are {len(found)} ({listed}).",
            "Give the folder that holds plans.json, dataset.json and fold_0, or a file with weights.",
        )
    return found[0]


def _from_folder(folder: Path, fold: str) -> Source:
    folds = {file.name.removeprefix("fold_"): file for file in sorted(folder.glob("fold_*")) if file.is_dir()}
    fold = fold or ("all" if "all" in folds else next(iter(folds), ""))
    if fold not in folds:
        raise UserError(f"There is no fold '{fold}' in {folder}.", f"There are: {', '.join(folds) or 'none'}.")
    files = {file.name: file for file in folds[fold].glob("*.pth")}
    numbered = sorted(files, key=lambda name: int((re.findall(r"\d+", name) or ["0"])[-1]), reverse=True)
    name = next((name for name in (*PREFERRED, *numbered) if name in files), None)
    if name is None:
        raise UserError(f"There is no checkpoint (*.pth) in {folds[fold]}.", "Choose another fold.")
    notes = []
    if len(folds) > 1:
        notes.append(f"Only fold {fold} of {', '.join(folds)} is imported; nnU-Net would average them.")
    if list(folder.glob("postprocessing.pkl")):
        notes.append("postprocessing.pkl is a program and is not read; set inference.min_component_mm3 instead.")
    return _with_plans(files[name], folder, tuple(notes))


def _with_plans(weights: Path, folder: Path, notes: tuple[str, ...]) -> Source:
    trainer, _, rest = folder.name.partition("__")
    return Source(
        weights, read_json(folder / PLANS), read_json(folder / DATASET), rest.partition("__")[2], trainer, notes
    )


def read_json(path: Path) -> dict:
    """An object in a JSON file. Raises UserError when it is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable JSON file: {error}.", "Copy the folder again, completely."
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} was expected to hold a JSON object, not {type(content).__name__}.", "Correct the file."
        )
    return content
