"""The tests that CTest runs in a real Slicer are themselves tested here, as far as they need no worker."""

import importlib.util
import unittest
from pathlib import Path

PATH = Path(__file__).resolve().parents[1] / "slicer" / "MambaSegmentationPanelTest.py"
WITHOUT_WORKER = ("test_pages", "test_settings", "test_import", "test_geometry")


def test_panel_test_passes(panel, monkeypatch):
    import slicer

    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None)  # the panel is shown already
    spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cases = module.MambaSegmentationPanelTest
    every = set(unittest.TestLoader().getTestCaseNames(cases))
    assert every.issuperset(WITHOUT_WORKER)
    assert all(f"self.{name}" in PATH.read_text(encoding="utf-8") for name in every), "runTest leaves one out"
    result = unittest.TestResult()
    unittest.TestSuite(map(cases, WITHOUT_WORKER)).run(result)
    assert result.wasSuccessful() and result.testsRun == len(WITHOUT_WORKER), result.errors + result.failures
