"""The last picture of a fine-tuning: a held-out case as the model sees it by now, beside the reference."""

import qt

_WIDTH = 270  # points; fits into a panel of 350


class TrainingPicture:
    """Fills a label with the picture and one with what is seen."""

    def __init__(self, label, caption):
        self._label, self._caption = label, caption
        self.hide()

    def hide(self) -> None:
        """Another run begins: its pictures are still to come."""
        self._label.hide()
        self._caption.hide()

    def show(self, step: int, path: str, text: str) -> None:
        """The picture of that file, read now; a file that is gone already changes nothing."""
        pixmap = qt.QPixmap(path)
        if pixmap.isNull():
            return
        self._label.setPixmap(pixmap.scaledToWidth(_WIDTH, qt.Qt.SmoothTransformation))
        self._label.toolTip = self._caption.text = text
        self._label.show()
        self._caption.show()
