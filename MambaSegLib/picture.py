"""Pictures: PNG, JPEG, BMP and TIFF files, and colour slices in medical formats, as volumes one slice thick.

Torch-free. A picture has no voxel size in millimetres: a pixel counts as 1 mm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import UserError
from .volume import Volume
from .wording import counted

if TYPE_CHECKING:
    from .bundle import ModelBundle

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_COLOURS = 3
_BRIGHTEST = 255


def is_picture_file(path: Path) -> bool:
    """Whether the file's name says that it is a picture."""
    return path.name.lower().endswith(EXTENSIONS)


def is_colour_slice(image: sitk.Image) -> bool:
    """Whether a 3-D image is one slice of red, green, blue (and opacity) bytes, as Slicer saves a picture."""
    colours = image.GetNumberOfComponentsPerPixel() in (3, 4)
    return colours and image.GetSize()[2:] == (1,) and image.GetPixelID() == sitk.sitkVectorUInt8


def from_image(image: sitk.Image, name: str) -> Volume:
    """Grey picture: (1, Y, X); colour: (3, 1, Y, X), without opacity. A colour slice keeps its place in space.

    Raises:
        UserError: several pages, or an unusual number of colours.
    """
    components = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() == 3 and image.GetSize()[2] == 1 and not is_colour_slice(image):
        image = image[:, :, 0]
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
        image.SetSpacing((1, 1, 1))
        image.SetOrigin((0, 0, 0))
    if image.GetSize()[2] != 1 or components > 4:
        raise UserError(
            f"A grey or colour picture was expected, but '{name}' has {counted(image.GetSize()[2], 'page')} and "
            f"{counted(components, 'value')} per pixel.",
            "Save one page as PNG.",
        )
    volume = Volume.from_sitk(image, name)
    if components == 1:
        return volume
    return volume.with_array(np.ascontiguousarray(volume.array[: 3 if components > 2 else 1]))


def grey(volume: Volume) -> Volume:
    """The one value per pixel of a picture whose colours are all the same, as masks saved in colour are.

    Raises:
        UserError: it really has colours.
    """
    channels = volume.channels
    if any(not np.array_equal(channels[0], other) for other in channels[1:]):
        raise UserError(
            f"One label per pixel was expected, but '{volume.name}' is a picture with colours.",
            "Save the mask as a grey picture whose values are the labels (0 is background).",
        )
    return volume.with_array(channels[0])


def for_model(volume: Volume, bundle: ModelBundle, warn: Callable[[str], None]) -> Volume:
    """The image with as many channels as the model has inputs, where only its colours stand in the way.

    A grey picture stands for red, green and blue; of a picture saved in colour whose colours are all the same, one is
    enough. Every other image comes back as it is.

    Args:
        volume: (Z, Y, X) or (C, Z, Y, X).
        warn: told that the model was made for another kind of picture.

    Raises:
        UserError: grey values that no picture has, or colours that the model does not take.
    """
    count = len(volume.channels)
    if volume.shape[0] != 1 or count == len(bundle.inputs):
        return volume
    if bundle.is_for_pictures and count == 1:
        warn("The model was trained on colour pictures, but this one is grey: expect less from the result.")
        return in_colour(volume)
    if len(bundle.inputs) == 1 and count == _COLOURS:
        if any(not np.array_equal(volume.channels[0], other) for other in volume.channels[1:]):
            raise UserError(
                f"The model '{bundle.id}' needs a grey picture, but '{volume.name}' has colours.",
                "Save it as a grey picture, or choose a model for colour pictures.",
            )
        return volume.with_array(volume.channels[0])
    return volume


def in_colour(volume: Volume) -> Volume:
    """A grey picture, (1, Y, X), as bytes (3, 1, Y, X). Raises UserError as `check_grey_range`."""
    check_grey_range(float(volume.array.min()), float(volume.array.max()), volume.name)
    return volume.with_array(np.repeat(np.rint(volume.channels).astype(np.uint8), _COLOURS, axis=0))


def check_grey_range(low: float, high: float, name: str) -> None:
    """Raise UserError unless these grey values can stand for colours, which are bytes."""
    if low < 0 or high > _BRIGHTEST:
        raise UserError(
            f"Grey values of 0 to {_BRIGHTEST} were expected, as in a PNG, but '{name}' has {low:g} to {high:g}.",
            "Save it as an 8-bit picture with the brightness in which one sees the structures.",
        )
