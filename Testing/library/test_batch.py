"""A cohort on several processes: nothing lost, nothing done twice, and one bad case stops nobody."""

import csv
import json
import multiprocessing
import os
import signal

import pytest
from batch_cases import make_images

from MambaSegLib import batch, case_files, cli, scores_file
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.image import read_labels
from MambaSegLib.job import Report

pytest.importorskip("distributed")


def request(folder, bundle, output, **more):
    return {"inputs": [str(folder)], "model": str(bundle), "output": str(output), "device": "cpu", **more}


def summary(output):
    with open(output / batch.SUMMARY, encoding="utf-8-sig", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def receipts(output):
    return {path.name: path.stat().st_mtime_ns for path in output.glob("*.review.json")}


def test_two_workers_one_killed_midway(tmp_path, tiny_bundle):
    names = [f"fall ä{index}.nii.gz" for index in range(5)]
    images, output = make_images(tmp_path / "images", names, size=48), tmp_path / "out"
    (images / "broken.nrrd").write_bytes(b"no image")
    seen, killed = {}, []

    def watch(event):
        if event["event"] != "progress":
            return
        for name, time in receipts(output).items():
            assert seen.setdefault(name, time) == time, f"{name} was done twice"
        if seen and not killed:  # while both workers are at their next cases
            victim = next(p for p in multiprocessing.active_children() if "Dask Worker" in p.name)
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    result = batch.run(request(images, tiny_bundle, output, workers=2), Report(watch))
    assert killed and result["done"] == 5 and [f["case"] for f in result["failed"]] == ["broken"]
    rows = summary(output)
    assert {row["status"] for row in rows.values()} == {"done", "failed"} and len(rows) == 6
    assert "broken.nrrd" in rows["broken"]["error"]
    for name, row in rows.items():
        if row["status"] == "done":
            labels = read_labels(output / row["segmentation"]).array
            assert float(row["Anterior ml"]) == pytest.approx((labels == 1).sum() / 1000, abs=1e-3), name
            assert 0 <= float(row["review_score"]) <= 1 and float(row["seconds"]) > 0
    assert not multiprocessing.active_children() and not list(output.glob(".*"))

    before = receipts(output)
    (output / "fall ä3.review.json").unlink()  # as if the power had failed before its receipt was written
    again = batch.run(request(images, tiny_bundle, output, resume=True), Report())
    assert (again["skipped"], again["done"], len(again["failed"])) == (4, 1, 1)
    after = receipts(output)
    assert {name for name in before if after[name] != before[name]} == {"fall ä3.review.json"}


def test_a_cancelled_batch_keeps_what_was_done_and_ends_its_workers(tmp_path, tiny_bundle):
    images, output = make_images(tmp_path / "images", ["a.nrrd", "b.nrrd", "c.nrrd"], size=44), tmp_path / "out"

    def cancel_after_the_first(event):
        if event["event"] == "progress" and event["done"] == 1:
            report.cancel()

    report = Report(cancel_after_the_first)
    with pytest.raises(Cancelled):
        batch.run(request(images, tiny_bundle, output), report)
    statuses = [row["status"] for row in summary(output).values()]
    assert statuses.count("done") == 1 and statuses.count("not run") == 2
    assert not multiprocessing.active_children()


def test_results_of_others_are_not_touched(tmp_path, tiny_bundle):
    images, output = make_images(tmp_path / "images", ["a.nrrd"]), tmp_path / "out"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="empty output folder"):
        batch.run(request(images, tiny_bundle, output), Report())
    (output / "a.seg.nrrd").write_bytes(b"drawn by another model")
    found = {"model": "other", "model_sha256": "0" * 64, "review": [], "segments": [], "time_s": 1.0, "warnings": []}
    scores_file.write(output / "a.seg.nrrd", found, fingerprint="?")
    with pytest.raises(UserError, match="another model"):
        batch.run(request(images, tiny_bundle, output, resume=True), Report())
    assert (output / "a.seg.nrrd").read_bytes() == b"drawn by another model"


def test_an_absent_scheduler_is_told(tmp_path, tiny_bundle, monkeypatch):
    from MambaSegLib import batch_worker

    patient = batch_worker.Client
    monkeypatch.setattr(batch_worker, "Client", lambda where, timeout: patient(where, timeout="1s"))
    images = make_images(tmp_path / "images", ["a.nrrd"])
    with pytest.raises(UserError, match="nobody answers"):
        batch.run(request(images, tiny_bundle, tmp_path / "out", scheduler="tcp://127.0.0.1:9"), Report())


def test_the_command_works_with_a_running_scheduler(tmp_path, tiny_bundle, capsys):
    from distributed import LocalCluster

    images = make_images(tmp_path / "images", ["a.nrrd"])
    table = tmp_path / "list.csv"
    table.write_text("case;image\nerster Fall;images/a.nrrd\n", encoding="utf-8")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as there:
        place = ["-o", str(tmp_path / "out"), "--scheduler", there.scheduler_address, "--json"]
        code = cli.main(["batch", str(table), "-m", str(tiny_bundle), *place])
    assert code == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["done"] == 1
    assert images.is_dir() and scores_file.read(tmp_path / "out" / "erster Fall.seg.nrrd")["model"]["id"] == "tiny"


def test_failed_cases_are_told_by_the_exit_code(tmp_path, tiny_bundle, capsys):
    images = make_images(tmp_path / "images", ["good.nrrd"])
    (images / "bad.nrrd").write_bytes(b"no image")
    command = ["batch", str(images), "-m", str(tiny_bundle), "-o", str(tmp_path / "out")]
    assert cli.main(command) == 2
    told = capsys.readouterr()
    assert "1 done, 0 done before, 1 failed" in told.out and "1 of 2 cases failed; the first, bad" in told.err
    make_images(images, ["bad.nrrd"])
    assert cli.main([*command, "--resume"]) == 0


def test_cases_are_found_in_the_usual_layouts(tmp_path):
    make_images(tmp_path / "flat", ["a.nii.gz", "a.seg.nrrd", "b.nrrd", "b_seg.nrrd", "c-label.nrrd"], size=2)
    found = case_files.find_cases([tmp_path / "flat", tmp_path / "flat" / "a.nii.gz"])
    assert [(case.name, len(case.images)) for case in found] == [("a", 1), ("b", 1)]
    make_images(tmp_path / "nnunet", ["x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz", "scan_2024.nii.gz"], size=2)
    found = {case.name: [path.name for path in case.images] for case in case_files.find_cases([tmp_path / "nnunet"])}
    assert found == {"x": ["x_0000.nii.gz", "x_0001.nii.gz"], "y": ["y_0000.nii.gz"], "scan_2024": ["scan_2024.nii.gz"]}
    make_images(tmp_path / "other", ["a.nii.gz"], size=2)
    found = case_files.find_cases([tmp_path / "flat" / "a.nii.gz", tmp_path / "other"])
    assert [case.name for case in found] == ["flat_a", "other_a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,picture\n1,a.png\n", "column 'image'"),
        ("image,case\n,x\n", "Line 2"),
        ("image,case\na.nrrd,../x\n", "../x"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(tmp_path, text, words):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        case_files.find_cases([tmp_path / "list.csv"])


def test_the_local_cluster_asks_for_no_fixed_port(recwarn):
    from MambaSegLib.batch_worker import _local

    with _local(0) as one, _local(0) as other:
        ports = [cluster.scheduler.http_server.port for cluster in (one, other)]
    assert 8787 not in ports and ports[0] != ports[1]
    assert not [w for w in recwarn if "already in use" in str(w.message)]
