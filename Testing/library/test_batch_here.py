"""A cohort in this process, as the panel does it: no dask, progress within a case, and how it stands beforehand."""

import csv
import sys

import numpy as np
import pytest
from batch_cases import make_images

from MambaSegLib import batch, batch_case, scores_file
from MambaSegLib.errors import Cancelled, MissingPackage, UserError
from MambaSegLib.image import read_labels
from MambaSegLib.job import Report, resolve


def request(folder, bundle, output, **more):
    return {"inputs": [str(folder)], "model": str(bundle), "output": str(output), "device": "cpu", "workers": 0, **more}


def statuses(output):
    with open(output / batch.SUMMARY, encoding="utf-8-sig", newline="") as file:
        return {row["case"]: row["status"] for row in csv.DictReader(file)}


def test_without_dask_and_with_one_bad_case(tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "distributed", None)
    images, output, events = make_images(tmp_path / "images", ["a.nrrd", "c.nii.gz"]), tmp_path / "out", []
    (images / "b.mha").write_bytes(b"no image")
    warm = {}
    result = resolve("batch")(request(images, tiny_bundle, output), Report(events.append), warm)
    assert (result["done"], [case["case"] for case in result["failed"]]) == (2, ["b"])
    assert statuses(output) == {"a": "done", "b": "failed", "c": "done"}
    assert len(warm["networks"]) == 1, "the network is kept warm from case to case, and after them"
    assert np.unique(read_labels(output / "c.seg.nrrd").array).size > 1
    bars = [(event["done"], event["label"]) for event in events if event["event"] == "progress"]
    assert [done for done, _label in bars] == sorted(done for done, _label in bars)
    assert any(2 < done < 3 and label == "Case 3 of 3: c" for done, label in bars), "it moves within a case, too"
    assert not list(output.glob(".*"))


def test_same_files_as_with_workers(tmp_path, tiny_bundle):
    pytest.importorskip("distributed")
    images = make_images(tmp_path / "images", ["a.nrrd"])
    batch.run(request(images, tiny_bundle, tmp_path / "here"), Report())
    batch.run(request(images, tiny_bundle, tmp_path / "there", workers=1), Report())
    here, there = (read_labels(tmp_path / name / "a.seg.nrrd").array for name in ("here", "there"))
    assert np.array_equal(here, there)
    more = {"labels": [], "smoothing_mm": 0.0, "largest_component": False, "device": "auto", "resume": True}
    again = batch.run(request(images, tiny_bundle, tmp_path / "there", **more), Report())
    assert again["skipped"] == 1, "what nobody asked for is no other option"


def test_cancelled_within_a_case(tmp_path, tiny_bundle):
    images, output = make_images(tmp_path / "images", ["a.nrrd", "b.nrrd", "c.nrrd"]), tmp_path / "out"

    def cancel_in_the_second(event):
        if event["event"] == "progress" and 1 < event["done"] < 2:
            report.cancel()

    report = Report(cancel_in_the_second)
    with pytest.raises(Cancelled):
        batch.run(request(images, tiny_bundle, output), report)
    assert statuses(output) == {"a": "done", "b": "not run", "c": "not run"}
    assert sorted(path.name for path in output.iterdir()) == ["a.review.json", "a.seg.nrrd", "summary.csv"]
    found = batch.look(request(images, tiny_bundle, output), Report())
    assert (found["cases"], found["done"], found["summary"]) == (3, 1, str(output / "summary.csv"))
    assert batch.run(request(images, tiny_bundle, output, resume=True), Report())["skipped"] == 1


def test_the_summary_is_right_at_any_moment_and_the_case_that_ended_the_process_comes_last(
    tmp_path, tiny_bundle, monkeypatch
):
    images, output, order = make_images(tmp_path / "images", ["a.nrrd", "b.nrrd", "c.nrrd"]), tmp_path / "out", []
    process = batch_case.process

    class Killed(BaseException):
        """The process was gone at once."""

    def killed_at_b(task, report, warm):
        order.append(task["case"])
        if task["case"] == "b" and order.count("b") == 1:
            monkeypatch.setattr(batch_case.Path, "unlink", lambda path, missing_ok=False: None)
            raise Killed
        return process(task, report, warm)

    monkeypatch.setattr(batch_case, "process", killed_at_b)
    monkeypatch.setattr(batch, "_write_summary", kept := Kept(batch._write_summary))
    with pytest.raises(Killed):
        batch.run(request(images, tiny_bundle, output), Report())
    assert kept.statuses[-2] == {"a": "done", "b": "not run", "c": "not run"}, "before anything could be tidied up"
    monkeypatch.undo()
    monkeypatch.setattr(batch_case, "process", killed_at_b)
    assert batch.run(request(images, tiny_bundle, output, resume=True), Report())["done"] == 2
    assert order == ["a", "b", "c", "b"] and not list(output.glob(".*"))


class Kept:
    """Writes the summary and remembers what stood in it."""

    def __init__(self, write):
        self._write, self.statuses = write, []

    def __call__(self, folder, tasks, finished):
        self._write(folder, tasks, finished)
        self.statuses.append(statuses(folder))


def test_a_missing_package_ends_it_as_no_case_can_be_done(tmp_path, tiny_bundle, monkeypatch):
    def no_torch(name):
        raise MissingPackage("torch", "The job needs torch.")

    monkeypatch.setattr(batch_case, "resolve", no_torch)
    with pytest.raises(MissingPackage):
        batch.run(request(make_images(tmp_path / "images", ["a.nrrd"]), tiny_bundle, tmp_path / "out"), Report())


def test_looking_changes_nothing_and_tells_what_is_in_the_way(tmp_path, tiny_bundle):
    images, output = make_images(tmp_path / "images", ["a.nrrd", "b.nrrd"], size=4), tmp_path / "out"
    assert batch.look(request(images, tiny_bundle, output), Report()) == {"cases": 2, "done": 0, "summary": ""}
    assert not output.exists()
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="empty output folder"):
        batch.look(request(images, tiny_bundle, output), Report())
    with pytest.raises(UserError, match="empty output folder"):
        batch.look(request(images, tiny_bundle, images), Report())
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="none was found"):
        batch.look(request(tmp_path / "nothing", tiny_bundle, tmp_path / "new"), Report())
    two = make_images(tmp_path / "two", ["x_0000.nrrd", "x_0001.nrrd", "y_0000.nrrd", "y_0001.nrrd"], size=4)
    with pytest.raises(UserError, match=r"1 image per case .* 'x' has 2"):
        batch.look(request(two, tiny_bundle, tmp_path / "new"), Report())


def test_a_result_without_its_scores_is_kept(tmp_path, tiny_bundle):
    images, output = make_images(tmp_path / "images", ["a.nrrd"]), tmp_path / "out"
    batch.run(request(images, tiny_bundle, output), Report())
    (output / "a.seg.nrrd").write_bytes(b"corrected by hand")
    scores_file.path_of(output / "a.seg.nrrd").unlink()
    again = batch.run(request(images, tiny_bundle, output, resume=True), Report())
    assert (again["done"], again["skipped"]) == (1, 0)
    assert (output / "a.earlier-1.seg.nrrd").read_bytes() == b"corrected by hand"
    assert np.unique(read_labels(output / "a.seg.nrrd").array).size > 1
