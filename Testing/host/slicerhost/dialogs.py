"""Modal dialogs are recorded and answered, never shown: what a user would see is in `dialogs`."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6 import QtWidgets
from PySide6.QtWidgets import QMessageBox

from .errors import problems


@dataclass(frozen=True)
class Dialog:
    """kind: information | warning | critical | question | file | text; answer: what the code under test got."""

    kind: str
    title: str
    text: str
    detail: str
    answer: object


class Dialogs(list):
    """All dialogs of the running test. Put answers in before the code asks; a question without one is a problem."""

    def __init__(self):
        super().__init__()
        self._answers: list = []

    def answer_next(self, *answers) -> None:
        """Answers for the coming questions, in order: qt.QMessageBox.Ok, a path, a text, ..."""
        self._answers.extend(answers)

    def texts(self, kind: str = "") -> list[str]:
        return [d.text for d in self if kind in ("", d.kind)]

    def forget(self) -> None:
        self.clear()
        self._answers.clear()

    def record(self, kind: str, title: str, text: str, detail: str = "", default=None, needs_answer: bool = True):
        """Record one dialog and return its answer."""
        if needs_answer and not self._answers:
            problems.add("dialog", f"nobody answers the {kind} dialog '{title}': {text}")
        answer = self._answers.pop(0) if needs_answer and self._answers else default
        self.append(Dialog(kind, title, text, detail, answer))
        return answer


dialogs = Dialogs()

_KINDS = {0: "text", 1: "information", 2: "warning", 3: "critical", 4: "question"}


def _execute(box) -> int:
    """QMessageBox.exec(): one button answers itself, several need an answer of the test."""
    buttons = [b for b in QMessageBox.StandardButton if int(box.standardButtons) & int(b)]
    single = [b for b in buttons if int(b).bit_count() == 1]
    kind = _KINDS.get(int(box.icon), "text")
    refuse = int(QMessageBox.Cancel) if len(single) > 1 else int(QMessageBox.Ok)
    answer = dialogs.record(kind, box.windowTitle, box.text, box.detailedText, refuse, len(single) > 1)
    return int(answer)


def _static(kind: str):
    def show(parent, title, text, buttons=QMessageBox.Ok, default_button=None):
        several = int(buttons).bit_count() > 1
        refuse = int(QMessageBox.Cancel) if several else int(QMessageBox.Ok)
        return int(dialogs.record(kind, title, text, "", refuse, several))

    return staticmethod(show)


def _file(kind: str, default):
    def ask(parent=None, caption="", *_directory_and_filter):
        return dialogs.record("file", caption, kind, "", default)

    return staticmethod(ask)


def install() -> None:
    """Patch Qt's modal dialogs. File dialogs return a plain str as in PythonQt ('' = cancelled)."""
    QMessageBox.exec = QMessageBox.exec_ = _execute
    for kind in ("information", "warning", "critical"):
        setattr(QMessageBox, kind, _static(kind))
    QMessageBox.question = _static("question")
    for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        setattr(QtWidgets.QFileDialog, name, _file(name, ""))
    QtWidgets.QFileDialog.getOpenFileNames = _file("getOpenFileNames", ())
    QtWidgets.QInputDialog.getText = staticmethod(
        lambda parent, title, label, *more: dialogs.record("text", title, label, "", "")
    )
