"""What a model said about its own result, kept beside it: ``X.review.json`` beside ``X.seg.nrrd``. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path

from .case_files import stem
from .errors import UserError
from .job import to_json_value
from .safe_file import write_text

SCHEMA_VERSION = 1
ENDING = ".review.json"


def path_of(segmentation: str | Path) -> Path:
    """Where the scores of a segmentation file stand."""
    path = Path(segmentation)
    return path.with_name(stem(path) + ENDING)


def write(segmentation: str | Path, result: dict, **more) -> Path:
    """Keep what a review needs of `result`, as the job "segment" returned it, and `more`."""
    kept = {"schema_version": SCHEMA_VERSION, "model": {"id": result["model"], "sha256": result["model_sha256"]}}
    kept |= {name: result[name] for name in ("review", "segments", "time_s", "warnings")}
    text = json.dumps(to_json_value(kept | more), indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(path_of(segmentation), text + "\n")


def read(segmentation: str | Path) -> dict | None:
    """What `write` kept; None when there is no such file. UserError when it is damaged."""
    path = path_of(segmentation)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        scored = {row["structure"]: float(row["score"]) for row in data["review"]}
        return data | {"scores": scored, "sha256": data["model"]["sha256"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged.", "Delete it, and segment this image again.") from error
