"""Samples of several images: they are copies only if all their images are, and go or stay as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dedup.numerics.arraytypes import Ids
from dedup.stages.stage import StageContext
from dedup.storage.tables import ask

IMAGES_SQL = """
SELECT metadata.sample_id AS sample_id, metadata.first_image_id AS first_image_id, metadata.member AS member,
       metadata.n_images AS n_images, COALESCE(groups.component_id, metadata.sample_id) AS component_id
FROM metadata LEFT JOIN groups ON metadata.sample_id = groups.sample_id
WHERE metadata.n_images > 1
ORDER BY metadata.first_image_id, metadata.sample_id
"""

IMAGES = pa.schema(
    [(name, pa.int64()) for name in ("sample_id", "first_image_id")]
    + [("member", pa.string()), ("n_images", pa.int32()), ("component_id", pa.int64())]
)

# An image's part in its sample, and its group; of all images of a sample
_Signature = tuple[tuple[str, int], ...]


def role(member: str | None) -> str:
    """An image's part in its sample: its member's name without the format, which copies need not share.

    Examples
    --------
    >>> role("input.jpg"), role("jpg"), role("0001.v2.png")
    ('input', '', '0001.v2')
    """
    return (member or "").rpartition(".")[0]


def comparable_groups(images: pa.Table) -> dict[int, int]:
    """Split the groups of images that belong to samples of several.

    `images`: columns of `IMAGES`, ordered by sample.
    Returns sample_id to the number of a class of images: two are in one class if they play the same part in samples whose images are,
    part by part, in the same groups. A sample some of whose images were rejected is like no other.
    """
    columns = (images[name].to_pylist() for name in ("sample_id", "first_image_id", "member", "n_images", "component_id"))
    samples: dict[int, list[tuple[int, str, int, int]]] = {}
    for sample_id, first, member, n_images, component in zip(*columns, strict=True):
        samples.setdefault(first, []).append((sample_id, role(member), component, n_images))
    signatures: dict[_Signature, int] = {}
    classes: dict[tuple[int, str, int], int] = {}
    numbers = {}
    for first, rows in samples.items():
        signature: _Signature = tuple(sorted((part, component) for _, part, component, _ in rows))
        if len(rows) < rows[0][3]:
            signature = (("", -1 - first),)
        number = signatures.setdefault(signature, len(signatures))
        for sample_id, part, component, _ in rows:
            numbers[sample_id] = classes.setdefault((number, part, component), len(classes))
    return numbers


@dataclass(frozen=True)
class Members:
    """The members of all groups that a keep policy decides on, each group in the order of the policy."""

    group: Ids  # shape (n,); sorted: its component_id, or for images of samples of several, a number above all component_ids
    ids: Ids  # shape (n,); sample_ids
    representatives: Ids  # shape (n,); sample_ids of the distinct images
    is_kept: Ids  # shape (n,); 1 = the run's base kept it
    sample: Ids  # shape (n,); first_image_id of the sample; the sample_id itself where the sample has one image

    def only_whole(self, keeper: Ids) -> Ids:
        """The keepers, without those of samples that only in part have copies in one other sample.

        `keeper`: shape (n,); position of each member's keeper, its own for what is kept.
        """
        rows = np.flatnonzero(self.group > self.ids.max(initial=0))
        if not len(rows):
            return keeper
        sample, target = self.sample[rows], self.sample[keeper[rows]]
        order = np.argsort(sample, kind="stable")
        starts = np.flatnonzero(np.diff(sample[order], prepend=-1))
        least, most = (reduce(target[order], starts) for reduce in (np.minimum.reduceat, np.maximum.reduceat))
        goes = (least == most) & (least != sample[order][starts])
        stays = rows[order][~np.repeat(goes, np.diff(np.append(starts, len(rows))))]
        keeper = keeper.copy()
        keeper[stays] = stays
        return keeper


def with_whole_samples(context: StageContext, group: Ids, ids: Ids, representatives: Ids, is_kept: Ids) -> Members:
    """Split the groups so that only images of comparable samples are compared, and the same sample comes first for all its images.

    `group`, `ids`, `representatives`, `is_kept`: shape (n,); in the order of the policy, see `Members`.
    """
    tables = {name: context.run.table(name) for name in ("metadata", "groups")}
    images = ask(context.engine, IMAGES_SQL, tables, IMAGES)
    if not images.num_rows:
        return Members(group, ids, representatives, is_kept, ids)
    numbers, sample_of = (
        comparable_groups(images),
        dict(zip(images["sample_id"].to_pylist(), images["first_image_id"].to_pylist(), strict=True)),
    )
    first_number = int(max(group.max(initial=0), ids.max(initial=0))) + 1
    split = np.array(
        [first_number + numbers[i] if i in numbers else g for i, g in zip(ids.tolist(), group.tolist(), strict=True)], np.int64
    )
    sample = np.array([sample_of.get(i, i) for i in ids.tolist()], np.int64)
    # the place of a sample is that of its first image, for all its images
    _, first, inverse = np.unique(sample, return_index=True, return_inverse=True)
    place = np.where(split >= first_number, first[inverse], np.arange(len(ids)))
    order = np.lexsort((place, -is_kept, split))
    return Members(split[order], ids[order], representatives[order], is_kept[order], sample[order])
