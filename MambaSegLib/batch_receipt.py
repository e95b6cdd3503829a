"""The receipt of a case in a batch: the file of its scores, when it was made from the same image by the same model."""

from __future__ import annotations

from pathlib import Path

from . import scores_file
from .errors import UserError


def receipt(task: dict) -> dict | None:
    """What stands in a finished case's file, and "error" None; None when the case must be computed.

    Args:
        task: {"output" (segmentation file), "fingerprint" (of image and options), "model_sha256", ...}.
    """
    try:
        kept = scores_file.read(task["output"])
    except UserError:
        return None  # damaged: made anew
    if kept is None or not Path(task["output"]).is_file():
        return None
    same = (kept.get("fingerprint"), kept["sha256"]) == (task["fingerprint"], task["model_sha256"])
    return kept | {"error": None} if same else None
