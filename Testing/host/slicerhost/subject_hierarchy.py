"""Keeps the subject hierarchy in step with the scene; in Slicer a Qt plugin does this."""

from __future__ import annotations

import slicer
import vtk


@vtk.calldata_type(vtk.VTK_OBJECT)
def _added(scene, _event, node) -> None:
    if not node.IsA("vtkMRMLDisplayableNode") or node.GetHideFromEditors() or scene.IsBatchProcessing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _about_to_be_removed(scene, _event, node) -> None:
    if scene.IsBatchProcessing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if node is not hierarchy else 0
    if item:
        hierarchy.RemoveItem(item, False, False)


def observe(scene) -> None:
    """Every displayable node that comes gets an item under the scene, and loses it when it goes."""
    scene.AddObserver(scene.NodeAddedEvent, _added)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _about_to_be_removed)
