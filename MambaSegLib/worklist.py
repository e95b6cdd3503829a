"""What there is to review: images with their segmentations, found on disk or given by rows, worst first. Torch-free."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import attrgetter
from pathlib import Path

from . import scores_file
from .case_files import has_dicom, images_in, is_image_file, read_rows, segmentation_base, stem
from .errors import UserError

NOT_STARTED, IN_PROGRESS, COMPLETED, FLAGGED = STATUSES = ("not_started", "in_progress", "completed", "flagged")
_IMAGE_FOLDERS = {"imagests": "ts", "imagestr": "tr", "images": "", "image": "", "imgs": ""}
_LABEL_FOLDERS = {"labelsts": "ts", "labelstr": "tr", "labels": "", "label": "", "masks": "", "mask": ""}
_LABEL_FOLDERS |= dict.fromkeys(("segmentations", "segmentation", "predictions", "pred", "predicted", "results"), "")


@dataclass(frozen=True)
class Entry:
    """One segmentation to review.

    Args:
        images: files, one per channel, or whatever names the image to the caller (a node of the scene, a series' UID).
        segmentation: a file, or such a name.
        title: what a user reads.
        model: {"id", "sha256"} of the one that drew it, or None.
        scores: structure -> doubt, 0 sure ... 1, as `uncertainty.review` gives it; {} when unknown.
        places: structure -> the doubtful places of it, worst first.
        status: one of `STATUSES`; they mean what Slicer's segment status means.
        comment, reviewer: of the last decision.
        started, changed: UTC times of the first look and the last change.
        seconds: spent on it, all sittings together.
        edited: whether a person changed voxels of it.
        preference: of a blinded comparison, see `review.Session.choose`.
        key: its id in a review that may have been moved since; "" before it is in one.
    """

    images: tuple[str, ...]
    segmentation: str
    title: str = ""
    model: dict | None = None
    scores: dict[str, float] = field(default_factory=dict)
    places: dict[str, list] = field(default_factory=dict)
    status: str = NOT_STARTED
    comment: str = ""
    reviewer: str = ""
    started: str = ""
    changed: str = ""
    seconds: float = 0.0
    edited: bool = False
    preference: dict | None = None
    key: str = ""

    @cached_property
    def id(self) -> str:
        """The same for the same image and segmentation, whenever the list is made again."""
        if self.key:
            return self.key
        names = "\n".join([*self.images, "", self.segmentation])
        return hashlib.sha256(names.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]

    def score(self, structure: str = "") -> float | None:
        """The doubt about one structure, or, with "", about its worst one; None when unknown."""
        if structure:
            return self.scores.get(structure)
        return max(self.scores.values(), default=None)

    @cached_property
    def place(self) -> tuple:
        """What orders a list: worst first, those without a score behind, by title."""
        return _place(self, "")

    @cached_property
    def words(self) -> str:
        """What a search looks through."""
        model = (self.model or {}).get("id", "")
        return "\n".join([self.title, *self.images, self.segmentation, model, self.reviewer, self.comment]).casefold()

    def to_json(self) -> dict:
        return {name: getattr(self, name) for name in _FIELDS} | {"images": list(self.images)}

    @classmethod
    def from_json(cls, data: dict) -> Entry:
        return cls(**{name: data[name] for name in _FIELDS if name in data} | {"images": tuple(data["images"])})


_FIELDS = tuple(item.name for item in fields(Entry))


def _place(entry: Entry, structure: str) -> tuple:
    score = entry.score(structure)
    return score is None, -(score or 0.0), entry.title.casefold(), entry.id


@dataclass(frozen=True)
class Filter:
    """Which entries are shown: those that pass all of these.

    Args:
        statuses: any of these; () is all.
        structure: only entries with a score for it; "" is any.
        low, high: bounds of the score (of that structure, or the worst one); unknown scores pass only 0 to 1.
        text: every word of it in title, files, model, reviewer or comment.
    """

    statuses: Sequence[str] = ()
    structure: str = ""
    low: float = 0.0
    high: float = 1.0
    text: str = ""

    def passes(self, entry: Entry) -> bool:
        score = entry.score(self.structure)
        if (self.statuses and entry.status not in self.statuses) or (self.structure and score is None):
            return False
        if not (self.low <= score <= self.high if score is not None else (self.low, self.high) == (0.0, 1.0)):
            return False
        return not self.text or all(word in entry.words for word in self.text.casefold().split())


def ordered(entries: Iterable[Entry], structure: str = "", shown: Filter | None = None) -> list[Entry]:
    """The entries that pass the filter, worst first; those without a score behind, by title."""
    passing = [entry for entry in entries if shown is None or shown.passes(entry)]
    return sorted(passing, key=(lambda entry: _place(entry, structure)) if structure else attrgetter("place"))


def from_rows(rows: Iterable[dict]) -> list[Entry]:
    """Entries of {"images" (or "image"), "segmentation", and optional "title", "model", "scores", "places"}."""
    return [_entry(row.get("images") or [row["image"]], row["segmentation"], row) for row in rows]


def from_csv(path: str | Path, warn: Callable[[str], None]) -> list[Entry]:
    """Entries of a CSV (see `case_files.read_rows`), such as the summary of a batch; tells what has no segmentation."""
    rows, judged = read_rows(Path(path).expanduser()), _Judged()
    _tell_left_out([row["case"] or row["images"][0].name for row in rows if not row["segmentation"]], warn)
    drawn = [row for row in rows if row["segmentation"]]
    return _some([_entry(row["images"], row["segmentation"], {"title": row["case"]}, judged) for row in drawn], path)


def from_folder(folder: str | Path, warn: Callable[[str], None]) -> list[Entry]:
    """Entries of a folder in one of the usual layouts.

    Beside each other (``X.nrrd`` with ``X.seg.nrrd``, ``X_seg``, ``X-label``, ``X_mask`` ...); folders ``images*`` with
    ``labels*``, ``masks``, ``predictions`` ... (nnU-Net and Decathlon, channels as ``X_0000``, ``X_0001``); one folder
    per case with an image (or DICOM files) and a segmentation. Tells which images have no segmentation.

    Raises:
        UserError: no such folder, or no pair in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"A folder was expected at '{folder}', but there is none.", "Check the path.")
    pairs, left = _beside(folder)
    for image_folder, label_folder in _folder_pairs(folder):
        more, without = _across(image_folder, label_folder)
        pairs, left = pairs + more, left + without
    if not pairs:
        for case in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            more, without = _beside(case)
            pairs, left = pairs + more, left + [f"{case.name}/{name}" for name in without]
    _tell_left_out(left, warn)
    judged = _Judged()
    return _some([_entry(images, label, {"title": name}, judged) for name, images, label in pairs], folder)


def _beside(folder: Path) -> tuple[list, list[str]]:
    """((title, images, segmentation) of the pairs in one folder, names of images without a segmentation)."""
    images = images_in(folder) or ({folder.name: (folder,)} if has_dicom(folder) else {})
    labels = [(base, path) for path in _files(folder) if (base := segmentation_base(path)) is not None]
    pairs, used = [], set()
    for base, path in labels:
        alone = next(iter(images)) if len(images) == 1 else None  # one image: whatever the segmentation is called
        name = base if base in images else alone
        if name is not None:
            pairs.append((folder.name if name in ("image", "") else name, images[name], path))
            used.add(name)
    return pairs, [name for name in images if name not in used] if labels else []


def _across(image_folder: Path, label_folder: Path) -> tuple[list, list[str]]:
    images = images_in(image_folder)
    labels: dict[str, Path] = {}
    for path in _files(label_folder):
        labels.setdefault(stem(path), path)
        labels.setdefault(segmentation_base(path) or stem(path), path)
    pairs = [(name, paths, labels[name]) for name, paths in images.items() if name in labels]
    return pairs, [name for name in images if name not in labels]


def _folder_pairs(folder: Path) -> list[tuple[Path, Path]]:
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    found = []
    for image_folder in inside:
        part = _IMAGE_FOLDERS.get(image_folder.name.lower())
        labels = [path for path in inside if path.name.lower() in _LABEL_FOLDERS] if part is not None else []
        same = [path for path in labels if _LABEL_FOLDERS[path.name.lower()] == part]
        found += [(image_folder, path) for path in same or [p for p in labels if not _LABEL_FOLDERS[p.name.lower()]]]
    return found


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if is_image_file(path)]


class _Judged:
    """Which segmentations have scores beside them; every folder is looked into once, not once per case."""

    def __init__(self):
        self._names: dict[str, set[str]] = {}

    def read(self, segmentation: Path) -> dict | None:
        folder = str(segmentation.parent)
        if folder not in self._names:
            try:
                self._names[folder] = {name for name in os.listdir(folder) if name.endswith(scores_file.ENDING)}
            except OSError:
                self._names[folder] = set()  # that the segmentation is missing is told when it is opened
        known = self._names[folder]
        return scores_file.read(segmentation) if known and scores_file.path_of(segmentation).name in known else None


def _entry(images: Iterable, segmentation, row: dict, judged: _Judged | None = None) -> Entry:
    images = tuple(str(image) for image in images)
    known = judged.read(segmentation) if judged else None
    known = known or {"scores": {}, "review": [], "model": None}
    places = {item["structure"]: item["places"] for item in known["review"]}
    return Entry(
        images,
        str(segmentation),
        row.get("title") or Path(images[0]).name,
        row.get("model") or known["model"],
        row.get("scores") or known["scores"],
        row.get("places") or places,
    )


def _some(entries: list[Entry], where) -> list[Entry]:
    if not entries:
        raise UserError(
            f"Images with segmentations were expected in '{where}', but no pair was found.",
            "Name them alike (X.nrrd and X.seg.nrrd), or list them in a CSV with the columns image and segmentation.",
        )
    return entries


def _tell_left_out(names: list[str], warn: Callable[[str], None]) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        warn(f"Left out, as they have no segmentation: {', '.join(names[:5])}{more}.")
