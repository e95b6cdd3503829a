"""What ``bundle.json`` must contain: every rule names the field, what is expected there and what was found."""

import math
import re
from collections.abc import Callable

from .errors import UserError
from .weights_storage import DTYPES

SCHEMA_VERSION = 1

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# A plain file name: no separator of any system, no drive letter, not hidden, hence no way out of the folder.
_WEIGHTS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.safetensors")
_ORIENTATION_AXES = ({"R", "L"}, {"A", "P"}, {"S", "I"})

_Test = Callable[[object], bool]


def _is_text(value) -> bool:
    return isinstance(value, str)


def _is_filled_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_object(value) -> bool:
    return isinstance(value, dict)


def _is_list(value) -> bool:
    return isinstance(value, list)


def _list_of(test: _Test, *lengths: int) -> _Test:
    return lambda value: isinstance(value, list) and (not lengths or len(value) in lengths) and all(map(test, value))


def _or_null(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


def _is_positive(value) -> bool:
    return _is_number(value) and value > 0


def _is_not_negative(value) -> bool:
    return _is_number(value) and value >= 0


def _is_orientation(value) -> bool:
    return _is_text(value) and len(value) == 3 and all(len(axis & set(value)) == 1 for axis in _ORIENTATION_AXES)


_TEXT = (_is_text, "text")
_FILLED = (_is_filled_text, "text that is not empty")
_OBJECT = (_is_object, "an object")
_LIST = (_is_list, "a list")
_TEXTS = (_list_of(_is_text), "a list of texts")
_NOT_NEGATIVE = (_is_not_negative, "a number >= 0")
_NUMBER_OR_NULL = (_or_null(_is_number), "a finite number or null")
_TRIPLET = (_list_of(_is_filled_text, 3), "a triplet [coding scheme, code, meaning]")
_TRIPLET_OR_NULL = (_or_null(_TRIPLET[0]), _TRIPLET[1] + " or null")

# field path -> (test, what is expected); parents stand before their children.
_FIELDS: dict[str, tuple[_Test, str]] = {
    "id": (lambda v: _is_text(v) and bool(_ID.fullmatch(v)), "small letters, digits, '.', '_' and '-'"),
    "version": _FILLED,
    "title": _FILLED,
    "description": _TEXT,
    "keywords": _TEXTS,
    "network": _OBJECT,
    "network.name": _FILLED,
    "network.in_channels": (lambda v: _is_whole(v) and v >= 1, "a whole number >= 1"),
    "network.out_channels": (lambda v: _is_whole(v) and v >= 2, "a whole number >= 2 (background is one)"),
    "network.hyper": _OBJECT,
    "labels": (lambda v: _is_list(v) and len(v) > 0, "a list that is not empty"),
    "inputs": _LIST,
    "preprocessing": _OBJECT,
    "preprocessing.orientation": (_or_null(_is_orientation), "three letters such as 'RAS' or 'LPS', or null"),
    "preprocessing.spacing_mm": (_list_of(_or_null(_is_positive), 3), "three numbers > 0 or nulls (x, y, z)"),
    "preprocessing.normalisation": _OBJECT,
    "preprocessing.normalisation.name": _FILLED,
    "inference": _OBJECT,
    "inference.patch": (_list_of(lambda v: _is_whole(v) and v > 0, 2, 3), "two or three whole numbers > 0 (z, y, x)"),
    "inference.overlap": (lambda v: _is_number(v) and 0 <= v < 1, "a number >= 0 and < 1"),
    "inference.mirror_axes": (_list_of(lambda v: _is_whole(v) and 0 <= v <= 2), "a list of axes, each 0, 1 or 2"),
    "inference.min_component_mm3": _NOT_NEGATIVE,
    "inference.margin_mm": _NOT_NEGATIVE,
    "metrics": _OBJECT,
    "metrics.protocol": _TEXT,
    "metrics.values": _LIST,
    "intended_use": _FILLED,
    "limitations": _TEXT,
    "licence": _OBJECT,
    "licence.weights": _FILLED,
    "licence.data": _FILLED,
    "licence.code": _FILLED,
    "provenance": _OBJECT,
    "provenance.parent": (_or_null(_is_text), "the id of the parent model or null"),
    "provenance.data": _TEXT,
    "provenance.cases": _LIST,
    "provenance.validation_cases": _LIST,
    "provenance.seed": (_or_null(_is_whole), "a whole number or null"),
    "provenance.date": _TEXT,
    "provenance.code_version": _TEXT,
    "provenance.config": _OBJECT,
    "provenance.train_time_s": _NOT_NEGATIVE,
    "provenance.curve": _LIST,
    "weights": _OBJECT,
    "weights.file": (lambda v: _is_text(v) and bool(_WEIGHTS_NAME.fullmatch(v)), "a plain file name *.safetensors"),
    "weights.sha256": (lambda v: _is_text(v) and bool(_SHA256.fullmatch(v)), "64 hexadecimal digits"),
    "weights.bytes": (lambda v: _is_whole(v) and v > 0, "a whole number > 0"),
    "weights.dtype": (lambda v: v in DTYPES, "'float16', 'float32' or 'int8'"),
}
# The same for fields that need not be there.
_OPTIONAL_FIELDS: dict[str, tuple[_Test, str]] = {
    "inference.slice_axis": (lambda v: _is_whole(v) and 0 <= v <= 2, "0, 1 or 2 (of Z, Y, X)"),
    "inference.neighbours": (lambda v: _is_whole(v) and v >= 0, "a whole number >= 0"),
    "preprocessing.size": (
        _list_of(_or_null(lambda v: _is_whole(v) and v > 0), 3),
        "three whole numbers > 0 or nulls (x, y, z)",
    ),
    "provenance.parent_sha256": (
        _or_null(lambda v: _is_text(v) and bool(_SHA256.fullmatch(v))),
        "the 64 hexadecimal digits of the parent's weights or null",
    ),
    "provenance.lineage": (lambda v: _is_text(v) and bool(_ID.fullmatch(v)), "the id of the first ancestor"),
}
_LABEL_FIELDS: dict[str, tuple[_Test, str]] = {
    "value": (lambda v: _is_whole(v) and v > 0, "a whole number > 0"),
    "name": _FILLED,
    "color": (_list_of(lambda v: _is_whole(v) and 0 <= v <= 255, 3), "three whole numbers 0..255"),
    "terminology": (_or_null(_is_object), "an object or null"),
}
_TERMINOLOGY_FIELDS = {"category": _TRIPLET, "type": _TRIPLET, "type_modifier": _TRIPLET_OR_NULL}
_INPUT_FIELDS = {"name": _FILLED, "modality": _TEXT, "description": _TEXT}
_METRIC_FIELDS: dict[str, tuple[_Test, str]] = {
    "structure": _FILLED,
    "name": _FILLED,
    "mean": _NUMBER_OR_NULL,
    "sd": _NUMBER_OR_NULL,
    "n": (lambda v: _is_whole(v) and v >= 0, "a whole number >= 0"),
}


def check_bundle_data(data: object, where: str) -> None:
    """Check the content of ``bundle.json``.

    Args:
        data: what the JSON text says.
        where: the file, for messages.

    Raises:
        UserError: the first field that is not as it must be.
    """
    if not isinstance(data, dict):
        raise _wrong(where, "(whole file)", "an object", data)
    _check_version(data, where)
    _check_fields(data, _FIELDS, where, "")
    there = {name: rule for name, rule in _OPTIONAL_FIELDS.items() if _get(data, name) is not ...}
    _check_fields(data, there, where, "")
    for index, label in enumerate(data["labels"]):
        _check_fields(label, _LABEL_FIELDS, where, f"labels[{index}]")
        if label["terminology"]:
            _check_fields(label["terminology"], _TERMINOLOGY_FIELDS, where, f"labels[{index}].terminology")
    for name, fields in (("inputs", _INPUT_FIELDS), ("metrics.values", _METRIC_FIELDS)):
        for index, item in enumerate(_get(data, name)):
            _check_fields(item, fields, where, f"{name}[{index}]")
    _check_together(data, where)


def _check_version(data: dict, where: str) -> None:
    version = data.get("schema_version", ...)
    if _is_whole(version) and version > SCHEMA_VERSION:
        raise UserError(
            f"{where} has schema_version {version}, this program knows {SCHEMA_VERSION}.",
            "The model was made by a newer program: update this one.",
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise _wrong(where, "schema_version", str(SCHEMA_VERSION), version)


def _check_fields(item, fields: dict[str, tuple[_Test, str]], where: str, prefix: str) -> None:
    if not isinstance(item, dict):
        raise _wrong(where, prefix, "an object", item)
    for name, (test, expected) in fields.items():
        value = _get(item, name)
        if value is ... or not test(value):
            raise _wrong(where, f"{prefix}.{name}".lstrip("."), expected, value)


def _check_together(data: dict, where: str) -> None:
    """Rules between fields."""
    out_channels, in_channels = data["network"]["out_channels"], data["network"]["in_channels"]
    slices = 2 * data["inference"].get("neighbours", 0) + 1  # each input comes with its neighbours as channels
    if len(data["inputs"]) * slices != in_channels:
        expected = f"{in_channels // slices} entries, as network.in_channels says"
        raise _wrong(where, "inputs", expected, len(data["inputs"]))
    seen: dict[str, set] = {"value": set(), "name": set()}
    for index, label in enumerate(data["labels"]):
        if label["value"] >= out_channels:
            expected = f"smaller than network.out_channels ({out_channels})"
            raise _wrong(where, f"labels[{index}].value", expected, label["value"])
        for key, values in seen.items():
            if label[key] in values:
                raise _wrong(where, f"labels[{index}].{key}", "different from every other label", label[key])
            values.add(label[key])


def _get(data: dict, path: str):
    """The value at a dotted path; `...` when it is not there."""
    value = data
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return ...
        value = value[key]
    return value


def _wrong(where: str, name: str, expected: str, found) -> UserError:
    text = repr(found)
    came = "is missing" if found is ... else "is " + (text if len(text) <= 60 else text[:57] + "...")
    return UserError(
        f"{where}: the field {name} must be {expected}, but {came}.", "Copy the model again, or correct the file."
    )
