"""How long the GUI is ever busy while the panel segments in a whole head: python Testing/benchmarks/panel_latency.py

A timer ticks every 5 ms in Slicer's stand-in; the longest gap between two ticks is what a user feels as a hang. Written
to results/panel_latency.json, by phase: start (click to first progress), run, end (last progress to the result).
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "host"), str(HERE.parent / "panel")]

RESULT = HERE / "results" / "panel_latency.json"


class Ticks:
    """The longest gap (ms) between two ticks of the event loop, by phase."""

    def __init__(self):
        import qt

        self.phase, self.longest_ms, self._last_s = "", {}, time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setInterval(5)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now_s = time.perf_counter()
        gap_ms = 1000 * (now_s - self._last_s)
        self.longest_ms[self.phase] = max(self.longest_ms.get(self.phase, 0.0), gap_ms)
        self._last_s = now_s


def measure() -> dict:
    import slicer
    from tour import REGION, ROOT, add_region, head_file

    from slicerhost import application

    app = application.start()
    app.reset()
    widget = app.load_module(ROOT / "MambaSegmentation" / "MambaSegmentation.py")
    ui, jobs = widget.ui, widget.panel.jobs
    volume = slicer.util.loadVolume(str(head_file()))
    ui.volumeSelector.setCurrentNode(volume)
    ui.roiSelector.setCurrentNode(add_region(REGION))
    app.wait_until(lambda: ui.estimateLabel.visible, 120)
    ticks = Ticks()
    app.wait(1.0)
    ticks.phase = "start"
    ui.segmentButton.click()
    app.wait_until(lambda: not jobs.isRunning or ui.progressBar.maximum == 100, 120)
    ticks.phase = "run"
    app.wait_until(lambda: not jobs.isRunning or ui.progressBar.value == 100, 900)
    ticks.phase = "end"
    app.wait_until(lambda: not jobs.isRunning, 120)
    app.wait(0.5)
    assert widget.panel.state.resultSegmentation is not None, ui.messageLabel.text
    size = volume.GetImageData().GetDimensions()
    app.reset()
    return {"voxels": list(size), "longest_gap_ms": {k: round(v, 1) for k, v in ticks.longest_ms.items() if k}}


def main() -> None:
    found = {"machine": f"{platform.machine()}, {os.cpu_count()} processors", **measure()}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
