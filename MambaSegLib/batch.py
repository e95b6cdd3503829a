"""The job "batch": one model over a cohort, on several processes of this machine or on a cluster of dask.distributed.

Every case ends with two files, written in this order: ``<case>.seg.nrrd`` and ``<case>.review.json``. The second one is
the receipt: a case with a receipt for the same image and model is done, whoever asks again. So a worker may die at any
moment: its case is given to another one, and what was done stays done.
"""

from __future__ import annotations

import csv
import hashlib
import io
import queue
from pathlib import Path

from . import catalogue, scores_file
from .batch_receipt import receipt
from .bundle import ModelBundle
from .case_files import ImageCase, find_cases
from .errors import UserError
from .job import Report
from .request import file_key
from .safe_file import cannot_write, write_text
from .wording import counted

SUMMARY = "summary.csv"
_POLL_S = 0.3
_PASSED_ON = ("device", "overlap", "mirror", "labels", "smoothing_mm", "largest_component")


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "inputs" (files, folders, CSV; see `case_files`), "model" (id or folder), "output" (folder); optional
            "workers" (processes, default 1), "scheduler" (address of a running dask scheduler, whose workers see the
            same files and have this package), "resume" (True: go on in a folder that has results), and of the job
            "segment": "device", "overlap", "mirror", "labels", "smoothing_mm", "largest_component".
        report: progress by case and cancellation. warm: not used, the workers keep their models warm.

    Returns:
        {output, summary, cases, done, skipped, failed: [{case, error}]}

    Raises:
        UserError: nothing to do, or the folder, model or scheduler is not usable. A case that fails is no error: it is
            in the summary, and the others go on. Cancelled: by the report; what was done stays.
    """
    cases = find_cases(request["inputs"])
    bundle = catalogue.find(request["model"])
    folder = _output_folder(request)
    options = {name: request[name] for name in _PASSED_ON if request.get(name) is not None}
    tasks = {case.name: _task(case, bundle, folder, options) for case in cases}
    _refuse_others(tasks)
    finished = {name: done for name, task in tasks.items() if (done := receipt(task))}
    skipped = len(finished)
    if skipped:
        report.message(f"Done already: {skipped} of {counted(len(cases), 'case')}.")
    try:
        waiting = {name: task for name, task in tasks.items() if name not in finished}
        if waiting:
            _compute(waiting, finished, len(cases), request, report)
    finally:
        _write_summary(folder, tasks, finished)
    failed = [{"case": name, "error": done["error"]} for name, done in finished.items() if done["error"]]
    result = {"output": str(folder), "summary": str(folder / SUMMARY), "cases": len(cases), "skipped": skipped}
    return result | {"done": len(cases) - skipped - len(failed), "failed": failed}


def _task(case: ImageCase, bundle: ModelBundle, folder: Path, options: dict) -> dict:
    images = [str(path.resolve()) for path in case.images]
    output = str(folder / f"{case.name}.seg.nrrd")
    request = options | {"input": images, "model": str(bundle.folder), "output": output}
    state = file_key([Path(image) for image in images]) + repr(sorted(options.items()))
    fingerprint = hashlib.sha256(state.encode("utf-8", errors="surrogatepass")).hexdigest()
    return {
        "case": case.name,
        "request": request,
        "output": output,
        "fingerprint": fingerprint,
        "model_sha256": bundle.sha256,
    }


def _refuse_others(tasks: dict[str, dict]) -> None:
    """Raise UserError when the folder holds results of another model, image or option: they are not overwritten."""
    for name, task in tasks.items():
        if scores_file.path_of(task["output"]).exists() and receipt(task) is None and Path(task["output"]).exists():
            raise UserError(
                f"Results of the same model on the same images were expected in the folder, but '{name}' there is of "
                "another model, another image or other options.",
                "Choose another output folder.",
            )


def _output_folder(request: dict) -> Path:
    folder = Path(request["output"]).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    if any(folder.iterdir()) and not request.get("resume"):
        raise UserError(
            f"An empty output folder was expected, but '{folder}' has files.",
            "Choose another one, or go on there with --resume.",
        )
    return folder


def _compute(waiting: dict, finished: dict, total: int, request: dict, report: Report) -> None:
    """Fill `finished` with the outcome of every waiting task."""
    report.message("Starting the workers")
    outcomes: queue.SimpleQueue = queue.SimpleQueue()
    try:
        from . import batch_worker
    except ImportError as error:
        raise UserError(
            f"A batch needs the Python package {error.name!r}, which is not installed.",
            "Install it: pip install 'dask[distributed]' (or this project with its extra 'batch').",
        ) from error
    with batch_worker.cluster(request.get("scheduler"), _workers(request, len(waiting))) as client:
        futures = {client.submit(batch_worker.process, task, pure=False): name for name, task in waiting.items()}
        for future in futures:
            future.add_done_callback(outcomes.put)
        report.progress(len(finished), total, "Cases")
        left = len(futures)
        while left:
            report.check_cancelled()
            try:
                future = outcomes.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            left -= 1
            name = futures[future]
            finished[name] = future.result() if future.status == "finished" else {"error": _death(future)}
            if finished[name]["error"]:
                report.message(f"{name}: {finished[name]['error']}", "warning")
            report.progress(len(finished), total, name)


def _workers(request: dict, cases: int) -> int:
    count = request.get("workers") or 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UserError(f"A number of workers from 1 on was expected, but {count!r} came.", "Use 1 on a laptop.")
    return min(count, cases)


def _death(future) -> str:
    """Why a case has no outcome: the worker died with it, again and again."""
    if future.status == "error":
        return f"Its worker died again and again (not enough memory?): {future.exception()}"
    return f"The scheduler gave it up ({future.status})."


def _write_summary(folder: Path, tasks: dict[str, dict], finished: dict[str, dict]) -> None:
    """One row per case, for spreadsheets, and as a worklist for the review."""
    names = list(dict.fromkeys(s["name"] for done in finished.values() for s in done.get("segments", ())))
    header = ["case", "image", "segmentation", "status", "seconds", "review_score"]
    header += [f"{name} {what}" for name in names for what in ("ml", "score")] + ["model", "warnings", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="")
    writer.writeheader()
    for name, task in tasks.items():
        row = {"case": name, "image": "; ".join(task["request"]["input"])}
        writer.writerow(row | _outcome(task, finished.get(name)))
    write_text(folder / SUMMARY, "\ufeff" + text.getvalue())


def _outcome(task: dict, done: dict | None) -> dict:
    if done is None:
        return {"status": "not run"}
    if done["error"]:
        return {"status": "failed", "error": done["error"]}
    row = {"status": "done", "segmentation": Path(task["output"]).name, "seconds": f"{done['time_s']:.2f}"}
    row |= {"review_score": f"{max(done['scores'].values(), default=0):.4f}", "warnings": " ".join(done["warnings"])}
    row |= {f"{s['name']} ml": f"{s['volume_ml']:.3f}" for s in done["segments"]}
    row |= {f"{name} score": f"{score:.4f}" for name, score in done["scores"].items()}
    return row | {"model": f"{done['model']['id']} {done['model']['sha256'][:12]}"}
