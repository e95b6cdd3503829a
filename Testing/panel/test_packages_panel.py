"""Missing and damaged packages in the panel: installed on request, never without it, and why it failed."""

import sys
import types
import zipfile
from pathlib import Path

import pytest


@pytest.fixture
def slicers_python(user):
    """No Python in the settings: the worker runs in the one that Slicer manages."""
    import slicer

    settings = slicer.app.userSettings()
    old = settings.value("MambaSegmentation/pythonExecutable")
    settings.remove("MambaSegmentation/pythonExecutable")
    user.panel.services.worker.quit()
    yield
    if old:
        settings.setValue("MambaSegmentation/pythonExecutable", old)
    user.panel.services.worker.quit()


class Site:
    """A folder that the worker's Python looks into first: packages of a name, damaged or missing ones."""

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, name: str, version: str, code: str = "") -> None:
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (self.folder / f"{name}.py").write_text(code)

    def wheel(self, name: str, version: str) -> None:
        info = f"{name}-{version}.dist-info"
        self.folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(self.folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}.py", "")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def site(tmp_path, monkeypatch, user, slicers_python):
    """torch works, mbs_extra is needed and missing; pip sees one wheel of it and no network."""
    import slicer

    site = Site(tmp_path / "site")
    site.add("torch", "9.9", "class version:\n    cuda = None\n")
    index = Site(tmp_path / "index")
    index.wheel("mbs_extra", "1.5")
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    monkeypatch.setattr(user.panel.services.packages, "requirements", ["torch>=2.2", "mbs_extra>=1"])
    site.index = index
    slicer.packaging.calls.clear()
    slicer.app.dialogs.forget()
    return site


def state_in_table(user, name: str) -> str:
    table = user.ui.packagesTable
    rows = {table.item(row, 0).text(): table.item(row, 1).text() for row in range(table.rowCount)}
    return next(text for key, text in rows.items() if key.startswith(name))


def test_one_button_from_missing_to_installed(user, site):
    import qt
    import slicer

    user.open("SettingsPage")
    user.click(user.ui.checkPackagesButton)
    user.until_idle()
    assert "works" in state_in_table(user, "torch") and "missing" in state_in_table(user, "mbs_extra")
    assert "MB" in user.ui.packagesHint.text and slicer.packaging.calls == [], "nothing before the user has agreed"
    slicer.app.dialogs.answer_next(qt.QMessageBox.Cancel)
    user.click(user.ui.installPackagesButton)
    user.until_idle()
    (question,) = slicer.app.dialogs.texts()
    assert "mbs_extra" in question and "torch" not in question and "MB" in question
    assert slicer.packaging.calls == [], "the user declined"

    def arrive(arguments, **options):
        site.add("mbs_extra", "1.5")
        type(slicer.packaging).pip_install(slicer.packaging, arguments, **options)

    slicer.app.dialogs.answer_next(qt.QMessageBox.Ok)
    slicer.packaging.pip_install = arrive
    try:
        user.click(user.ui.installPackagesButton)
        user.until_idle()
    finally:
        del slicer.packaging.pip_install
    ((verb, arguments),) = slicer.packaging.calls
    assert verb == "pip_install" and arguments[:3] == ["mbs_extra==1.5", "--no-deps", "--no-index"]
    assert "installed and work" in user.message and "works" in state_in_table(user, "mbs_extra")


def test_from_a_folder_of_wheels(user, site, monkeypatch):
    import qt
    import slicer

    user.open("SettingsPage")
    slicer.app.dialogs.answer_next(str(site.index.folder), qt.QMessageBox.Ok)
    user.click(user.ui.installFolderButton)
    user.until_idle()
    ((_verb, arguments),) = slicer.packaging.calls
    assert arguments[0] == "mbs_extra>=1" and "torch==9.9" in arguments, "the torch that works stays"
    assert arguments[-3:] == ["--no-index", "--find-links", str(site.index.folder)]
    assert "mbs_extra: missing" in user.message, "what pip promised is looked at"


def test_no_network_has_a_name_and_a_repair(user, site, monkeypatch):
    import qt
    import slicer

    monkeypatch.setattr(user.panel.services.packages, "requirements", ["torch>=2.2", "mbs_nowhere>=1"])
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    user.panel.services.worker.quit()
    user.open("SettingsPage")
    slicer.app.dialogs.answer_next(qt.QMessageBox.Ok)
    user.click(user.ui.installPackagesButton)
    user.until_idle()
    assert "could not be reached" in user.message and "folder of wheels" in user.message
    assert slicer.packaging.calls == [] and user.ui.copyDetailsButton.visible


def test_failure_while_installing_is_named(user, site):
    import qt
    import slicer

    slicer.packaging.log, slicer.packaging.returnCode = ["ERROR: [Errno 13] Permission denied: '/opt/x'"], 1
    try:
        user.open("SettingsPage")
        slicer.app.dialogs.answer_next(qt.QMessageBox.Ok)
        user.click(user.ui.installPackagesButton)
        user.until_idle()
    finally:
        slicer.packaging.log, slicer.packaging.returnCode = [], 0
    assert "may not write" in user.message and not user.panel.jobs.isRunning


@pytest.mark.parametrize(("returnCode", "words"), [(0, "missing"), (1, "installation failed")])
def test_in_testing_mode_an_installation_ends_as_well(user, site, returnCode, words):
    """slicer.packaging then waits for pip and calls nobody back; and a question is not asked."""
    import slicer

    slicer.app.testing, slicer.packaging.returnCode = True, returnCode
    try:
        packages = user.panel.services.packages
        packages.examine(lambda findings: install(user, findings, site))
        user.until_idle()
    finally:
        slicer.app.testing, slicer.packaging.returnCode = False, 0
    assert len(slicer.packaging.calls) == 1 and words in user.message


def install(user, findings: dict, site) -> None:
    """What the answer Yes to the question starts."""
    from MambaSegmentationLib.Installation import Installation
    from MambaSegmentationLib.JobQueue import Task
    from MambaSegmentationLib.Jobs import Listener
    from MambaSegmentationLib.PackagePlan import Plan

    packages, place = user.panel.services.packages, str(site.index.folder)
    installation = Installation(user.panel.services.worker, Plan.of(findings), place, True)
    user.panel.jobs.add(Task("Install packages", installation.begin, Listener(onFinished=packages._onInstalled)))


def test_download_is_cancelled_at_once(user, site, monkeypatch):
    import socket
    import time

    import qt
    import slicer

    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setattr(user.panel.services.packages, "requirements", ["torch>=2.2", "mbs_nowhere>=1"])
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        user.panel.services.worker.quit()
        user.open("SettingsPage")
        slicer.app.dialogs.answer_next(qt.QMessageBox.Ok)
        user.click(user.ui.installPackagesButton)
        silent.settimeout(0)

        def asked() -> bool:
            try:
                silent.accept()
            except BlockingIOError:
                return False
            return True

        slicer.app.wait_until(asked, 60)
        start = time.monotonic()
        user.click(user.ui.cancelButton)
        user.until_idle()
    assert time.monotonic() - start < 2 and slicer.packaging.calls == []
    assert "Stopped" in user.message


def test_torch_needs_the_pytorch_extension_or_a_folder(user, site, monkeypatch):
    import qt
    import slicer

    monkeypatch.setattr(user.panel.services.packages, "requirements", ["torch>=99"])
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    user.open("SettingsPage")
    slicer.app.dialogs.answer_next(qt.QMessageBox.Ok)
    user.click(user.ui.installPackagesButton)
    user.until_idle()
    assert "Extensions Manager" in user.message and "folder of wheels" in user.message

    asked = []

    class PyTorchUtilsLogic:
        @staticmethod
        def getCompatibleComputationBackends(forceComputationBackend=None, torchVersionRequirement=None):
            asked.append(torchVersionRequirement)
            raise RuntimeError("getaddrinfo failed")

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic))
    slicer.app.dialogs.answer_next(qt.QMessageBox.Ok)
    user.click(user.ui.installPackagesButton)
    user.until_idle()
    assert asked == [">=2.2"] and "could not be reached" in user.message


def test_a_python_of_the_user_is_left_alone(user, site, monkeypatch):
    import slicer

    settings = slicer.app.userSettings()
    settings.setValue("MambaSegmentation/pythonExecutable", sys.executable)
    user.open("SettingsPage")
    user.click(user.ui.installPackagesButton)
    user.until_idle()
    assert "pip install" in user.message and "mbs_extra" in user.message
    assert slicer.packaging.calls == [] and slicer.app.dialogs.texts() == []


def test_first_sight_says_what_is_missing_and_how_large_it_is(user, site, wait_until):
    user.panel.services.packages._wasLooked = False
    user.panel.enter()
    wait_until(lambda: user.message, 30)
    assert "mbs_extra" in user.message and "MB" in user.message and user.ui.installButton.visible
    user.click(user.ui.dismissButton)
    user.panel.exit()
    user.panel.enter()
    assert user.message == "", "once is enough"
