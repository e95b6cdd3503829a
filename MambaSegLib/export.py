"""The job "export": a model for other people, as one file, and for other programs, as ONNX, torch.export's or MONAI's.

ONNX and torch files hold the network for windows of the model's patch; ``FILE.json`` beside them is the model's
``bundle.json``, which says how an image becomes windows and what the classes are. A MONAI bundle takes and gives whole
images. None of them names cases that may be patients, see `provenance`. "bundle" needs no torch.
"""

import dataclasses
from pathlib import Path

from . import catalogue
from .bundle import ModelBundle
from .bundle_archive import ENDING, write_archive
from .errors import UserError
from .job import Report
from .provenance import private_names, shareable
from .safe_file import refuse_existing

FORMATS = ("bundle", "monai", "onnx", "torch")


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "model" (id or folder), "output" (new file, or new folder for "monai"), "format" (of ``FORMATS``);
            optional "case_names" (true: also those names of cases in the history that may tell of patients).
        report: messages; progress while a file is written.
        warm: not used.

    Returns:
        {output, format, input_shape, difference, withheld}: shape of the window (1, C, (Z,) Y, X) and the largest
        difference of the written network's logits from ours over the largest logit, None for "bundle" and "monai";
        how many names of cases were left out.

    Raises:
        UserError: no such model or format, the output exists, a package is missing, the network cannot be expressed.
    """
    bundle, output = (catalogue.find(request["model"]), Path(request["output"]).expanduser().absolute())
    kind = request.get("format")
    if kind not in FORMATS:
        raise UserError(f"Unknown format {kind!r}.", f"Choose one of {', '.join(FORMATS)}.")
    if kind == "bundle" and output.suffix.lower() != ENDING:
        raise UserError(f"A name that ends in {ENDING} was expected, not '{output.name}'.", "Give it that ending.")
    refuse_existing(output)
    report.message(f"Exporting {bundle.title}")
    decision, withheld = catalogue.decision_of(bundle.folder) if kind == "bundle" else None, []
    if not request.get("case_names"):
        withheld = private_names(bundle.data, decision)
        data, decision = shareable(bundle.data, decision)
        bundle = dataclasses.replace(bundle, data=data)
    result = {"output": str(output), "format": kind, "input_shape": None, "difference": None}
    return result | {"withheld": len(withheld)} | _write(bundle, decision, output, kind, report)


def _write(bundle: ModelBundle, decision: dict | None, output: Path, kind: str, report: Report) -> dict:
    if kind == "bundle":
        write_archive(bundle, decision, output, report)
        return {}
    if kind == "monai":
        from .monai_export import write_monai_bundle

        write_monai_bundle(bundle, output)
        return {}
    from .network_file import write_network

    return write_network(bundle, output, kind)
