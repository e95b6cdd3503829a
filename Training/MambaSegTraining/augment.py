"""nnU-Net-style augmentation of patches and slices, from MONAI's transforms.

Order, probabilities and ranges follow nnU-Net v2's default augmentation (rotation 30 degrees, scale 0.7 to 1.4, noise,
blur, brightness, contrast, low resolution, gamma), and add a random intensity curve, because MR has no units.
"""

import math

from monai import transforms as T

IMAGE, LABEL = "image", "label"
BOTH = (IMAGE, LABEL)


def training_transforms(patch: tuple[int, ...], mirror_axes: tuple[int, ...], is_colour: bool = False) -> T.Compose:
    """Dictionary transforms on ``image`` (C, *window) float32 and ``label`` (1, *window).

    Args:
        patch: (Z, Y, X) or (Y, X) to cut from the centre after the spatial transform.
        mirror_axes: of the patch's axes. A slice that may be mirrored along both has no up: it is turned by any angle.
        is_colour: the channels are colours of a picture, whose brightness and contrast change one by one.
    """
    flat = len(patch) == 2
    angle = math.pi if flat and len(mirror_axes) == 2 else math.radians(30)
    spatial = [
        T.RandAffined(
            BOTH,
            prob=0.5,
            spatial_size=patch,
            rotate_range=(angle,) * (1 if flat else 3),
            scale_range=((-0.25, 0.3),) * len(patch),
            mode=("bilinear", "nearest"),
            padding_mode=("reflection", "border"),
            cache_grid=True,
        ),
        T.CenterSpatialCropd(BOTH, patch),
        *(T.RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in mirror_axes),
    ]
    zoom = {"zoom_range": (0.5, 1.0), "upsample_mode": "bilinear" if flat else "trilinear"}
    intensity = [
        T.RandGaussianNoised(IMAGE, prob=0.15, std=0.3),
        T.RandGaussianSmoothd(IMAGE, (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
        T.RandHistogramShiftd(IMAGE, num_control_points=(4, 8), prob=0.3),
        T.RandScaleIntensityd(IMAGE, factors=0.3, channel_wise=is_colour, prob=0.3),
        T.RandShiftIntensityd(IMAGE, offsets=0.3, channel_wise=is_colour, prob=0.3),
        T.RandSimulateLowResolutiond(IMAGE, prob=0.2, **zoom),
        T.RandAdjustContrastd(IMAGE, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    ]
    return T.Compose([*spatial, *intensity, T.ToTensord(BOTH, track_meta=False)])
