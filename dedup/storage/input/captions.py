"""The text of a sample: captions, address and carried values from the members or files beside an image, and from rows of tables.

Captions are taken from plain text first, then JSON, then the parquet beside a shard, all of them, without repetitions; names that mean a
caption only for want of a better one (prompt, title, …) count where none of these has any. A table given as `input.captions` stands
instead of files beside the images. The address and each carried value come from the first that has it, in the same order.

Every text is made valid UTF-8 without NUL, because Arrow refuses lone surrogates and DuckDB and Spark cut or refuse NUL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

from dedup.storage.input.encodings import Decoded, Guesser, decode_unicode
from dedup.storage.input.records import Record, as_text, captions_in, objects_in, parse_json, read_carried, read_url
from dedup.storage.input.rows import Row
from dedup.storage.input.samples import RawSample, TextFacts, TextSources

MAX_TEXT_BYTES: Final = 16 * 1024 * 1024
PLAIN_SUFFIXES: Final = ("txt", "text", "caption", "captions", "cap")
JSON_SUFFIXES: Final = ("json", "jsonl", "ndjson")
_RANKS: Final = {suffix: rank for rank, suffix in enumerate((*PLAIN_SUFFIXES, *JSON_SUFFIXES))}
# samples held back until enough texts are there to tell their encoding by: whichever comes first
_HELD_TEXTS: Final = 64
_HELD_SAMPLES: Final = 1_024
_HELD_BYTES: Final = 64 * 1024 * 1024  # of images
_NAMES_KEPT: Final = 500  # of columns that were found, to suggest one


def text_suffix(suffix: str) -> bool:
    """Whether a member or file of that suffix may hold captions; of a compound suffix the last part decides.

    Examples
    --------
    >>> text_suffix("txt"), text_suffix("jpg.TXT"), text_suffix("json"), text_suffix("cls")
    (True, True, True, False)
    """
    return suffix.rpartition(".")[2].lower() in _RANKS


class _Member(NamedTuple):
    """A text member."""

    name: str  # what stands between the key and the kind of suffix: '' for ``txt``, ``en`` for ``en.txt``
    rank: int  # of the kind of suffix
    order: int  # in which they came
    data: bytes
    is_own: bool = False  # whether it is named as one of the sample's images


def _names_of(image: str) -> tuple[str, ...]:
    """By what names of texts an image is meant: with its suffix, and without it unless nothing is left."""
    return tuple(name for name in (image, image.rpartition(".")[0]) if name)


def names_of_images(images: Iterable[str]) -> set[str]:
    """All names of texts by which one of some images is meant."""
    return {name for image in images for name in _names_of(image)}


class SampleTexts:
    """The text members of one sample, as they arrive.

    Parameters
    ----------
    key : str
        The sample's key, by which rows are joined.
    """

    __slots__ = ("_members", "key", "n_unread")

    def __init__(self, key: str) -> None:
        self.key = key
        self.n_unread = 0  # members with more than `MAX_TEXT_BYTES`
        self._members: list[_Member] = []

    def add(self, suffix: str, data: bytes) -> None:
        """Take a member for whose suffix `text_suffix` holds."""
        name, _, kind = suffix.rpartition(".")
        self._members.append(_Member(name, _RANKS[kind.lower()], len(self._members), data))

    def skip(self) -> None:
        """Count a member that is too large to be read."""
        self.n_unread += 1

    def extend(self, other: SampleTexts) -> None:
        """Take the members of the same sample that stood elsewhere."""
        self.n_unread += other.n_unread
        self._members += other._members

    def of_images(self, images: Sequence[str], known: Sequence[str]) -> list[SampleTexts]:
        """For each of some images the members that may be its: those of its own name first, none of another's name.

        `images`: what follows the key in their names: ``05.png``, which ``05.txt`` and ``05.png.txt`` name.
        `known`: all images of the sample.
        """
        if len(known) < 2 or not self._members:
            return [self] * len(images)
        named = names_of_images(known)
        shared = [member for member in self._members if member.name not in named]
        of_name: dict[str, list[_Member]] = {}
        for member in self._members:
            of_name.setdefault(member.name, []).append(member._replace(is_own=True))
        return [self._with([*(member for name in _names_of(image) for member in of_name.get(name, ())), *shared]) for image in images]

    def _with(self, members: list[_Member]) -> SampleTexts:
        texts = SampleTexts(self.key)
        texts.n_unread, texts._members = self.n_unread, members
        return texts

    def names(self) -> set[str]:
        """What stands between the key and the kind of suffix, of members where something does."""
        return {member.name for member in self._members if member.name}

    def __bool__(self) -> bool:
        return bool(self._members or self.n_unread)

    def unknown(self) -> list[bytes]:
        """The members whose encoding has to be guessed."""
        return [member.data for member in self._members if not member.data.isascii() and decode_unicode(member.data) is None]

    def in_order(self) -> list[tuple[str, bytes]]:
        """Kind of suffix and bytes: plain text before JSON, whole suffixes before compound ones, then in the order they came."""
        suffixes = (*PLAIN_SUFFIXES, *JSON_SUFFIXES)

        def place(member: _Member) -> tuple[bool, bool, bool, int, int]:
            return suffixes[member.rank] in JSON_SUFFIXES, not member.is_own, member.name != "", member.rank, member.order

        return [(suffixes[member.rank], member.data) for member in sorted(self._members, key=place)]


class TextReader:
    """Completes samples with their text; one for each shard or part of a folder.

    Parameters
    ----------
    carry : sequence of str
        Carried columns.
    find_row : callable, optional
        What a table says of the sample of a key; None where it has no row.
    row_source : str
        What that table is called in the accounts: ``sidecar`` or ``table``.
    found : TextSources, optional
        Gains the names of the columns that were found.

    Notes
    -----
    An encoding that nobody states is guessed from the first texts of the shard together, since one short text fits many encodings: when
    the first such text is met, samples are held back until there are 64 of them, 64 MiB of images, or the shard ends.
    """

    def __init__(
        self,
        carry: Sequence[str],
        find_row: Callable[[str], Row | None] | None = None,
        row_source: str = "sidecar",
        found: TextSources | None = None,
    ) -> None:
        self._carry, self._find_row, self._row_source = carry, find_row, row_source
        self._found = TextSources() if found is None else found
        self._guesser = Guesser()
        self._is_settled = False

    def complete(self, samples: Iterable[tuple[RawSample, SampleTexts | None]]) -> Iterator[RawSample]:
        """Samples with captions, url, carried values and `text`, in the order given.

        `samples`: each with its text members, which several may share; None leaves a sample as it is.
        """
        held: deque[tuple[RawSample, SampleTexts | None]] = deque()
        strange: list[bytes] = []
        n_bytes = 0
        for sample, texts in samples:
            if self._is_settled:
                yield self._completed(sample, texts)
                continue
            unknown = [] if texts is None else texts.unknown()
            if not held and not unknown:
                yield self._completed(sample, texts)
                continue
            held.append((sample, texts))
            strange += unknown
            n_bytes += len(sample.image or b"")
            if len(strange) >= _HELD_TEXTS or len(held) >= _HELD_SAMPLES or n_bytes >= _HELD_BYTES:
                self._settle(strange)
                yield from (self._completed(*held.popleft()) for _ in range(len(held)))
        if held:
            self._settle(strange)
            yield from (self._completed(*held.popleft()) for _ in range(len(held)))

    def _settle(self, strange: Iterable[bytes]) -> None:
        self._guesser.learn(strange)
        self._is_settled = True

    def _completed(self, sample: RawSample, texts: SampleTexts | None) -> RawSample:
        if texts is None:
            return sample
        members, values = self._decoded(texts)
        decoded = [text for _, text in members]
        found = [caption for suffix, text in members if suffix in PLAIN_SUFFIXES for caption in _plain_captions(suffix, text.text)]
        found += [("json", caption) for value in values for caption in captions_in(value, weak=False)]
        weak = [] if found else [("json", caption) for value in values for caption in captions_in(value, weak=True)]
        records = [record for value in values for record in objects_in(value)]
        if self._find_row is not None and (row := self._find_row(texts.key)) is not None:
            records += row.records
            decoded += row.decoded
            found += [(self._row_source, caption) for caption in row.captions]
            weak += [(self._row_source, caption) for caption in row.weak_captions]
        found = found or weak
        self._note_names(records)
        facts = TextFacts(
            source=found[0][0] if found else "",
            guessed=tuple(dict.fromkeys(text.guessed for text in decoded if text.guessed)),
            is_damaged=any(text.is_damaged for text in decoded),
            n_broken=sum(suffix in JSON_SUFFIXES for suffix, _ in members) - len(values),
            n_unread=texts.n_unread,
        )
        return replace(
            sample,
            captions=tuple(dict.fromkeys(caption for _, caption in found)),
            url=read_url(records),
            carried=read_carried(records, self._carry),
            text=facts,
        )

    def _decoded(self, texts: SampleTexts) -> tuple[list[tuple[str, Decoded]], list[object]]:
        """The members with their kind of suffix, and the values of those that are JSON."""
        members, values = [], []
        for suffix, data in texts.in_order():
            text = self._guesser.decode(data)
            members.append((suffix, text))
            if suffix in JSON_SUFFIXES:
                with suppress(ValueError):
                    values.append(parse_json(text.text))
        return members, values

    def _note_names(self, records: Sequence[Record]) -> None:
        if self._carry:
            is_full = len(self._found.names) >= _NAMES_KEPT
            self._found.names.update(name for record in records for name in record if not is_full or name in self._carry)


def _plain_captions(suffix: str, text: str) -> list[tuple[str, str]]:
    """The captions of a plain text: itself; each line of a file of ``captions``."""
    lines = text.splitlines() if suffix == "captions" else [text]
    return [(suffix, caption) for line in lines if (caption := as_text(line)) is not None]
