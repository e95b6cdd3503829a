"""nnU-Net-style augmentation of 3-D patches, from MONAI's transforms.

Order, probabilities and ranges follow nnU-Net v2's default 3-D augmentation (rotation 30 degrees, scale 0.7 to 1.4,
noise, blur, brightness, contrast, low resolution, gamma), and add a random intensity curve, because MR has no units.
"""

import math

from monai import transforms as T

IMAGE, LABEL = "image", "label"
BOTH = (IMAGE, LABEL)


def training_transforms(patch: tuple[int, int, int], mirror_axes: tuple[int, ...]) -> T.Compose:
    """Dictionary transforms on ``image`` (C, Z, Y, X) float32 and ``label`` (1, Z, Y, X).

    Args:
        patch: (Z, Y, X) to cut from the centre after the spatial transform.
        mirror_axes: of (Z, Y, X).
    """
    angle = math.radians(30)
    spatial = [
        T.RandAffined(
            BOTH,
            prob=0.5,
            spatial_size=patch,
            rotate_range=(angle,) * 3,
            scale_range=((-0.25, 0.3),) * 3,
            mode=("bilinear", "nearest"),
            padding_mode=("reflection", "border"),
            cache_grid=True,
        ),
        T.CenterSpatialCropd(BOTH, patch),
        *(T.RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in mirror_axes),
    ]
    intensity = [
        T.RandGaussianNoised(IMAGE, prob=0.15, std=0.3),
        T.RandGaussianSmoothd(IMAGE, (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
        T.RandHistogramShiftd(IMAGE, num_control_points=(4, 8), prob=0.3),
        T.RandScaleIntensityd(IMAGE, factors=0.3, prob=0.3),
        T.RandShiftIntensityd(IMAGE, offsets=0.3, prob=0.3),
        T.RandSimulateLowResolutiond(IMAGE, prob=0.2, zoom_range=(0.5, 1.0)),
        T.RandAdjustContrastd(IMAGE, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    ]
    return T.Compose([*spatial, *intensity, T.ToTensord(BOTH, track_meta=False)])
