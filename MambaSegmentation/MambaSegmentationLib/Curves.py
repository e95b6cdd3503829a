"""The curves of a fine-tuning in Slicer's plot view: one table, one series per curve, one chart."""

import slicer
import vtk
from slicer.i18n import tr as _

_COLOURS = ((0.20, 0.47, 0.75), (0.90, 0.45, 0.10), (0.30, 0.60, 0.30))
_MARK = "MambaSegmentation.curves"


class Curves:
    """Gets points by `add`; makes its nodes with the first one. A new `begin` replaces the nodes of the last run."""

    def __init__(self):
        self._title, self._layout = "", None

    @property
    def chart(self):
        """None before the first point, and after the scene was closed."""
        return self._node("vtkMRMLPlotChartNode", "chart")

    def begin(self, title: str) -> None:
        for name in ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTableNode"):
            for node in slicer.util.getNodesByClass(name):
                if node.GetAttribute(_MARK):
                    slicer.mrmlScene.RemoveNode(node)
        self._title = title

    def add(self, step: int, name: str, value: float | None) -> None:
        """A point of the curve `name`; None is a gap."""
        if value is None:
            return
        table = self._table(name)
        row = table.GetTable().InsertNextBlankRow()
        table.GetTable().SetValue(row, 0, vtk.vtkVariant(step))
        table.GetTable().SetValue(row, 1, vtk.vtkVariant(float(value)))
        table.GetTable().Modified()
        table.Modified()

    def show(self, isShown: bool) -> None:
        """Switch to a layout with the plot view, and back."""
        manager = slicer.app.layoutManager()
        if isShown and self.chart:
            self._layout = manager.layout
            slicer.modules.plots.logic().ShowChartInLayout(self.chart)
        elif not isShown and self._layout is not None:
            manager.setLayout(self._layout)
            self._layout = None

    def _node(self, className: str, mark: str):
        nodes = slicer.util.getNodesByClass(className)
        return next((node for node in nodes if node.GetAttribute(_MARK) == mark), None)

    def _make(self, className: str, name: str, mark: str):
        node = slicer.mrmlScene.AddNewNodeByClass(className, f"{self._title}: {name}" if name else self._title)
        node.SetAttribute(_MARK, mark)
        return node

    def _table(self, name: str):
        found = self._node("vtkMRMLTableNode", name)
        if found:
            return found
        table = self._make("vtkMRMLTableNode", name, name)
        for column, kind in ((_("Step"), vtk.vtkIntArray), (name, vtk.vtkDoubleArray)):
            array = kind()
            array.SetName(column)
            table.AddColumn(array)
        series = self._make("vtkMRMLPlotSeriesNode", name, name)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(_("Step"))
        series.SetYColumnName(name)
        series.SetPlotType(series.PlotTypeScatter)
        chart = self.chart or self._newChart()
        series.SetColor(*_COLOURS[chart.GetNumberOfPlotSeriesNodes() % len(_COLOURS)])
        if name != "loss":  # a few points: without marks a single one is not seen
            series.SetMarkerStyle(series.MarkerStyleCircle)
        else:
            series.SetMarkerStyle(series.MarkerStyleNone)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        return table

    def _newChart(self):
        chart = self._make("vtkMRMLPlotChartNode", "", "chart")
        chart.SetTitle(self._title)
        chart.SetXAxisTitle(_("Step"))
        return chart
