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
        layout.setSizeConstraint(qt.QLayout.SetNoConstraint)  # its least height is that of texts in narrow columns
        self.window.minimumWidth = _WIDTH
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self._fit)

    @property
    def isOpen(self) -> bool:
        return self.window.visible

    def open(self) -> None:
        """Show it in front of the other windows; it stays until it is closed."""
        self.window.show()
        self.window.activateWindow()
        self.fit()

    def close(self) -> None:
        self._soon.stop()
        self.window.close()

    def fit(self) -> None:
        """Soon as high as what is shown in it then."""
        self._soon.start(0)

    def _fit(self) -> None:
        layout = self.window.layout()
        width = max(self.window.width, layout.totalMinimumSize().width())
        self.window.resize(width, layout.totalHeightForWidth(width))
