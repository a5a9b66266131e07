"""Connected patches of a mask."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dedup.numerics.arraytypes import Mask


def label_patches(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """Number the patches of a mask that are connected by sides.

    `mask`: shape (height, width).
    Returns labels, shape (height, width), 0 outside the mask, and the number of patches. OpenCV: scipy.ndimage does the same, but takes
    three times as long to import as everything else that decoding needs.
    """
    n_labels, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    return labels, n_labels - 1
