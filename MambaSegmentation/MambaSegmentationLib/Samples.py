"""Images to try a model with: found, downloaded and checked by Slicer's Sample Data module, at one click."""

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

_ASSETS = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
_CATEGORY = "Mamba Segmentation"
# modality -> (name in the scene, file, SHA-256): public images of Slicer's own sample data.
_IMAGES = {
    "MR": ("MRHead", "MR-head.nrrd", "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"),
    "CT": ("CTACardio", "CTA-cardio.nrrd", "3b0d4eb1a7d8ebb0c5a89cc0504640f76a030b4e869e33ff34c564c3d3b88ad2"),
}
# modality -> keywords of models that find something in that image.
_SHOWN = {"MR": {"brain", "head"}, "CT": {"heart", "chest", "thorax", "lung"}}


def _sampleName(modality: str) -> str:
    return f"MambaSegmentation{_IMAGES[modality][0]}"


def register() -> None:
    """Add the images to Slicer's Sample Data module."""
    from SampleData import SampleDataLogic

    for modality, (node, file, digest) in _IMAGES.items():
        SampleDataLogic.registerCustomSampleDataSource(
            category=_CATEGORY,
            sampleName=_sampleName(modality),
            uris=_ASSETS + digest,
            fileNames=file,
            nodeNames=node,
            checksums=f"SHA256:{digest}",
        )


def modalityFor(bundle) -> str:
    """Of the image that shows what the model finds; "" where there is none."""
    modality = bundle.inputs[0]["modality"]
    keywords = {word.lower() for word in bundle.data["keywords"]}
    return modality if _SHOWN.get(modality, set()) & keywords else ""


def load(modality: str):
    """The sample image of that modality as a volume node; downloaded at the first time. Raises UserError."""
    register()
    from SampleData import SampleDataLogic

    try:
        nodes = SampleDataLogic().downloadSamples(_sampleName(modality))
    except Exception as error:  # the network, the disk, a proxy: the user can do the same about all of them
        raise _failed(str(error)) from error
    if not nodes or nodes[0] is None or isinstance(nodes[0], str):
        raise _failed(_("no answer"))
    return nodes[0]


def _failed(reason: str) -> UserError:
    return UserError(
        _("The sample image could not be downloaded: {reason}.").format(reason=reason),
        _("Check the network connection and try again, or load an image of your own; segmenting needs no network."),
    )


def registerAtStart() -> None:
    """Called when Slicer has started: its Sample Data module exists from then on."""
    if hasattr(slicer.modules, "sampledata"):
        register()


class SampleButton:
    """Loads a public image that suits the model; hidden when there is none. `onLoaded(volumeNode)` is told."""

    def __init__(self, button, view, onLoaded: Callable):
        self._button, self._view, self._onLoaded = button, view, onLoaded
        self._modality = ""
        button.connect("clicked()", self._onClicked)

    def offer(self, bundle) -> None:
        """For the chosen model, None without one."""
        self._modality = modalityFor(bundle) if bundle else ""
        self._button.visible = bool(self._modality)
        tip = _("Download a public {modality} image with Slicer's Sample Data module and choose it.")
        self._button.toolTip = tip.format(modality=self._modality)

    def _onClicked(self) -> None:
        try:
            node = load(self._modality)
        except UserError as error:
            self._view.message("error", error.message, error.hint)
            return
        self._onLoaded(node)
