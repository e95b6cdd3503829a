"""The page Fine-tune: running and pausing, curves and picture, the comparison, keep and discard, history."""

import pytest
from finetune_cases import active, add_case, events, finish, keys


@pytest.fixture
def page(user):
    return user.panel.page("FineTunePage")


def test_pause_continue_stop(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    ui, asked = user.ui, events(page, monkeypatch)
    user.click(ui.startTrainingButton)
    job, params, _onEvent = asked[-1]
    assert (job, params["budget_s"], params["resume"]) == ("finetune", 120, False)
    assert params["corrections"] == str(store) and params["output"] == str(own_models)
    assert ui.pauseTrainingButton.enabled and not ui.startTrainingButton.enabled
    from MambaSegLib.catalogue import version_name

    run = own_models / ".finetune" / version_name(page.training.bundle())
    run.mkdir(parents=True)
    (run / "checkpoint.pt").write_bytes(b"weights")
    user.click(ui.pauseTrainingButton)
    assert ui.startTrainingButton.text == "Con&tinue" and "paused" in ui.trainingHintLabel.text
    user.click(ui.startTrainingButton)
    assert asked[-1][1]["resume"] is True
    slicer.app.dialogs.answer_next(qt.QMessageBox.Yes)
    user.click(ui.stopTrainingButton)
    assert not (run / "checkpoint.pt").exists() and ui.startTrainingButton.text == "S&tart"


def test_curves_in_the_plot_view(user, page, store, monkeypatch):
    import slicer

    add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    asked = events(page, monkeypatch)
    user.click(user.ui.startTrainingButton)
    assert not user.ui.showCurvesButton.enabled
    for step, value in ((1, 1.5), (2, None), (3, 1.25)):
        asked[-1][2]({"event": "metric", "step": step, "name": "loss", "value": value})
    asked[-1][2]({"event": "metric", "step": 3, "name": "validation Dice", "value": 0.5})
    chart = page.training.curves.chart
    assert chart.GetNumberOfPlotSeriesNodes() == 2 and "Quick hippocampus" in chart.GetTitle()
    series = chart.GetNthPlotSeriesNode(0)
    table = series.GetTableNode().GetTable()
    assert [table.GetValue(r, 0).ToInt() for r in range(2)] == [1, 3] and table.GetNumberOfRows() == 2
    assert table.GetValueByName(1, series.GetYColumnName()).ToDouble() == 1.25
    user.click(user.ui.showCurvesButton)
    shown = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotViewNode")
    assert shown is None or shown.GetPlotChartNode() is chart
    user.click(user.ui.showCurvesButton)
    page.training.curves.begin("next")
    assert page.training.curves.chart is None and not slicer.util.getNodesByClass("vtkMRMLTableNode")
    user.panel.jobs.forget()


def test_picture_of_the_model_that_learns(user, page, store, monkeypatch, tmp_path):
    import qt

    add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    asked, ui, file = events(page, monkeypatch), user.ui, tmp_path / "ü.png"
    user.click(ui.startTrainingButton)
    assert not ui.trainingPictureLabel.visible
    picture = qt.QPixmap(404, 150)
    picture.fill(qt.QColor(200, 40, 40))
    assert picture.save(str(file))
    asked[-1][2]({"event": "picture", "step": 20, "path": str(file), "text": "Step 20: Image 3"})
    assert ui.trainingPictureLabel.visible and ui.trainingPictureCaption.text == "Step 20: Image 3"
    file.unlink()
    asked[-1][2]({"event": "picture", "step": 40, "path": str(file), "text": "Step 40: Image 3"})
    assert ui.trainingPictureCaption.text == "Step 20: Image 3", "the file was gone: the last one stays"
    user.click(ui.pauseTrainingButton)
    user.click(ui.startTrainingButton)
    assert not ui.trainingPictureLabel.visible, "a new run has no picture yet"
    user.panel.jobs.forget()


def test_before_and_after_and_keep(user, page, store, monkeypatch, own_models):
    version = finish(user, page, store, monkeypatch, own_models, accepted=True)
    table = user.ui.decisionTable
    assert [table.item(0, c).text() for c in range(4)] == [
        *("Anterior hippocampus", "0.810", "0.840", "+0.030\n[+0.010, +0.050]"),
    ]
    assert "passed and is in use now" in user.ui.decisionLabel.text and active(own_models) == version.id
    user.click(user.ui.keepModelButton)
    assert not user.ui.decisionSection.visible and active(own_models) == version.id


def test_discard_goes_back_and_deletes(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    version = finish(user, page, store, monkeypatch, own_models, accepted=True)
    slicer.app.dialogs.answer_next(qt.QMessageBox.Yes)
    user.click(user.ui.discardModelButton)
    assert active(own_models).startswith("quick-") and active(own_models) != version.id
    assert not version.folder.exists() and not user.ui.decisionSection.visible


def test_one_that_did_not_pass(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    version = finish(user, page, store, monkeypatch, own_models, accepted=False)
    assert "did not pass" in user.ui.decisionLabel.text and user.ui.keepModelButton.text == "&Keep and use it"
    assert active(own_models) != version.id
    slicer.app.dialogs.answer_next(qt.QMessageBox.No, qt.QMessageBox.Yes)
    user.click(user.ui.keepModelButton)
    assert active(own_models) != version.id
    user.click(user.ui.keepModelButton)
    assert active(own_models) == version.id


def test_history_and_rollback(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    version = finish(user, page, store, monkeypatch, own_models, accepted=True)
    user.click(user.ui.keepModelButton)
    ui, table = user.ui, user.ui.historyTable
    ui.historySection.collapsed = False
    rows = [table.item(row, 0).text() for row in range(table.rowCount)]
    assert rows[0] == f"{version.id} (in use)" and len(rows) == 2 and table.item(1, 2).text() == "first model"
    user.click(ui.rollbackButton)
    assert active(own_models) != version.id and not ui.rollbackButton.enabled
    table.selectRow(0)
    user.click(ui.useVersionButton)
    assert active(own_models) == version.id
    user.click(ui.rollbackButton)
    table.selectRow(0)
    slicer.app.dialogs.answer_next(qt.QMessageBox.Yes)
    user.click(ui.deleteVersionButton)
    assert not version.folder.exists() and table.rowCount == 1


def test_fine_tuning_with_the_real_worker(user, page, store, own_models, monkeypatch):
    """A few seconds of training on cubes, judged on three patients that were held out."""
    for seed, key in enumerate([*keys("training", 2), *keys("hold-out", 3)]):
        add_case(store, key, seed)
    user.choose_model("Quick")
    user.open("FineTunePage")
    ui = user.ui
    ui.budgetSelector.addItem("6 seconds", 6)
    ui.budgetSelector.setCurrentIndex(ui.budgetSelector.count - 1)
    user.click(ui.startTrainingButton)
    user.until_idle()
    ui.budgetSelector.removeItem(ui.budgetSelector.count - 1)
    assert ui.decisionSection.visible, user.message
    assert ui.decisionTable.rowCount == 2 and page.training.curves.chart.GetNumberOfPlotSeriesNodes() == 2
    assert ui.trainingPictureLabel.visible and ui.trainingPictureLabel.pixmap.width() == 270
    assert "left the reference, right the model" in ui.trainingPictureCaption.text
    assert len([f for f in own_models.iterdir() if f.name.startswith("quick-")]) == 1
    assert not ui.pauseTrainingButton.enabled
