"""The job "inspect_weights": what can be told of somebody's weights before they are imported, and what must be said."""

from .checkpoint_fingerprint import recognise
from .checkpoint_import import read_checkpoint
from .import_model import completed
from .import_source import find_source
from .job import Report
from .networks import names, spec
from .nnunet_plan import inputs_of, labels_of


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "checkpoint" (file or trained folder); "trust" as for the job "import"; optional "fold".
        report: messages.
        warm: not used.

    Returns:
        {network (variant, "" when it is not recognised), dims (name -> 2 or 3 for every variant), channels and classes
        (with the background; 0 where they cannot be told), labels (names of 1, 2, ...; [] when not stated), inputs (as
        in ``bundle.json``; [] when not stated), has_plan (voxel size, intensities and patch are stated)}

    Raises:
        UserError: no weights there, a pickle without trust, or one with other things than weights.
    """
    source = find_source(request["checkpoint"], str(request.get("fold") or ""))
    report.message(f"Reading {source.weights.name}")
    checkpoint = completed(read_checkpoint(source.weights, bool(request.get("trust"))), source)
    found = recognise(checkpoint.weights, checkpoint.plans)
    report.check_cancelled()
    return {
        "network": found.name,
        "dims": {name: spec(name).dims for name in names() if not name.endswith("_test")},
        "channels": found.in_channels,
        "classes": max(2, found.out_channels) if found.out_channels else 0,
        "labels": list(labels_of(checkpoint.dataset).values()),
        "inputs": inputs_of(checkpoint.dataset),
        "has_plan": "spacing" in checkpoint.plans,
    }
