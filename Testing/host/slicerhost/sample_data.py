"""Double of Slicer's module SampleData: registered sources are kept, and `files` says what a download would bring.

A sample that is not in `files` is one that cannot be reached: as in Slicer, the download fails with an empty list.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import slicer

files: dict[str, Path] = {}  # sample name -> the file that a download would bring
downloads: list[str] = []  # the names that were asked for


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
        loadFileType=None,
    ) -> None:
        of_category = slicer.modules.sampleDataSources.setdefault(category, [])
        source = types.SimpleNamespace(sampleName=sampleName, uris=uris, nodeNames=nodeNames, checksums=checksums)
        if source not in of_category:
            of_category.append(source)

    def sourceForSampleName(self, name: str):
        every = (source for sources in slicer.modules.sampleDataSources.values() for source in sources)
        return next((source for source in every if source.sampleName == name), None)

    def downloadSamples(self, name: str) -> list:
        source = self.sourceForSampleName(name)
        downloads.append(name)
        if source is None or name not in files:
            return []
        return [slicer.util.loadVolume(str(files[name]), {"name": source.nodeNames})]


def forget() -> None:
    """As after a start without network."""
    files.clear()
    downloads.clear()
    slicer.modules.sampleDataSources = {}


def install() -> None:
    """Make `from SampleData import SampleDataLogic` work."""
    module = types.ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    sys.modules["SampleData"] = module
