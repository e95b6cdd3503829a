"""Slicer's own Segment Editor inside the panel, on the segmentation that the page works on."""

import slicer

_UNDO_STATES = 10


class EditorView:
    """Makes the widget and keeps it on one segmentation and its image.

    Args:
        area: QWidget with a layout, the place for it.
    """

    def __init__(self, area):
        self.widget = slicer.qMRMLSegmentEditorWidget()
        self.widget.setMaximumNumberOfUndoStates(_UNDO_STATES)
        self.widget.segmentationNodeSelectorVisible = False
        self.widget.sourceVolumeNodeSelectorVisible = False
        self.widget.setMRMLScene(slicer.mrmlScene)
        area.layout().addWidget(self.widget)

    @property
    def node(self):
        """The settings of the editor, of our own: the module Segment Editor keeps its."""
        node = slicer.mrmlScene.GetSingletonNode("MambaSegmentation", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag("MambaSegmentation")
            node = slicer.mrmlScene.AddNode(node)
        return node

    def show(self, segmentationNode, volumeNode) -> None:
        """None, None for nothing to edit."""
        if segmentationNode is None and self.widget.segmentationNode() is None:
            return
        self.widget.setMRMLSegmentEditorNode(self.node)
        if self.widget.segmentationNode() is not segmentationNode:
            self.widget.setSegmentationNode(segmentationNode)
        if volumeNode and self.widget.sourceVolumeNode() is not volumeNode:
            self.widget.setSourceVolumeNode(volumeNode)

    def enter(self) -> None:
        self.widget.setupViewObservations()
        self.widget.installKeyboardShortcuts()

    def exit(self) -> None:
        self.widget.setActiveEffect(None)
        self.widget.uninstallKeyboardShortcuts()
        self.widget.removeViewObservations()

    def leaveScene(self) -> None:
        """The scene is about to be closed: hold on to nothing of it."""
        self.widget.setActiveEffect(None)
        self.widget.setSegmentationNode(None)

    def saveStateForUndo(self) -> None:
        self.widget.saveStateForUndo()
