"""Keyboard shortcuts that hold in the whole main window, while a page is shown."""

from collections.abc import Callable

import qt
import slicer

SETTING = "MambaSegmentation/keys"
DEFAULTS = {"next": "N", "previous": "P", "accept": "A", "flag": "F", "correct": "E", "compare": "C"}
# Page Correct; none of the Segment Editor's own there: digits, I, Q, W, Y, Z, and of its effect Draw A and X.
DEFAULTS |= {"belongs": "H", "belongsNot": "J"}


def keyOf(action: str) -> str:
    """The key that the user chose for an action, "" for none."""
    return slicer.util.settingsValue(f"{SETTING}/{action}", DEFAULTS[action], converter=str)


class ReviewKeys:
    """`actions`: name of DEFAULTS -> what to call."""

    def __init__(self, actions: dict[str, Callable]):
        self._actions = actions
        self.shortcuts: dict = {}

    def install(self) -> None:
        self.remove()
        window = slicer.util.mainWindow()
        for action, call in self._actions.items():
            if window and keyOf(action):
                shortcut = qt.QShortcut(qt.QKeySequence(keyOf(action)), window)
                shortcut.connect("activated()", call)
                self.shortcuts[action] = shortcut

    def remove(self) -> None:
        for shortcut in self.shortcuts.values():
            shortcut.setEnabled(False)
            shortcut.deleteLater()
        self.shortcuts.clear()
