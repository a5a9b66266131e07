"""Names of array types, so that a signature says what an array is for; shapes that the name leaves open are documented in place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]  # (n,): numbers of samples, rows or lists, counts of them, and weights
ListIds = npt.NDArray[np.int32]  # (n, nprobe): the lists of each row
Mask = npt.NDArray[np.bool_]
Rows16 = npt.NDArray[np.float16]  # (n, dim): vectors as they are stored
Vectors = npt.NDArray[np.floating]  # (n, dim): of any precision
Rows32 = npt.NDArray[np.float32]  # (n, dim): vectors as they are multiplied
Sims = npt.NDArray[np.float32]  # similarities and thresholds of them (n,), products of rows with columns (n, m)
Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
