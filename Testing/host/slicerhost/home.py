"""The folder that stands for Slicer's installation: bin/PythonSlicer, terminologies, a temporary folder."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path


def make_home() -> Path:
    """A folder like Slicer's: bin/PythonSlicer (a launcher whose child is this Python), share, temp."""
    home = Path(tempfile.mkdtemp(prefix="slicerhost-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in ("bin", "temp", "share"):
        (home / name).mkdir()
    launcher = home / "bin" / "PythonSlicer"
    # As the real launcher: the interpreter is a child, killing the launcher does not kill it.
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n', encoding="utf-8")
    launcher.chmod(0o755)
    os.environ["PATH"] = f"{launcher.parent}{os.pathsep}{os.environ['PATH']}"
    _write_terminologies(home / "share")
    return home


_SCHEMAS = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/"


def _code(value: str, meaning: str, **more) -> dict:
    return {"CodeMeaning": meaning, "CodingSchemeDesignator": "SCT", "CodeValue": value, **more}


def _write_terminologies(folder: Path) -> None:
    """slicer-core has no terminology files and its logic wants three; these hold one structure."""
    hippocampus = _code("5366008", "Hippocampus", recommendedDisplayRGBValue=[0, 200, 200])
    anatomy = _code("123037004", "Anatomical Structure", showAnatomy=False, Type=[hippocampus])
    for name in ("SlicerGeneralAnatomy", "DICOM-Master"):
        content = {
            "@schema": _SCHEMAS + "segment-context-schema.json#",
            "SegmentationCategoryTypeContextName": f"Segmentation category and type - {name}",
            "SegmentationCodes": {"Category": [anatomy]},
        }
        path = folder / f"SegmentationCategoryTypeModifier-{name}.term.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    region = {
        "@schema": _SCHEMAS + "anatomic-context-schema.json#",
        "AnatomicContextName": "Anatomic codes - DICOM master list",
        "AnatomicCodes": {"AnatomicRegion": [hippocampus]},
    }
    path = folder / "AnatomicRegionAndModifier-DICOM-Master.term.json"
    path.write_text(json.dumps(region), encoding="utf-8")
