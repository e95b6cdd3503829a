"""The page Review with thousands of cases: every press answers at once, and every case is reached."""

import time

import pytest
from review_cases import listed, statuses

COUNT = 3000


@pytest.fixture
def long_list(user, review_page, review_folder):
    """A table whose first three cases are there; their doubt orders them b, c, a, the others follow by title."""
    lines = ["case,image,segmentation", *(f"{name},{name}.nrrd,{name}.seg.nrrd" for name in "abc")]
    lines += [f"Fall {number:05d},far/{number}.nrrd,far/{number}.seg.nrrd" for number in range(COUNT - 3)]
    (review_folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("table"))
    ui.reviewPathEdit.currentPath = str(review_folder / "list.csv")
    user.click(ui.reviewStartButton)
    return ui


def test_the_table_holds_the_part_with_the_open_case(user, review_page, long_list):
    ui = long_list
    assert listed(user)[:4] == ["b", "c", "a", "Fall 00000"] and ui.reviewTable.rowCount == 200
    assert ui.reviewCountsLabel.text == f"0 of {COUNT} reviewed. 1 to 200 are in the table."
    ui.reviewSearch.text = "fall 02990"
    assert listed(user) == ["Fall 02990"] and ui.reviewCountsLabel.text.endswith("1 shown.")
    ui.reviewTable.cellClicked.emit(0, 0)
    assert "02990" in user.message or "2990.nrrd" in user.message
    ui.reviewSearch.text = ""
    entries = review_page.review.entries()
    review_page._open(entries[199].id)
    assert ui.reviewTable.currentRow() == 199
    ui.reviewNextButton.click()  # its key works while no case is open
    assert ui.reviewTable.currentRow() == 0 and listed(user)[0] == entries[200].title
    assert "201 to 400" in ui.reviewCountsLabel.text


def test_decisions_and_filters_take_no_longer_than_in_a_short_list(user, long_list):
    ui, times = long_list, {}

    def timed(name: str, action) -> None:
        begin = time.process_time()
        action()
        user._application.processEvents()
        times[name] = time.process_time() - begin

    timed("accept", ui.reviewAcceptButton.click)
    timed("flag", ui.reviewFlagButton.click)
    timed("status", lambda: ui.reviewStatusFilter.setCurrentIndex(ui.reviewStatusFilter.findData("not_started")))
    assert ui.reviewTable.rowCount == 200
    timed("all", lambda: ui.reviewStatusFilter.setCurrentIndex(0))
    timed("search", lambda: setattr(ui.reviewSearch, "text", "Fall"))
    ui.reviewSearch.text = ""
    assert statuses(user)[:4] == ["accepted", "flagged", "begun", "new"]
    assert max(times.values()) < 1.5, times  # seconds of this process alone; it was 25 with all rows in the table
