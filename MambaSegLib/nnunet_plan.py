"""What nnU-Net's ``plans.json`` and ``dataset.json`` say, as the fields of a model bundle. Torch-free.

Isensee et al., "nnU-Net", Nature Methods 18, 203 (2021), plans of version 2. What has no counterpart here is refused
where it would change the result (regions, cascades), and noted where it hardly does (interpolation).
"""

from .errors import UserError

NATURAL = "NaturalImage2DIO"
REORIENTED = "NibabelIOWithReorient"  # its arrays run to the right, to the front and upwards
NORMALISATIONS = {
    "ZScoreNormalization": "content_zscore",
    "RescaleTo01Normalization": "content_range",
    "RGBTo01Normalization": "divide",
    "NoNormalization": "none",
}


def labels_of(dataset: dict) -> dict[int, str]:
    """Label value -> name, without background and what training ignores.

    Raises:
        UserError: overlapping regions.
    """
    labels = {}
    for name, value in dataset.get("labels", {}).items():
        if isinstance(value, list | tuple) and len(value) > 1:
            raise UserError(
                f"The model predicts overlapping regions ('{name}' is made of {list(value)}).",
                "Models of regions are not supported; choose one that was trained on labels.",
            )
        value = value[0] if isinstance(value, list | tuple) else value
        if name != "ignore" and int(value) > 0:
            labels[int(value)] = name
    return dict(sorted(labels.items()))


def inputs_of(dataset: dict) -> list[dict]:
    """One bundle input per channel."""
    names = dataset.get("channel_names") or dataset.get("modality") or {}
    return [
        {"name": str(names[key]), "modality": _modality(str(names[key])), "description": ""}
        for key in sorted(names, key=int)
    ]


def _modality(name: str) -> str:
    known = {"CT": ("ct",), "MR": ("mr", "t1", "t2", "flair", "dwi", "adc"), "PT": ("pet",)}
    return next((code for code, starts in known.items() if name.lower().startswith(starts)), "")


def preprocessing_of(plan: dict) -> dict:
    """The bundle's "preprocessing".

    Args:
        plan: of one configuration, as ``checkpoint_import.configuration`` merges it.

    Raises:
        UserError: a cascade, or a normalisation that is not known.
    """
    if plan.get("previous_stage"):
        raise UserError(
            f"The configuration '{plan['name']}' refines the result of another network.",
            "Cascades are not supported; choose the 3d_fullres or 2d model.",
        )
    spacing = [float(mm) for mm in plan["spacing"]][::-1]
    return {
        "orientation": "RAS" if plan.get("image_reader_writer") == REORIENTED else None,
        "spacing_mm": spacing if len(spacing) == 3 else [*spacing, None],
        "normalisation": _normalisation(plan),
    }


def _normalisation(plan: dict) -> dict:
    intensities = plan.get("foreground_intensity_properties_per_channel", {})
    masked = plan.get("use_mask_for_norm") or []
    ways = []
    for index, scheme in enumerate(plan["normalization_schemes"]):
        if scheme == "CTNormalization":
            seen = intensities[str(index)]
            clip = {"lo": seen["percentile_00_5"], "hi": seen["percentile_99_5"]}
            ways.append({"name": "ct_zscore", **clip, "mean": seen["mean"], "sd": seen["std"]})
        elif scheme in NORMALISATIONS:
            extra = {"by": 255} if scheme.startswith("RGB") else {}
            extra |= {"masked": True} if scheme.startswith("ZScore") and index < len(masked) and masked[index] else {}
            ways.append({"name": NORMALISATIONS[scheme], **extra})
        else:
            raise UserError(
                f"The model's normalisation '{scheme}' is not known.",
                f"Known ones are CTNormalization, {', '.join(NORMALISATIONS)}.",
            )
    return ways[0] if all(way == ways[0] for way in ways) else {"name": "per_channel", "channels": ways}


def inference_of(plan: dict, mirror_axes=()) -> dict:
    """The bundle's "inference".

    Args:
        plan: see ``preprocessing_of``.
        mirror_axes: of the network's axes, to average over.

    Raises:
        UserError: axes in an order that cannot be expressed.
    """
    order = [int(axis) for axis in plan.get("transpose_forward", (0, 1, 2))]
    if order != [order[0], *sorted(set(range(3)) - {order[0]})]:
        raise UserError(f"The model reorders the axes as {order}.", "Only one axis moved to the front is supported.")
    patch = [int(n) for n in plan["patch_size"]]
    recipe = {"patch": patch, "overlap": 0.5, "mirror_axes": [3 - len(patch) + int(axis) for axis in mirror_axes]}
    recipe |= {"slice_axis": order[0]} if order[0] else {}
    return recipe | {"min_component_mm3": 0, "margin_mm": 0}


def notes_of(plan: dict) -> list[str]:
    """What is done otherwise than by nnU-Net, one sentence each."""
    notes = [
        "Images are resampled linearly (nnU-Net: cubic splines), and beyond the image's edge it is mirrored "
        "(nnU-Net: filled with 0)."
    ]
    if plan.get("image_reader_writer") not in (REORIENTED, NATURAL):
        notes.append("Images must have the axes of the training's: they are not turned, as in nnU-Net.")
    return notes
