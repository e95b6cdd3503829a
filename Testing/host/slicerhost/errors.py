"""What a real Slicer prints and swallows, and a test must not: every such thing is kept here as a Problem."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """kind: slot | connect | ui | vtk | qt | dialog; text: what was printed."""

    kind: str
    text: str

    def __str__(self):
        return f"[{self.kind}] {self.text}"


# MRML says so itself when it reads back a scene in which a slice view stood oblique, and goes on.
HARMLESS_VTK = "GetSliceOrientationPreset: invalid orientation preset name: Reformat"


class ProblemLog(list):
    """The problems of the running test, in order."""

    def add(self, kind: str, text: str) -> None:
        if kind == "vtk" and HARMLESS_VTK in text:
            return
        self.append(Problem(kind, text.strip()))
        print(f"{kind}: {text}", file=sys.stderr)

    def add_exception(self, kind: str, error: BaseException) -> None:
        self.add(kind, "".join(traceback.format_exception(error)))

    @contextlib.contextmanager
    def expected(self, kind: str, pattern: str = ""):
        """In this block a problem of this kind that matches must appear; all of this kind are taken out of the log."""
        start = len(self)
        yield
        of_kind = [p for p in self[start:] if p.kind == kind]
        found = [p for p in of_kind if re.search(pattern, p.text)]
        assert found, f"expected a problem of kind {kind!r} like {pattern!r}, came: {self[start:]}"
        self[start:] = [p for p in self[start:] if p not in of_kind]

    def check(self) -> None:
        """Raise AssertionError with all texts if there is any problem, and forget them."""
        found, self[:] = list(self), []
        assert not found, "the application swallowed errors:\n" + "\n".join(map(str, found))


problems = ProblemLog()


def catch_python_errors() -> None:
    """Exceptions that Qt and VTK callbacks let out end in sys.excepthook; keep them."""

    def keep(kind, value, trace):
        problems.add("slot", "".join(traceback.format_exception(kind, value, trace)))

    sys.excepthook = keep


# About the offscreen platform, not about the code under test.
_QT_NOISE = ("propagateSizeHints", "QStandardPaths: ", "QFontDatabase: ")


def catch_qt_warnings() -> None:
    """Keep what Qt itself warns of: a second layout, a broken style sheet, a timer from another thread."""
    from PySide6 import QtCore

    serious = (QtCore.QtMsgType.QtWarningMsg, QtCore.QtMsgType.QtCriticalMsg)

    def keep(kind, _context, text):
        if kind in serious and not any(noise in text for noise in _QT_NOISE):
            problems.add("qt", text)

    QtCore.qInstallMessageHandler(keep)


def catch_vtk_errors() -> None:
    """Keep every error and warning that VTK or MRML code reports."""
    import vtk

    window = vtk.vtkOutputWindow.GetInstance()
    window.SetDisplayModeToNever()
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)  # we print them ourselves

    @vtk.calldata_type(vtk.VTK_STRING)
    def keep(_caller, event, text):
        problems.add("vtk", f"{event}: {text}")

    for event in ("ErrorEvent", "WarningEvent"):
        window.AddObserver(event, keep)
