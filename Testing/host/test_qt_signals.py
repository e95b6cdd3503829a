"""connect(), slots, timers and processes as in PythonQt; what it swallows becomes a problem of the test."""

import sys

import pytest


@pytest.fixture
def qt(slicer_app):
    import qt

    return qt


class Receiver:
    def __init__(self):
        self.seen = []

    def any(self, *arguments):
        self.seen.append(arguments)

    def none(self):
        self.seen.append(())


def test_arguments_are_trimmed_to_the_signature_and_the_slot(qt):
    button, receiver = qt.QPushButton(), Receiver()
    assert button.connect("clicked(bool)", receiver.any)
    assert button.connect("clicked(bool)", receiver.none)
    assert button.connect("clicked()", lambda *a: receiver.seen.append(("noarg", *a)))
    button.click()
    assert sorted(receiver.seen, key=str) == [("noarg",), (), (False,)]


@pytest.mark.parametrize("signature", ["clicked", "klicked()", "clicked(int)"])
def test_a_wrong_signature_gives_false_and_fails_the_test(qt, slicer_app, signature):
    with slicer_app.problems.expected("connect", "does not exist on QPushButton"):
        assert qt.QPushButton().connect(signature, lambda: None) is False


def test_disconnect(qt):
    button, receiver = qt.QPushButton(), Receiver()
    button.connect("clicked(bool)", receiver.any)
    button.connect("clicked(bool)", receiver.none)
    assert button.disconnect("clicked(bool)", receiver.any) is True
    assert button.disconnect("clicked(bool)", receiver.any) is False
    button.click()
    assert receiver.seen == [()]


def test_block_signals(qt):
    button, receiver = qt.QPushButton(), Receiver()
    button.connect("clicked()", receiver.none)
    assert button.blockSignals(True) is False
    button.click()
    assert button.blockSignals(False) is True and receiver.seen == []


def boom(*_):
    raise ValueError("boom")


def test_errors_in_slots_do_not_stop_the_caller_but_fail_the_test(qt, slicer_app):
    button = qt.QPushButton()
    button.connect("clicked()", boom)
    with slicer_app.problems.expected("slot", "ValueError: boom"):
        button.click()
    other = qt.QPushButton()
    other.clicked.connect(boom)
    with slicer_app.problems.expected("slot", "ValueError: boom"):
        other.click()
    needs_more = qt.QPushButton()
    needs_more.connect("clicked()", lambda x: None)
    with slicer_app.problems.expected("slot", "TypeError"):
        needs_more.click()


def test_errors_in_observers_and_timers_fail_the_test(qt, slicer_app):
    import slicer

    node = slicer.vtkMRMLTextNode()
    node.AddObserver("ModifiedEvent", boom)
    with slicer_app.problems.expected("slot", "ValueError: boom"):
        node.Modified()
    qt.QTimer.singleShot(0, boom)
    with slicer_app.problems.expected("slot", "ValueError: boom"):
        slicer_app.wait(0.05)


def test_problems_fail_a_test():
    from slicerhost.errors import ProblemLog

    log = ProblemLog()
    log.add("vtk", "bad")
    with pytest.raises(AssertionError, match=r"\[vtk\] bad"):
        log.check()
    log.check()
    with pytest.raises(AssertionError, match="expected a problem"), log.expected("vtk"):
        pass


def test_qt_warnings_fail_the_test(qt, slicer_app):
    widget = qt.QWidget()
    qt.QVBoxLayout(widget)
    with slicer_app.problems.expected("qt", "already has a layout"):
        qt.QVBoxLayout(widget)


def test_timers(qt, slicer_app):
    ticks, timer = [], qt.QTimer()
    timer.interval = 1
    timer.connect("timeout()", lambda: ticks.append(1))
    timer.start()
    assert timer.active is True
    slicer_app.wait_until(lambda: len(ticks) > 2, 5)
    timer.stop()
    assert timer.active is False
    qt.QTimer.singleShot(1, lambda: ticks.append("shot"))
    slicer_app.wait_until(lambda: "shot" in ticks, 5)


ECHO = """import sys
print("ready", flush=True)
for line in sys.stdin:
    print(line.strip()[::-1], flush=True)
sys.exit(3)
"""


def test_a_process_talks_both_ways(qt, slicer_app):
    process, lines, ends = qt.QProcess(), [], []
    assert process.connect(
        "readyReadStandardOutput()", lambda: lines.extend(process.readAllStandardOutput().data().split())
    )
    assert process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ends.append((code, status)))
    process.start("PythonSlicer", ["-c", ECHO])
    slicer_app.wait_until(lambda: b"ready" in lines, 10)
    assert process.state() == qt.QProcess.Running
    process.write(b"abc\n")
    slicer_app.wait_until(lambda: b"cba" in lines, 10)
    process.closeWriteChannel()
    slicer_app.wait_until(lambda: ends, 10)
    assert ends == [(3, qt.QProcess.NormalExit)] and process.state() == qt.QProcess.NotRunning


def test_a_process_that_cannot_start_says_so(qt, slicer_app):
    process, errors = qt.QProcess(), []
    assert process.connect("errorOccurred(QProcess::ProcessError)", errors.append)
    process.start("/nonexistent/python", [])
    slicer_app.wait_until(lambda: errors, 5)
    assert errors == [qt.QProcess.FailedToStart] and int(errors[0]) == 0


def test_python_slicer_is_a_launcher(qt, slicer_app):
    """Killing it leaves the interpreter, as in Slicer; that one notices the end of its input."""
    process, pids = qt.QProcess(), []
    process.connect("readyReadStandardOutput()", lambda: pids.append(int(process.readAllStandardOutput().data())))
    process.start("PythonSlicer", ["-c", "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"])
    slicer_app.wait_until(lambda: pids, 10)
    assert pids[0] != process.processId()
    process.closeWriteChannel()
    assert process.waitForFinished(5000)


def test_python_slicer_runs_this_python(slicer_app):
    import slicer

    python = f"{slicer_app.slicerHome}/bin/PythonSlicer"
    process = slicer.util.launchConsoleProcess([python, "-c", "import sys; print(sys.prefix)"])
    assert process.communicate(timeout=20)[0].strip() == sys.prefix
