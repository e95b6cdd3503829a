"""Images in and out of files. Reading checks everything that could spoil a result later; see `MambaSegLib.volume`.

Torch-free. Positions are LPS millimetres; arrays are (Z, Y, X).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from . import dicom_series, picture
from .errors import UserError
from .label_file import check_output, collapse_layers, write_labels
from .nifti_check import check_nifti, damaged, no_voxel_size
from .volume import Volume, check_slices, check_volume
from .wording import counted

__all__ = ["Volume", "check_output", "check_volume", "read_labels", "read_volume", "write_labels"]

EXTENSIONS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
_READABLE = f"{', '.join(EXTENSIONS)}, a DICOM file or folder, or a picture: {', '.join(picture.EXTENSIONS)}"


def read_volume(path: str | Path, warn: Callable[[str], None] = warnings.warn, frame: int | None = None) -> Volume:
    """Read one scalar 3-D image, or a picture, in colour or grey.

    Args:
        path: .nrrd .nhdr .nii .nii.gz .mha .mhd, a folder with a DICOM series, or any file of that series; .png .jpg
            .bmp .tif or a single slice.
        warn: told in a sentence about things that the user should know but that do not stop the work.
        frame: which time point of a sequence (4-D, or Slicer's .seq.nrrd), from 0 on; None for a single volume.

    Returns:
        The image, (Z, Y, X), in the file's own number type; a single slice (1, Y, X), in colour (3, 1, Y, X).

    Raises:
        UserError: missing, corrupt or wrong file, 4-D or colour volume, NaN, a line of voxels, broken geometry.
    """
    path = Path(path)
    image = _read(path, warn, frame)
    if picture.is_picture_file(path) or picture.is_colour_slice(image):
        return picture.from_image(image, path.name)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(
            f"One grey value per voxel was expected, but '{path.name}' has {image.GetNumberOfComponentsPerPixel()} "
            "(a colour image, a vector field or several time points).",
            "Choose or extract a single channel; of a sequence of volumes, ask for one frame.",
        )
    volume = Volume.from_sitk(image, path.name)
    if volume.shape[0] > 1 or min(volume.shape[1:]) < 2:  # whether one slice is enough, the model decides
        check_slices(volume)
    check_volume(volume)
    return volume


def read_geometry(path: str | Path) -> Volume | None:
    """What the header of a scalar 3-D file says: a volume whose voxels, all one and the same zero, take no memory.

    None for whatever needs more than a header, such as DICOM, and for what is no image; `read_volume` then tells why.
    """
    path = Path(path)
    if not path.is_file() or not path.name.lower().endswith(EXTENSIONS):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() > 1 or 0 in reader.GetSpacing():
        return None
    dtype = sitk.GetArrayViewFromImage(sitk.Image([1] * 3, reader.GetPixelID())).dtype
    array = np.broadcast_to(np.zeros(1, dtype), reader.GetSize()[::-1])
    return Volume(array, reader.GetSpacing(), reader.GetOrigin(), np.reshape(reader.GetDirection(), (3, 3)), path.name)


def read_labels(path: str | Path) -> Volume:
    """Read a label map or a segmentation file (.seg.nrrd) as whole numbers, (Z, Y, X); 0 is background.

    Overlapping segments, which Slicer keeps in several layers, are painted one over the other in their order.
    Raises UserError like `read_volume`, and when the voxels are not whole numbers.
    """
    path = Path(path)
    image = _read(path, warnings.warn)
    if picture.is_picture_file(path):
        return picture.grey(picture.from_image(image, path.name))
    if image.GetNumberOfComponentsPerPixel() > 1:
        volume = collapse_layers(image, path.name)
    else:
        volume = Volume.from_sitk(image, path.name)
    check_volume(volume)
    if volume.array.dtype.kind == "f":
        rounded = np.rint(volume.array)
        if not np.array_equal(rounded, volume.array):
            raise UserError(
                f"Whole numbers were expected as labels, but '{path.name}' holds fractions.",
                "Choose the label map or segmentation, not the image.",
            )
        volume = volume.with_array(rounded.astype(np.int32))
    return volume


def _read(path: Path, warn: Callable[[str], None], frame: int | None = None) -> sitk.Image:
    if not path.exists():
        raise UserError(f"An image was expected at '{path}', but there is no such file.", "Check the path.")
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters of ITK's chatter on stderr is said by us
    try:
        if path.is_dir():
            image = dicom_series.read_folder(path, warn)
        elif path.name.lower().endswith(EXTENSIONS):
            if path.name.lower().endswith((".nii", ".nii.gz")):
                check_nifti(path)
            image = sitk.ReadImage(str(path))
        elif picture.is_picture_file(path):
            return sitk.ReadImage(str(path))
        elif dicom_series.is_dicom(path):
            image = dicom_series.read_file(path, warn)
        else:
            raise UserError(f"An image was expected ({_READABLE}), but '{path.name}' is none.", "Choose such a file.")
    except RuntimeError as error:
        raise _readable(error, path) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    return _three_dimensional(image if frame is None else _frame(image, frame, path.name), path.name)


def _frame(image: sitk.Image, frame: int, name: str) -> sitk.Image:
    """One time point of a 4-D image, or of a 3-D one that keeps them as components, as Slicer writes sequences."""
    as_components = image.GetDimension() == 3 and image.GetNumberOfComponentsPerPixel() > 1
    count = image.GetNumberOfComponentsPerPixel() if as_components else 1
    count = image.GetSize()[3] if image.GetDimension() == 4 else count
    if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < count:
        raise UserError(
            f"A frame of 0 to {count - 1} was expected, as '{name}' has {counted(count, 'time point')}, "
            f"but {frame!r} came.",
            "Choose one of these frames.",
        )
    if as_components:
        return sitk.VectorIndexSelectionCast(image, frame)
    return image[..., frame] if image.GetDimension() == 4 else image


def _three_dimensional(image: sitk.Image, name: str) -> sitk.Image:
    size = image.GetSize()
    if image.GetDimension() == 4 and size[3] == 1:
        return image[..., 0]
    if image.GetDimension() == 2:
        return sitk.JoinSeries(image)  # one slice, where it lies in its plane
    if image.GetDimension() != 3:
        raise UserError(
            f"A 3-D image was expected, but '{name}' is {image.GetDimension()}-D ({' x '.join(map(str, size))}).",
            "Ask for one frame of a sequence, or extract one channel and choose that file.",
        )
    return image


def _readable(error: RuntimeError, path: Path) -> UserError:
    """ITK's report, several lines of C++ file names, as one sentence."""
    text = str(error)
    if "Zero-valued spacing" in text:
        return no_voxel_size(path.name)
    if "orthonormal" in text:
        return UserError(
            f"Axes at right angles were expected, but '{path.name}' is sheared.",
            "Resample it onto a regular grid first, for example with Slicer's Resample modules.",
        )
    if "Permission denied" in text:
        return UserError(f"'{path}' may not be read.", "Ask for the right to read it.")
    return damaged(path.name)
