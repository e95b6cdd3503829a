"""What the .ui files promise to the keyboard and to who reads tooltips: mnemonics, buddies, order of Tab, names."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "MambaSegmentation" / "Resources" / "UI"
FRAME = FOLDER / "MambaSegmentation.ui"  # its run area is seen below every page
PAGES = sorted(set(FOLDER.glob("*.ui")) - {FRAME})
BUTTONS = {"QPushButton", "QCheckBox"}
BOXES = {"QComboBox", "ctkComboBox", "qMRMLNodeComboBox", "qMRMLCheckableNodeComboBox", "QSpinBox", "QDoubleSpinBox"}
TEXTS = {"QLineEdit", "ctkPathLineEdit", "QTextBrowser", "QPlainTextEdit"}
FIELDS = BOXES | TEXTS | {"QListWidget", "QTableWidget"}


def tree(path: Path):
    return ElementTree.parse(path).getroot()


def value(widget, name: str) -> str:
    found = next((p for p in widget.findall("property") if p.get("name") == name), None)
    return "" if found is None else "".join(found.itertext()).strip()


def in_order(node) -> list:
    """The widgets in or below a layout or widget as one reads them: row by row, in a row from left to right."""
    items = sorted(node.findall("item"), key=lambda item: (int(item.get("row", 0)), int(item.get("column", 0))))
    found = []
    for child in [c for item in items for c in item] + node.findall("layout") + node.findall("widget"):
        found += [child] if child.tag == "widget" else []
        found += in_order(child)
    return found


def widgets(path: Path, classes: set[str]) -> list:
    return [widget for widget in in_order(tree(path)) if widget.get("class") in classes]


def mnemonics(path: Path) -> dict[str, str]:
    """widget name -> its letter or digit."""
    texts = {w.get("name"): value(w, "text") for w in widgets(path, BUTTONS | {"QLabel"})}
    return {name: text.split("&")[1][0].lower() for name, text in texts.items() if "&" in text}


@pytest.mark.parametrize("path", [FRAME, *PAGES], ids=lambda path: path.stem)
def test_every_button_has_its_own_key(path):
    keys = mnemonics(path)
    without = [b.get("name") for b in widgets(path, BUTTONS) if b.get("name") not in keys]
    assert not without
    is_page = tree(path).find("widget").get("class") == "qMRMLWidget" and path != FRAME
    together = keys | mnemonics(FRAME) if is_page else keys  # a dialog is a window of its own
    taken: dict[str, str] = {}
    for name, key in together.items():
        assert taken.setdefault(key, name) == name, f"{name} and {taken[key]} have the same key, {key.upper()}"


@pytest.mark.parametrize("path", [FRAME, *PAGES], ids=lambda path: path.stem)
def test_tab_goes_through_all_fields_as_one_reads_them(path):
    stops = [stop.text for stop in tree(path).iter("tabstop")]
    assert stops == [w.get("name") for w in widgets(path, BUTTONS | FIELDS | {"QTabWidget"})]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_field_is_named_and_explained(path):
    for field in widgets(path, FIELDS):
        assert value(field, "accessibleName") and value(field, "toolTip"), field.get("name")
    for check_box in widgets(path, {"QCheckBox"}):
        assert value(check_box, "toolTip"), check_box.get("name")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_labels_lead_to_their_fields(path):
    names = {field.get("name") for field in widgets(path, FIELDS)}
    for form in (layout for layout in tree(path).iter("layout") if layout.get("class") == "QFormLayout"):
        rows: dict[str, list] = {}
        for item in form.findall("item"):
            rows.setdefault(item.get("row"), []).append(item)
        for items in (i for i in rows.values() if len(i) == 2):
            label, field = (next(iter(item)) for item in sorted(items, key=lambda item: item.get("column")))
            inside = [w.get("name") for w in ([field] if field.tag == "widget" else in_order(field))]
            fields = [name for name in inside if name in names]
            if fields:
                assert value(label, "buddy") == fields[0], label.get("name")


@pytest.mark.parametrize("path", [FRAME, *PAGES], ids=lambda path: path.stem)
def test_sections_may_be_narrower_than_they_would_like(path):
    """A ctkCollapsibleButton's own policy makes its preferred width the page's least one."""
    for section in widgets(path, {"ctkCollapsibleButton"}):
        (policy,) = section.findall("property[@name='sizePolicy']/sizepolicy")
        assert policy.get("hsizetype") == "Preferred", section.get("name")
