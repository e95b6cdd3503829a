"""Which files a job on another computer needs and makes, and how they travel: in pieces, each file once. Torch-free.

What travels together is a *unit*: an image, or the files of a model. It is named by the SHA-256 of its content, so
that a computer that still has it is not sent it again. Names of files, and of the cases in a model's history, stay at
home: they may tell who the patient is.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from . import catalogue
from .bundle import BUNDLE_FILE, sha256_of
from .errors import UserError
from .image import read_volume
from .job import Report
from .picture import EXTENSIONS as PICTURES
from .provenance import shareable
from .remote_protocol import EXCHANGED, PIECE_BYTES
from .safe_file import cannot_write

_MOST_BYTES = 4 << 30  # of an output file: a label map of more is none
_OF_DICOM = re.compile(r"[0-9a-f]{4}\|[0-9a-f]{4}|.*(dicom|patient).*", re.IGNORECASE)
_WHOLE = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha", *PICTURES)  # one file is the whole image


@dataclass(frozen=True)
class Unit:
    """Files that travel together.

    Attributes:
        place: what the user calls it: the image file, or the model's folder.
        files: {name that it gets there: file here}.
        main: the name of the file that the job is told; "" for the folder.
    """

    place: Path
    files: dict[str, Path]
    main: str = ""

    @property
    def content(self) -> dict[str, str]:
        """{name there: SHA-256}."""
        return {name: sha256_of(path) for name, path in self.files.items()}

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    @property
    def reference(self) -> dict:
        """What stands for it in the params."""
        return {"unit": self.id, "main": self.main}

    def pieces(self) -> Iterator[dict]:
        """The params of the far job "receive", in order."""
        unit = self.id
        for name, path in self.files.items():
            digest, offset = hashlib.sha256(), 0
            with open(path, "rb") as file:
                data = file.read(PIECE_BYTES)
                while True:
                    following = file.read(PIECE_BYTES)
                    digest.update(data)
                    text = base64.b64encode(data).decode("ascii")
                    end = "" if following else digest.hexdigest()
                    yield {"unit": unit, "name": name, "offset": offset, "data": text, "sha256": end}
                    offset += len(data)
                    if not following:
                        break
                    data = following


class Luggage:
    """What the params of a job name, ready to travel.

    Args:
        job: one of `remote_protocol.EXCHANGED`.
        params: of the job, with paths of this computer.
        folder: for what does not travel as it is: images in several files, and what a model says of itself.
        report: hears of odd images, and may cancel.

    Attributes:
        params: with references in place of paths.
        units: by their id.
        warnings: about images that were read here, one sentence each.

    Raises:
        UserError: a file or model is not there, or cannot be read.
    """

    def __init__(self, job: str, params: dict, folder: Path, report: Report):
        self._folder, self._report = folder, report
        self.units: dict[str, Unit] = {}
        self.warnings: list[str] = []
        self.params = dict(params)
        for name in EXCHANGED[job][0]:
            given = params.get(name)
            if isinstance(given, list | tuple):
                self.params[name] = [self._packed(path, params) for path in given]
            elif given:
                self.params[name] = self._packed(given, params)
        if params.get("model"):
            self.params["model"] = self._added(self._model(params["model"]))

    def at_home(self, text: str, far_folder: str) -> str:
        """A text from there, with the names that the user knows."""
        text = text.replace(far_folder, "")
        for key, unit in self.units.items():
            if unit.main:
                text = re.sub(rf"{key}[/\\]+{re.escape(unit.main)}", key, text)
                text = text.replace(unit.main, unit.place.name)
            text = text.replace(key, str(unit.place))
        return text

    def _packed(self, path: str | os.PathLike, params: dict) -> dict:
        self._report.check_cancelled()
        path = Path(path).expanduser()
        if not path.exists():
            raise UserError(f"An image was expected at '{path}', but there is no such file.", "Check the path.")
        suffix = next((suffix for suffix in _WHOLE if path.name.lower().endswith(suffix)), None)
        source = path
        if path.is_dir() or suffix is None or _has_dicom_header(path):  # or header and voxels in two files
            volume = read_volume(path, self._warn, params.get("frame"))
            self.params["frame"] = None
            source, suffix = self._folder / f"{uuid.uuid4().hex}.nrrd", ".nrrd"
            sitk.WriteImage(volume.to_sitk(), str(source))
        name = f"image-{sha256_of(source)[:12]}{suffix}"
        return self._added(Unit(path, {name: source}, name))

    def _model(self, model: str | os.PathLike) -> Unit:
        bundle = catalogue.find(model)
        about, weights = self._folder / BUNDLE_FILE, bundle.weights_path
        about.write_text(json.dumps(shareable(bundle.data)[0]), encoding="utf-8")
        return Unit(bundle.folder, {BUNDLE_FILE: about, weights.name: weights})

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self._report.message(text, "warning")

    def _added(self, unit: Unit) -> dict:
        self.units[unit.id] = unit
        return unit.reference


def _has_dicom_header(path: Path) -> bool:
    """Whether some program has copied what a DICOM file tells of the patient into another format's header."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # whoever reads the image tells why
        return False
    is_segmentation = path.name.lower().endswith(".seg.nrrd")
    return not is_segmentation and any(_OF_DICOM.fullmatch(key) for key in reader.GetMetaDataKeys())


class Unfit(Exception):
    """What came from the other computer is not what was announced; the text says how."""


class Arrivals:
    """Output files that come in pieces. They appear, all or none, with `keep`.

    Args:
        wanted: {name: path}; nothing is ever written elsewhere.

    Raises (all methods):
        UserError: a file could not be written here.
        Unfit: what comes is not what was announced.
    """

    def __init__(self, wanted: dict[str, Path]):
        self._wanted = wanted
        self._parts = {name: path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}") for name, path in wanted.items()}
        self._digests = {name: hashlib.sha256() for name in wanted}
        self._bytes = dict.fromkeys(wanted, 0)
        self._complete: set[str] = set()

    def add(self, name: str, data: str, sha256: str) -> None:
        """The next piece of the file `name`, in base64; `sha256` of the whole file comes with its last piece."""
        if name not in self._wanted or name in self._complete:
            raise Unfit("it sent a file that was not asked for")
        try:
            piece = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Unfit("a piece of a file is damaged") from error
        self._bytes[name] += len(piece)
        if self._bytes[name] > _MOST_BYTES:
            raise Unfit("a file has no end")
        self._digests[name].update(piece)
        try:
            with open(self._parts[name], "ab") as file:
                file.write(piece)
        except OSError as error:
            raise cannot_write(self._wanted[name], error) from error
        if sha256:
            if self._digests[name].hexdigest() != sha256:
                raise Unfit("a file arrived damaged")
            self._complete.add(name)

    def keep(self) -> None:
        if self._complete != set(self._wanted):
            raise Unfit("a file is missing")
        for name, path in self._wanted.items():
            try:
                os.replace(self._parts[name], path)
            except OSError as error:
                raise cannot_write(path, error) from error

    def discard(self) -> None:
        """Forget what has not been kept."""
        for part in self._parts.values():
            with contextlib.suppress(OSError):
                part.unlink()
