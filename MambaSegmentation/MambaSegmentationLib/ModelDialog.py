"""A window beside the panel, made of a .ui file: jobs go on in the panel's run area while it is open."""

from pathlib import Path

import qt
import slicer

_UI_FOLDER = Path(__file__).resolve().parent.parent / "Resources" / "UI"
_WIDTH = 420


class ModelDialog:
    """Args:
    name: of the .ui file, whose top widget is no window itself.
    """

    def __init__(self, name: str):
        widget = slicer.util.loadUI(str(_UI_FOLDER / f"{name}.ui"))
        self.ui = slicer.util.childWidgetVariables(widget)
        self.window = qt.QDialog(slicer.util.mainWindow())
        self.window.windowTitle = widget.windowTitle
        self.window.objectName = f"{name}Window"
        layout = qt.QVBoxLayout(self.window)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(widget)
        self.window.minimumWidth = _WIDTH

    @property
    def isOpen(self) -> bool:
        return self.window.visible

    def open(self) -> None:
        """Show it in front of the other windows; it stays until it is closed."""
        self.window.show()
        self.window.activateWindow()
        self.fit()

    def close(self) -> None:
        self.window.close()

    def fit(self) -> None:
        """As high as what is shown in it now."""
        for _again in range(2):  # texts know their height when they know their width
            layout = self.window.layout()
            layout.activate()
            width = max(self.window.width, layout.totalMinimumSize().width())
            self.window.resize(width, layout.totalHeightForWidth(width))
