"""Every page at 350 points, and with letters twice as large at 700: nothing is cut, scrolls sideways, has arrows."""

import pytest
from finetune_cases import DECISION, ROW

WIDTH = 350
_BUTTON_EDGE = 4  # points between a button's edge and its text
PAGES = ("SegmentPage", "CorrectPage", "FineTunePage", "ReviewPage", "SettingsPage")


@pytest.fixture(params=[1, 2], ids=["100 %", "200 %"])
def width(request, host_application, module):
    """Points that the panel has, its letters being as large."""
    usual = host_application.font()
    font = host_application.font()
    font.setPointSizeF(request.param * usual.pointSizeF())
    host_application.setFont(font)
    frame, size = module.parent, module.parent.size
    frame.setMinimumWidth(0)
    frame.resize(request.param * WIDTH, 1500)
    host_application.processEvents()
    yield request.param * WIDTH
    host_application.setFont(usual)
    frame.resize(size)
    host_application.processEvents()


def check(user) -> None:
    """The page shown is no wider than the panel, and every text in it and in the run area is whole."""
    from PySide6 import QtWidgets

    frame, area = user.module.parent, user.ui.pageTabs.currentWidget()
    assert frame.minimumSizeHint().width() <= frame.width
    for _ in range(4):  # word wrap needs the width before it knows the height
        user._application.processEvents()
    page = area.widget()
    assert page.minimumSizeHint().width() <= area.viewport().width, f"{page.objectName} scrolls sideways"
    arrows = [button for button in user.ui.pageTabs.tabBar().findChildren(QtWidgets.QToolButton) if button.visible]
    assert not arrows, "the tabs scroll"
    for top in (page, user.ui.runArea):
        for widget in (w for w in top.findChildren(QtWidgets.QWidget) if w.visible and not is_folded(w)):
            assert not (problem := cut(widget)), f"{widget.objectName} in {frame.width} points: {problem}"


def is_folded(widget) -> bool:
    """Whether it lies in a section that is closed."""
    parent = widget.parent()
    return parent is not None and (getattr(parent, "collapsed", False) or is_folded(parent))


def cut(widget) -> str:
    from PySide6 import QtGui, QtWidgets

    if isinstance(widget, QtWidgets.QPushButton) and widget.text:
        needed = QtGui.QFontMetrics(widget.font).horizontalAdvance(widget.text.replace("&", "")) + 2 * _BUTTON_EDGE
        return "" if widget.width >= needed else f"'{widget.text}' is cut"
    if isinstance(widget, QtWidgets.QCheckBox):
        return "" if widget.width >= widget.minimumSizeHint().width() else f"'{widget.text}' is cut"
    if isinstance(widget, QtWidgets.QLabel) and widget.text:
        if widget.wordWrap:
            return "" if widget.height >= widget.heightForWidth(widget.width) else f"'{widget.text}' is cut below"
        return "" if widget.width >= widget.minimumSizeHint().width() else f"'{widget.text}' is cut"
    if isinstance(widget, QtWidgets.QTableWidget) and widget.columnCount and widget.horizontalHeader().visible:
        header = widget.horizontalHeader()
        there = [column for column in range(widget.columnCount) if not header.isSectionHidden(column)]
        if sum(header.sectionSize(column) for column in there) > widget.viewport().width:
            return "columns are beyond the edge"
        narrow = [c for c in there if header.sectionSize(c) < header.sectionSizeHint(c)]
        return f"heads of the columns {narrow} are cut" if narrow else ""
    return ""


def all_pages(user) -> None:
    for name in PAGES:
        user.open(name)
        check(user)


def test_nothing_chosen(user, width):
    all_pages(user)


def test_result_chosen_and_done(user, width, crop, monkeypatch):
    segmentation = user.segment(crop)
    user.panel.state.resultSegmentation = segmentation
    user.panel.refresh()
    user.panel.runView.message("error", "The job needs more memory than is free.", "Choose a region.", canInstall=True)
    for name in PAGES:
        user.open(name)
        if name == "FineTunePage":
            decision = DECISION | {"rows": [ROW], "reasons": ["No structure lost more than 0.010 Dice."]}
            answer = {"candidate": "", "decision": decision, "promoted": False}
            user.panel.page(name).training._onFinished(answer)
        check(user)
    user.panel.page("FineTunePage").training._result = None
    user.panel.page("FineTunePage").training._showDecision()


def test_everything_at_once(user, width, crop):
    """All sections open and all that is ever shown in them: wider than any state."""
    import slicer
    from PySide6 import QtWidgets

    user.segment(crop)
    for name in PAGES:
        user.open(name)
        page = user.ui.pageTabs.currentWidget().widget()
        sections = [w for w in page.findChildren(QtWidgets.QWidget) if hasattr(w, "collapsed")]
        collapsed = [section for section in sections if section.collapsed]
        for section in sections:
            section.collapsed = False
        hidden = [w for w in page.findChildren(QtWidgets.QWidget) if w.objectName in vars(user.ui) and w.isHidden()]
        for widget in hidden:
            widget.show()
        check(user)
        for widget in hidden:
            widget.hide()
        for section in collapsed:
            section.collapsed = True
        slicer.app.processEvents()


def test_running(user, width, crop):
    user.start_endless(crop)
    try:
        all_pages(user)
    finally:
        user.panel.jobs.cancelAll()
        user.until_idle()


def test_what_one_can_press_has_a_key_of_its_own_and_a_tip(user, crop):
    """Also where the texts are set while the module runs."""
    from PySide6 import QtWidgets

    user.segment(crop)
    for name in PAGES:
        user.open(name)
        taken: dict[str, str] = {}
        tops = (user.ui.pageTabs.currentWidget().widget(), user.ui.runArea)
        found = [w for top in tops for w in top.findChildren(QtWidgets.QWidget) if w.objectName in vars(user.ui)]
        for widget in found:
            if isinstance(widget, QtWidgets.QPushButton | QtWidgets.QCheckBox):
                assert widget.toolTip and "&" in widget.text, widget.objectName
            elif not (isinstance(widget, QtWidgets.QLabel) and "&" in widget.text):
                continue
            key = widget.text.split("&")[1][0].lower()
            assert taken.setdefault(key, widget.objectName) == widget.objectName, (taken[key], widget.objectName)


def test_panel_grows_for_a_wide_page_and_shrinks_again(user, module, crop):
    """Slicer's Segment Editor needs 383 to 490 points, measured on the real one."""
    user.segment(crop)
    editor = user.panel.page("CorrectPage").editor.widget
    editor.setMinimumWidth(480)
    for name, is_wide in (("CorrectPage", True), ("SegmentPage", False)):
        user.open(name)
        user._wait_until(lambda wide=is_wide: (module.parent.minimumSizeHint().width() > 480) == wide, 10)
    editor.setMinimumWidth(0)
