"""What every input source yields: raw samples, and how reading a shard ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from dedup.errors import SampleError

# what names promise: such a file counts as an image even if its bytes are none. What it is, its bytes decide.
_NAMED = """
jpg jpeg jpe jfif pjpeg mpo png apng webp gif bmp dib tif tiff avif avifs heic heics heif heifs hif jxl jp2 j2k j2c jpf jpx
ico ppm pgm pbm pnm tga pcx dds svg psd
"""
IMAGE_SUFFIXES: Final = frozenset(_NAMED.split())
# of these, kinds that not every installation reads
SELDOM_READ: Final = frozenset({"heic", "heics", "heif", "heifs", "hif", "jxl", "svg", "ico", "psd"})
# other kinds: in a folder they are not opened, in a tar only what surely is an image counts
_OTHERS = """
txt caption captions cap text json jsonl ndjson csv tsv parquet arrow yaml yml md
npy npz pt pth pyd pkl pickle safetensors msgpack cbor ten tenbin h5 hdf5
index id mp3 wav flac ogg m4a opus mp4 mkv webm mov avi m4v cls cls2 inx pdf py sh log ini tar gz tgz bz2 xz zst zip 7z rar
sqlite db lock part crdownload aria2 download tmp
"""
_OTHER_SUFFIXES: Final = frozenset(_OTHERS.split())
ShardStatus = Literal["ok", "truncated", "unreadable"]


def may_be_image(suffix: str) -> bool:
    """Whether a file of an unknown kind may turn out to be an image: its bytes tell. `suffix`: without the dot, in lower case."""
    return suffix not in _OTHER_SUFFIXES


@dataclass(frozen=True, slots=True)
class TextFacts:
    """How the text of a sample was read."""

    source: str = ""  # of the first caption: the suffix of a plain text, json, sidecar or table; '' if there is none
    guessed: tuple[str, ...] = ()  # encodings that were guessed
    is_damaged: bool = False  # whether something became U+FFFD
    n_broken: int = 0  # json members that are no JSON
    n_unread: int = 0  # members that are too large


@dataclass(frozen=True, slots=True)
class RawSample:
    r"""One image of a sample as it is in the shard, nothing decoded; or a sample without an image, with the reason."""

    # member name up to the first dot of its base name, folder included; the relative path in a folder of images. Invalid UTF-8 is
    # written as ``\xNN``.
    key: str
    shard: str  # URL of the tar; of the folder, ending with '/', for a folder of images
    image: bytes | None = None  # the encoded image; None if `error` is set
    image_name: str | None = None  # name of the image's member in the tar
    member: str | None = None  # what follows the key in that name, in lower case: ``jpg``; None in a folder, and without an image
    byte_offset: int | None = None  # where the image's bytes start in the file `shard`; None in a compressed tar
    n_bytes: int = 0  # size of the encoded image; 0 if there is none
    # captions, url: valid UTF-8 without NUL
    captions: tuple[str, ...] = ()
    url: str | None = None
    # for each name of `input.carry`, a value of its type in `dedup.schemas.CARRIED_TYPES`, or None
    carried: dict[str, object] = field(default_factory=dict)
    error: SampleError | None = None  # why the sample can't be used
    n_images: int = 1  # images of the sample; more may come later: see `SampleReader.late`
    text: TextFacts = TextFacts()
    mtime: int | None = None  # when its file was last changed, in seconds since 1970; None if not known

    @property
    def caption(self) -> str | None:
        """The first caption; None if there is none."""
        return self.captions[0] if self.captions else None


@dataclass
class TextSources:
    """What a shard or part of a folder has to say about its images, besides what became part of a sample."""

    names: set[str] = field(default_factory=set)  # columns that were found, a few hundred at most
    n_rows: int = 0  # of the parquet beside a shard
    tables: dict[str, int] = field(default_factory=dict)  # rows of tables that other parts of a folder may share, by URL
    n_joined_rows: int = 0  # of these, rows that belong to one of the images looked up
    n_images: int = 0  # looked up in the table
    n_joined_images: int = 0  # of these, images that have a row
    n_ambiguous_images: int = 0  # images left without a row because several paths of the table name them equally well


@dataclass(slots=True)
class LateMembers:
    """What members say of an image that do not stand beside it: the tar is not sorted."""

    captions: tuple[str, ...] = ()
    url: str | None = None
    carried: dict[str, object] = field(default_factory=dict)
    text: TextFacts = TextFacts()
    n_images: int = 0  # images of the sample, early ones included
    shares: bool = False  # whether what is known of the sample's first image is known of this one as well


class SampleReader:
    """Iterates over a shard's samples, once, and then tells how that ended.

    Parameters
    ----------
    start : callable
        Takes this reader and yields the samples; calls `fail` if the shard does not end properly.

    Attributes
    ----------
    status : {"ok", "truncated", "unreadable"}
        Final once the iteration has ended. After "truncated" the samples before the break have been yielded.
        After "unreadable" some may have been, if a connection broke; discard them.
    error : str or None
        Why the status is not ok; with status ok, a note that a sidecar is missing or broken.
    is_reachable : bool
        False if the bytes could not be fetched (missing file, no permission, connection broken), so that a retry
        may help; True if they were fetched but are no tar.
    n_samples : int
        Samples so far, each of one or more images, or of none.
    n_late : int
        Samples some of whose members stand apart from the others: the tar is not sorted.
    passed_over : Counter
        How many members or files were not looked at, by reason.
    late : dict
        Key and member of an image to what came too late to be yielded with it.
    found : TextSources
        What the tables and texts beside the images hold.

    Examples
    --------
    >>> reader = SampleReader(lambda reader: iter([RawSample("000", "a.tar", b"...")]))
    >>> [sample.key for sample in reader], reader.status
    (['000'], 'ok')
    """

    def __init__(self, start: Callable[[SampleReader], Iterator[RawSample]]) -> None:
        self.status: ShardStatus = "ok"
        self.error: str | None = None
        self.is_reachable = True
        self.n_samples = self.n_late = 0
        self.passed_over: Counter[str] = Counter()
        self.late: dict[tuple[str, str | None], LateMembers] = {}
        self.found = TextSources()
        self._samples = start(self)

    def __iter__(self) -> Iterator[RawSample]:
        return self._samples

    def fail(self, status: ShardStatus, error: str, *, is_reachable: bool = True) -> None:
        """Record how reading ended; called by the source."""
        self.status, self.error, self.is_reachable = status, error, is_reachable


def one_line(error: BaseException) -> str:
    r"""An exception as one line of at most 300 characters.

    Examples
    --------
    >>> one_line(ValueError("a\n  b"))
    'ValueError: a b'
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def file_suffix(name: str) -> str:
    """What follows the last dot of the base name, in lower case; '' if there is no dot.

    Examples
    --------
    >>> file_suffix("a.b/photo.v2.JPG"), file_suffix("a.b/photo")
    ('jpg', '')
    """
    _, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix.lower() if dot else ""


_LONGEST_SUFFIX: Final = 12


def kind_by_name(what: str, suffix: str) -> str:
    """Members or files of a kind, in the words of the accounts: a data set may have as many suffixes as samples.

    Examples
    --------
    >>> kind_by_name("files", "npy"), kind_by_name("files", ""), kind_by_name("members", "000017")
    ('files .npy', 'files without a suffix', 'members of other names')
    """
    if not suffix:
        return f"{what} without a suffix"
    is_kind = len(suffix) <= _LONGEST_SUFFIX and suffix.isalnum() and not suffix.isdigit()
    return f"{what} .{suffix}" if is_kind else f"{what} of other names"
