"""Colour modes to 8-bit RGB."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms


def to_rgb(image: Image.Image) -> Image.Image:
    """Bring a loaded image of any mode to RGB; transparency is composited on white.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode that Pillow reads: 1, L, P, RGB, LA, La, PA, RGBA, RGBa, RGBX, CMYK, YCbCr, LAB, HSV, I;16…, I, F.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, the same size.

    Raises
    ------
    ValueError
        If Pillow knows no way from that mode.
    """
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return Image.fromarray(grey_to_8_bits(np.asarray(image))).convert("RGB")
    if mode == "LAB":  # Pillow converts LAB only through a colour profile
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        return converted if converted is not None else image
    if mode == "La":
        image = image.convert("LA")
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or ("transparency" in image.info and mode in ("1", "L", "P", "RGB")):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def grey_to_8_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Bring grey of more than 8 bits to 8.

    Parameters
    ----------
    values : integer or float array, shape (height, width)

    Returns
    -------
    uint8 array, shape (height, width)

    Notes
    -----
    Integers from 0 to 65535 count as 16-bit (v / 257), floats from 0 to 1 as v * 255, from 0 to 255 as they are; what
    lies outside is stretched from its minimum to its maximum. Values that are not finite become 0.

    Examples
    --------
    >>> grey_to_8_bits(np.array([[0, 257, 65535]], np.uint16))
    array([[  0,   1, 255]], dtype=uint8)
    """
    if values.dtype.kind == "u":
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    grey = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    is_float = values.dtype.kind == "f"
    if low >= 0 and is_float and high <= 255:
        grey *= 255 if high <= 1 else 1
    elif low >= 0 and high <= 65535:
        grey /= 257
    else:
        grey = (grey - low) * (255 / max(high - low, 1e-300))
    return np.rint(grey).astype(np.uint8)
