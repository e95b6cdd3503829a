"""The job "batch": one model over a cohort, in this process, on several of this machine, or on a cluster of dask.

Every case ends with two files, written in this order: ``<case>.seg.nrrd`` and ``<case>.review.json``. The second one is
the receipt: a case with a receipt for the same image and model is done, whoever asks again. So a worker may die at any
moment: its case is given to another one, and what was done stays done. The job "batch_look" says how a batch stands.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import queue
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from . import batch_case, catalogue, scores_file
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
_WISHES = ("labels", "smoothing_mm", "largest_component")  # nothing asked for is the same as not asked
_PASSED_ON = ("device", "overlap", "mirror", *_WISHES)


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "inputs" (files, folders, CSV; see `case_files`), "model" (id or folder), "output" (folder); optional
            "workers" (processes, default 1; 0: in this process, which needs no dask), "scheduler" (address of a
            running dask scheduler, whose workers see the same files and have this package), "resume" (True: go on in a
            folder that has results), "computer" (another one that computes, see `remote`), and of the job "segment":
            "device", "overlap", "mirror", "labels", "smoothing_mm", "largest_component".
        report: progress by case and cancellation.
        warm: kept by the caller between runs; used by the cases of this process, workers have their own.

    Returns:
        {output, summary, cases, done, skipped, failed: [{case, error}]}

    Raises:
        UserError: nothing to do, or the folder, model or scheduler is not usable. A case that fails is no error: it is
            in the summary, and the others go on. Cancelled: by the report; what was done stays.
    """
    folder = Path(request["output"]).expanduser().resolve()
    tasks = _tasks(request, folder, report)
    _make_folder(folder, bool(request.get("resume")))
    finished = {name: done for name, task in tasks.items() if (done := receipt(task))}
    skipped, total = len(finished), len(tasks)
    if skipped:
        report.message(f"Done already: {skipped} of {counted(total, 'case')}.")
    waiting = {name: task for name, task in tasks.items() if name not in finished}
    _write_summary(folder, tasks, finished)
    report.progress(skipped, total, f"{skipped} of {counted(total, 'case')} done")
    try:
        with closing(_outcomes(waiting, total, request, report, {} if warm is None else warm)) as outcomes:
            for name, outcome in outcomes:
                finished[name] = outcome
                with suppress(UserError):  # some program shows it, and keeps others from writing: the next time
                    _write_summary(folder, tasks, finished)
                if outcome["error"]:
                    report.message(f"{name}: {outcome['error']}", "warning")
                report.progress(len(finished), total, name)
    finally:
        _write_summary(folder, tasks, finished)
    return _result(folder, finished, total, skipped)


def _result(folder: Path, finished: dict[str, dict], total: int, skipped: int) -> dict:
    failed = [{"case": name, "error": done["error"]} for name, done in finished.items() if done["error"]]
    result = {"output": str(folder), "summary": str(folder / SUMMARY), "cases": total, "skipped": skipped}
    return result | {"done": total - skipped - len(failed), "failed": failed}


def look(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job "batch_look": what `run` would find with the same request; reads no image and writes nothing.

    Returns:
        {cases, done (of them, by an earlier run), summary (path; "" without an earlier run)}. With a summary, "resume"
        is what goes on there.

    Raises:
        UserError: as `run`, also when the output folder has other files. Cancelled: by the report.
    """
    folder = Path(request["output"]).expanduser().resolve()
    tasks = _tasks(request, folder, report)
    summary = folder / SUMMARY
    if not summary.is_file():
        _refuse_full(folder, "Choose another one.")
        return {"cases": len(tasks), "done": 0, "summary": ""}
    done = 0
    for task in tasks.values():
        report.check_cancelled()
        done += receipt(task) is not None
    return {"cases": len(tasks), "done": done, "summary": str(summary)}


def _tasks(request: dict, folder: Path, report: Report) -> dict[str, dict]:
    """What is to be done by the name of its case. Raises UserError when it cannot be done."""
    cases, bundle = find_cases(request["inputs"]), catalogue.find(request["model"])
    _refuse_unfit(cases, bundle)
    options = {name: request[name] for name in _PASSED_ON if request.get(name) is not None}
    tasks = {}
    for case in cases:
        report.check_cancelled()
        tasks[case.name] = _task(case, bundle, folder, options) | {"computer": request.get("computer")}
    _refuse_others(tasks)
    return tasks


def _task(case: ImageCase, bundle: ModelBundle, folder: Path, options: dict) -> dict:
    images = [str(path.resolve()) for path in case.images]
    output = str(folder / f"{case.name}.seg.nrrd")
    request = options | {"input": images, "model": str(bundle.folder), "output": output}
    # Asked for by default or by name is the same, and so is the result on whatever device.
    asked = {name: value for name, value in options.items() if name != "device" and (value or name not in _WISHES)}
    recipe = [bundle.preprocessing, bundle.inference]  # two models may have the same weights
    state = file_key([Path(image) for image in images]) + json.dumps([asked, recipe], sort_keys=True)
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


def _refuse_unfit(cases: list[ImageCase], bundle: ModelBundle) -> None:
    """Raise UserError when no case has as many images as the model needs; single ones fail on their own."""
    fitting = {len(bundle.inputs)} | ({1} if bundle.is_for_pictures else set())
    if not any(len(case.images) in fitting for case in cases):
        names = ", ".join(item["name"] for item in bundle.inputs)
        raise UserError(
            f"The model '{bundle.id}' expects {counted(len(bundle.inputs), 'image')} per case ({names}), but "
            f"'{cases[0].name}' has {len(cases[0].images)}, and so on.",
            "Name the images of a case CASE_0000.nii.gz, CASE_0001.nii.gz ..., or list them in a CSV.",
        )


def _refuse_full(folder: Path, hint: str) -> None:
    try:
        is_full = folder.exists() and any(folder.iterdir())
    except OSError as error:  # a file, or no right to look into it
        raise cannot_write(folder, error) from error
    if is_full:
        raise UserError(f"An empty output folder was expected, but '{folder}' has files.", hint)


def _make_folder(folder: Path, is_resumed: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    if not is_resumed:
        _refuse_full(folder, "Choose another one, or go on there with --resume.")


def _outcomes(waiting: dict, total: int, request: dict, report: Report, warm: dict) -> Iterator[tuple[str, dict]]:
    """(name, outcome) of every waiting task, as they are ready."""
    workers = _workers(request)
    if waiting and (workers or request.get("scheduler")):
        return _by_workers(waiting, min(workers, len(waiting)), request.get("scheduler"), report)
    return batch_case.one_by_one(waiting, total, report, warm)


def _by_workers(waiting: dict, workers: int, scheduler: str | None, report: Report) -> Iterator[tuple[str, dict]]:
    report.message("Starting the workers")
    outcomes: queue.SimpleQueue = queue.SimpleQueue()
    try:
        from . import batch_worker
    except ImportError as error:
        raise UserError(
            f"A batch on several processes needs the Python package {error.name!r}, which is not installed.",
            "Install it: pip install 'dask[distributed]' (or this project with its extra 'batch'), or use --workers 0.",
        ) from error
    with batch_worker.cluster(scheduler, workers) as client:
        futures = {client.submit(batch_worker.process, task, pure=False): name for name, task in waiting.items()}
        for future in futures:
            future.add_done_callback(outcomes.put)
        left = len(futures)
        while left:
            report.check_cancelled()
            try:
                future = outcomes.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            left -= 1
            yield futures[future], future.result() if future.status == "finished" else {"error": _death(future)}


def _workers(request: dict) -> int:
    count = 1 if request.get("workers") is None else request["workers"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise UserError(f"A number of workers from 0 on was expected, but {count!r} came.", "Use 1 on a laptop.")
    return count


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
