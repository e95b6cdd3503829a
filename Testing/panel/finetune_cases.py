"""For the tests of the page Fine-tune: cases, a worker that only takes requests, and a child of the model 'quick'."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np


def keys(part: str, count: int) -> list[str]:
    """Names of patients that belong to this part."""
    from MambaSegLib.corrected_case import patient_hash

    isHeldOut = lambda key: int(patient_hash(key)[:16], 16) / 2**64 < 0.25  # noqa: E731
    return [k for k in (f"P{i}" for i in range(200)) if isHeldOut(k) == (part == "hold-out")][:count]


def add_case(store, key: str, seed: int):
    """A small image with two cubes in it."""
    from MambaSegLib import corrections
    from MambaSegLib.bundle import Label
    from MambaSegLib.volume import Volume

    noise = np.random.default_rng(seed).normal(size=(28, 28, 28)).astype(np.float32)
    labels = np.zeros(noise.shape, np.uint8)
    labels[6:14, 6:20, 6:20], labels[14:22, 6:20, 6:20] = 1, 2
    image = Volume(noise + 3 * labels, np.ones(3), np.zeros(3), np.eye(3), name=f"Image {seed}")
    names = ("Anterior hippocampus", "Posterior hippocampus")
    table = [Label(value, name, (200, 100, 50), {}) for value, name in enumerate(names, start=1)]
    annotated = {"structures": list(names), "slices": None}
    return corrections.add(store, [image], image.with_array(labels), table, annotated, key, "Ann")


def events(page, monkeypatch) -> list:
    """The worker only takes requests: [job, params, onEvent]."""
    asked = []
    monkeypatch.setattr(page.services.worker, "run", lambda *request: asked.append(request) or str(len(asked)))
    monkeypatch.setattr(page.services.worker, "cancel", lambda key: asked[int(key) - 1][2]({"event": "cancelled"}))
    return asked


DECISION = {"accepted": True, "reasons": ["Better."], "protocol": "hold-out", "margin": 0.01}
ROW = {"structure": "Anterior hippocampus", "cases": 4, "patients": 3, "dice_before": 0.81, "dice_after": 0.84}
ROW |= {"difference": 0.03, "low": 0.01, "high": 0.05, "agreement": 0.9, "finds_before": True, "finds_after": True}
ROW |= {f"{name}_{when}": 1.0 for name in ("surface_dice", "hd95", "volume_error") for when in ("before", "after")}
ROW |= {"false_alarms_before": 0, "false_alarms_after": 0, "worst_case": "a", "worst_difference": 0.0}


def make_child(folder, accepted=True):
    """A version of 'quick' with other weights, judged."""
    from MambaSegLib import model_store
    from MambaSegLib.bundle import open_bundle

    parent = open_bundle(folder / "quick")
    work = Path(tempfile.mkdtemp()) / "child"  # elsewhere, or the child would be there twice
    shutil.copytree(parent.folder, work)
    data = json.loads((work / "bundle.json").read_text())
    weights = work / parent.weights_path.name
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    text = json.dumps(data).replace(parent.sha256, hashlib.sha256(content).hexdigest())
    data = json.loads(text)
    provenance = {"parent": "quick", "parent_sha256": parent.sha256, "lineage": "quick", "new_cases": []}
    data["provenance"] |= provenance
    (work / "bundle.json").write_text(json.dumps(data))
    decision = DECISION | {"accepted": accepted, "rows": [ROW]}
    version = model_store.add(open_bundle(work), decision, folder)
    shutil.rmtree(work.parent)
    if accepted:
        model_store.promote(version.id, folder)
    return version


def finish(user, page, store, monkeypatch, folder, accepted: bool):
    """A fine-tuning that ends at once with a child of 'quick'; returns its version."""
    if not list(store.glob("2*")):
        add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    asked = events(page, monkeypatch)
    user.click(user.ui.startTrainingButton)
    version = make_child(folder, accepted)
    decision = DECISION | {"accepted": accepted, "rows": [ROW]}
    answer = {"candidate": str(version.folder), "decision": decision, "promoted": accepted}
    asked[-1][2]({"event": "finished", "result": answer})
    return version


def active(folder) -> str:
    from MambaSegLib import model_store

    (version,) = (v for v in model_store.history("quick", folder) if v.is_active)
    return version.id
