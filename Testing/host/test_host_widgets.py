"""The doubles of CTK and MRML widgets do what the real ones were seen to do in Slicer 5.12."""

import pytest

VOLUME = "vtkMRMLScalarVolumeNode"


def name(node):
    return node.GetName() if node else None


@pytest.fixture
def selector(slicer_app):
    """make(none_enabled) -> (qMRMLNodeComboBox in the scene, names announced so far)."""
    import slicer

    def make(none_enabled):
        box, seen = slicer.qMRMLNodeComboBox(), []
        box.nodeTypes, box.noneEnabled = [VOLUME], none_enabled
        assert box.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: seen.append(name(node)))
        box.setMRMLScene(slicer.mrmlScene)
        return box, seen

    return make


@pytest.mark.parametrize(("none_enabled", "at_start"), [(False, [None]), (True, [None] * 5)])
def test_node_selector_follows_the_scene(selector, none_enabled, at_start):
    import slicer

    box, seen = selector(none_enabled)
    assert (box.currentNode(), seen) == (None, at_start)
    added = [slicer.mrmlScene.AddNewNodeByClass(VOLUME, letter) for letter in "AB"]
    assert (box.currentNode(), box.currentNodeID, seen) == (None, "", at_start), "a node added later is not selected"
    box.setCurrentNode(added[1])
    assert (name(box.currentNode()), seen) == ("B", [*at_start, "B"])
    slicer.mrmlScene.RemoveNode(added[1])
    assert (name(box.currentNode()), seen) == ("A", [*at_start, "B", "A"]), "the first one left is selected"
    assert box.currentNodeID == added[0].GetID()


@pytest.mark.parametrize(("none_enabled", "announced"), [(False, ["A"]), (True, [None] * 5)])
def test_node_selector_on_a_scene_with_nodes(selector, none_enabled, announced):
    import slicer

    slicer.mrmlScene.AddNewNodeByClass(VOLUME, "A")
    box, seen = selector(none_enabled)
    assert (name(box.currentNode()), seen) == (announced[0], announced)
    assert name(box.addNode()) == "Volume" and seen == [*announced, "Volume"]
    slicer.mrmlScene.Clear(0)
    assert (box.currentNode(), box.nodeCount(), seen) == (None, 0, [*announced, "Volume", None])


def test_node_selector_leaves_a_node_before_it_is_gone(selector):
    """qMRMLSceneModel takes the row away at NodeAboutToBeRemovedEvent, after all others have heard of it (-10)."""
    import slicer

    scene = slicer.mrmlScene
    first, second = (scene.AddNewNodeByClass(VOLUME, letter) for letter in "AB")
    box, _seen = selector(True)
    box.setCurrentNode(second)
    heard = []
    tag = scene.AddObserver(scene.NodeAboutToBeRemovedEvent, lambda *_: heard.append(name(box.currentNode())))
    told = lambda node: heard.append((name(node), bool(scene.IsNodePresent(second))))  # noqa: E731
    box.connect("currentNodeChanged(vtkMRMLNode*)", told)
    scene.RemoveNode(second)
    scene.RemoveObserver(tag)
    assert heard == ["B", ("A", True)] and box.nodeCount() == 1 and box.currentNode() is first


def test_node_selector_lists_an_imported_scene_at_its_end(selector, tmp_path):
    """qMRMLSceneModel: nothing is added while a scene is imported, then all rows go and come again."""
    import slicer

    scene = slicer.mrmlScene
    scene.AddNewNodeByClass(VOLUME, "Imported")
    path = str(tmp_path / "scene.mrml")
    scene.SetURL(path)
    assert scene.Commit(path)
    scene.Clear(0)
    own = scene.AddNewNodeByClass(VOLUME, "Own")
    box, seen = selector(True)
    box.setCurrentNode(own)
    counts, ended = [], []
    watch = lambda *_: counts.append(box.nodeCount())  # noqa: E731
    look = lambda *_: ended.append((name(box.currentNode()), box.nodeCount()))  # noqa: E731
    tags = scene.AddObserver(scene.NodeAddedEvent, watch), scene.AddObserver(scene.EndImportEvent, look)
    seen.clear()
    scene.Import()
    for tag in tags:
        scene.RemoveObserver(tag)
    assert set(counts) == {1} and ended == [(None, 2)] and seen == [None]


def test_node_selector_filters(selector):
    import slicer

    box, _ = selector(True)
    hidden = slicer.vtkMRMLScalarVolumeNode()
    hidden.SetHideFromEditors(True)
    slicer.mrmlScene.AddNode(hidden)
    assert box.nodeCount() == 0
    label_map = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "L")
    assert (box.nodeCount(), box.nodeFromIndex(0)) == (1, label_map), "a subclass counts"
    box.addAttribute(VOLUME, "kind", "T1")
    assert box.nodeCount() == 0
    label_map.SetAttribute("kind", "T1")
    box.removeAttribute(VOLUME, "kind")
    box.showChildNodeTypes = False
    slicer.mrmlScene.AddNewNodeByClass(VOLUME, "A")
    assert (box.nodeCount(), name(box.nodeFromIndex(0))) == (1, "A")


def test_the_user_picks_a_node(selector, slicer_app):
    import slicer
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    box, seen = selector(False)
    slicer.mrmlScene.AddNewNodeByClass(VOLUME, "A")
    box.show()
    combo = box.findChild("QComboBox")
    QTest.keyClick(combo, QtCore.Qt.Key_Down)
    assert (name(box.currentNode()), seen[-1]) == ("A", "A")


def test_a_deleted_selector_stops_listening(selector, slicer_app):
    import slicer
    from PySide6 import QtCore

    box, _ = selector(False)
    box.deleteLater()
    slicer_app.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)
    slicer.mrmlScene.AddNewNodeByClass(VOLUME, "A")


def test_segment_selector_announces_the_segment_before_the_node(slicer_app):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "seg")
    for segment in "xy":
        node.GetSegmentation().AddEmptySegment(segment, segment)
    widget, seen = slicer.qMRMLSegmentSelectorWidget(), []
    widget.noneEnabled = True
    assert widget.connect("currentSegmentChanged(QString)", seen.append)
    assert widget.connect("currentNodeChanged(vtkMRMLNode*)", lambda n: seen.append(name(n)))
    widget.setMRMLScene(slicer.mrmlScene)
    seen.clear()
    widget.setCurrentNode(node)
    assert (widget.currentSegmentID(), seen) == ("x", ["x", "seg"])
    widget.setCurrentSegmentID("y")
    assert seen == ["x", "seg", "y"]
    node.GetSegmentation().RemoveSegment("y")
    assert (widget.currentSegmentID(), seen) == ("x", ["x", "seg", "y", "x"])


def test_segments_table(slicer_app):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "seg")
    table = slicer.qMRMLSegmentsTableView()
    table.setSegmentationNode(node)
    for segment in "xy":
        node.GetSegmentation().AddEmptySegment(segment, segment)
    table.setSelectedSegmentIDs(["y"])
    assert (table.segmentCount, table.selectedSegmentIDs()) == (2, ("y",))


def test_slider(slicer_app):
    import ctk

    slider, seen = ctk.ctkSliderWidget(), []
    assert slider.connect("valueChanged(double)", seen.append)
    slider.minimum = 10
    assert (slider.value, seen) == (10.0, [10.0]), "a minimum above the value moves it"
    slider.setValue(10.256)
    assert (slider.value, seen, slider.decimals) == (10.26, [10.0, 10.26], 2)
    slider.minimum, slider.maximum = 0, 20
    slider.findChild("QSlider").value = 500
    assert (slider.value, slider.maximum) == (5.0, 20.0)


def test_path(slicer_app):
    import ctk

    path, seen = ctk.ctkPathLineEdit(), []
    assert path.connect("currentPathChanged(QString)", seen.append)
    path.currentPath = "."
    assert (path.currentPath, seen) == (".", ["."])
    assert path.connect("validInputChanged(bool)", seen.append)
    path.currentPath = ""
    assert (path.currentPath, seen) == ("", [".", False]), "an empty path is announced as not valid, and only so"


def test_a_collapsed_button_hides_its_content_and_shows_it_again(slicer_app, click):
    import ctk
    import qt

    button, layout = ctk.ctkCollapsibleButton("Advanced"), qt.QVBoxLayout()
    button.setLayout(layout)
    shown, hidden, seen = qt.QLabel("a"), qt.QLabel("b"), []
    for label in (shown, hidden):
        layout.addWidget(label)
    hidden.hide()
    button.resize(200, 100)
    button.show()
    assert button.connect("contentsCollapsed(bool)", seen.append)
    button.collapsed = True
    assert (shown.visible, button.checked, seen) == (False, False, [True])
    button.click()
    assert (shown.visible, hidden.visible, button.collapsed, seen) == (True, False, False, [True, False])


UI = """<?xml version="1.0" encoding="UTF-8"?><ui version="4.0"><class>M</class><widget class="qMRMLWidget" name="M">
<layout class="QVBoxLayout" name="v"><item><widget class="{cls}" name="selector"><property name="nodeTypes"><stringlist>
<string>vtkMRMLScalarVolumeNode</string></stringlist></property><property name="{prop}"><bool>true</bool></property>
</widget></item></layout></widget><customwidgets><customwidget><class>qMRMLWidget</class><extends>QWidget</extends>
<container>1</container></customwidget><customwidget><class>{cls}</class><extends>QWidget</extends></customwidget>
</customwidgets><connections><connection><sender>M</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


def load_ui(tmp_path, cls="qMRMLNodeComboBox", prop="noneEnabled"):
    import slicer

    path = tmp_path / "M.ui"
    path.write_text(UI.format(cls=cls, prop=prop))
    return slicer.util.loadUI(str(path))


def test_ui_file_with_vtk_connections(slicer_app, tmp_path):
    import slicer

    widget = load_ui(tmp_path)
    ui = slicer.util.childWidgetVariables(widget)
    assert (ui.selector.nodeTypes, ui.selector.noneEnabled) == (("vtkMRMLScalarVolumeNode",), True)
    widget.setMRMLScene(slicer.mrmlScene)
    assert ui.selector.mrmlScene() is slicer.mrmlScene
    with pytest.raises(AttributeError):
        widget.selector  # noqa: B018


@pytest.mark.parametrize(
    ("change", "text"),
    [({"cls": "qMRMLNodeCombobox"}, "unknown widget class"), ({"prop": "nonEnabled"}, "no property nonEnabled")],
)
def test_ui_file_with_a_typo_fails_the_test(slicer_app, tmp_path, change, text):
    from slicerhost.errors import problems

    load_ui(tmp_path, **change)
    assert any(p.kind == "ui" and text in p.text for p in problems)
    problems.clear()


@pytest.mark.parametrize(
    ("name", "refused", "allowed"),
    [
        ("qMRMLNodeComboBox", "setNodeTypes setNoneEnabled setAddEnabled setShowHidden", "setCurrentNodeID"),
        ("qMRMLSegmentEditorWidget", "setUnorderedEffectsVisible", "setUndoEnabled setReadOnly"),
        ("qMRMLSegmentsTableView", "setSegmentCount", "setStatusColumnVisible"),
        ("ctkCollapsibleButton", "setCollapsed setFlat", ""),
        ("ctkPathLineEdit", "setFilters setNameFilters", "setCurrentPath"),
        ("ctkSliderWidget", "setRange setMinimum", "setValue setDecimals"),
    ],
)
def test_only_slots_can_be_called(slicer_app, name, refused, allowed):
    """As in the headers of Slicer 5.12 and CTK: other setters are not seen through PythonQt."""
    import ctk
    import slicer

    widget = getattr(ctk if name.startswith("ctk") else slicer, name)()
    assert not [method for method in refused.split() if hasattr(widget, method)]
    assert all(callable(getattr(widget, method)) for method in allowed.split())
