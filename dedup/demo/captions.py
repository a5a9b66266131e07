"""Captions as alt texts of the web are: titles, shop names, file names and other people's words for one picture."""

from __future__ import annotations

import numpy as np

# What a picture shows, several ways to say it: photos by file name, procedural scenes by kind.
_SUBJECTS: dict[str, tuple[str, ...]] = {
    "astronaut": ("astronaut in an orange space suit", "portrait of an astronaut with a shuttle model", "NASA astronaut official portrait"),
    "chelsea": ("tabby cat looking to the side", "close-up of a ginger cat", "Chelsea the cat"),
    "coffee": ("cup of espresso on a red saucer", "coffee on a wooden table", "espresso in a red cup"),
    "china": ("pagoda above the trees by a lake", "Summer Palace in Beijing", "Chinese temple tower"),
    "flower": ("orange dahlia in bloom", "peach dahlia on dark leaves", "dahlia flower macro"),
    "rocket": ("rocket on the launch pad at dusk", "rocket ready for launch", "launch pad at night"),
    "motorcycle_left": ("red motorcycle in a garage", "classic motorbike, red tank", "motorcycle restoration project"),
    "camera": ("cameraman in a black coat", "photographer with a tripod, black and white", "man filming on a lawn"),
    "hubble_deep_field": ("galaxies in deep space", "Hubble deep field detail", "star field with distant galaxies"),
    "retina": ("retina fundus photograph", "blood vessels of the eye", "fundus image of a human eye"),
    "ihc": ("stained tissue under the microscope", "immunohistochemistry slide", "histology sample, brown stain"),
    "coins": ("ancient coins in rows", "Greek coins from Pompeii", "old silver coins"),
    "gravel": ("grey gravel texture", "crushed stone background", "gravel seen from above"),
    "grass": ("grass texture black and white", "lawn seen from above", "dry grass background"),
    "brick": ("brick wall texture", "old brick paving", "wall of grey bricks"),
    "page": ("scan of a textbook page", "page on region-based segmentation", "printed text, uneven light"),
    "text": ("handwriting on squared paper", "handwritten formulas", "notes in pencil"),
    "horse": ("horse silhouette", "black horse vector", "standing horse clipart"),
    "logo": ("green and orange snake logo", "round logo with a snake", "software project logo"),
    "marble": ("marble texture", "ink clouds in water", "abstract fluid painting", "polished stone surface"),
    "relief": ("relief map of mountains", "rough plaster wall", "terrain from above", "embossed texture"),
    "waves": ("psychedelic waves", "agate slice pattern", "abstract wavy lines", "zebra pattern"),
    "ridges": ("misty mountains at sunset", "layered mountain landscape", "hills under a cloudy sky", "mountain silhouette wallpaper"),
    "skyline": ("city skyline at night", "downtown towers", "skyscrapers under clouds", "lights of the city"),
    "mosaic": ("stained glass window", "broken tile mosaic", "low poly background", "voronoi pattern"),
    "shapes": ("geometric abstract art", "modernist composition", "colourful shapes poster", "suprematist painting"),
    "bokeh": ("bokeh lights background", "blurred lights at night", "glitter and soft circles", "dreamy bokeh"),
    "poster": ("motivational poster", "typography print", "word art poster", "concert flyer"),
}
_PREFIXES = ("", "", "", "Beautiful ", "New ", "Vintage ", "Free ", "Amazing ", "The best ", "Original ", "Custom ")
_TAILS = (
    *("", "", "", "", " - stock photo", " | wall art print", " (4K wallpaper)", ", high resolution", " for sale", " - Wikimedia Commons"),
    *(
        " royalty free image",
        " canvas print",
        " by {artist}",
        " in {place}",
        " {year}",
        " - {place}, {year}",
        " #{number}",
        " ({number} of 500)",
    ),
)
_ARTISTS = ("Anna Keller", "J. Moreau", "Liu Wei", "Maria Santos", "Tom Archer", "Ines Duarte", "K. Novak", "Sara Lind", "Omar Haddad")
_PLACES = ("Lisbon", "Kyoto", "Oslo", "Patagonia", "Vermont", "Cape Town", "Vienna", "Nepal", "Arizona", "Edinburgh", "Hanoi", "Crete")


def caption(rng: np.random.Generator, subject: str) -> str:
    """Write a caption.

    Parameters
    ----------
    rng : numpy.random.Generator
        Equal states give equal captions.
    subject : str
        A photo's name or the kind of a procedural scene; other words are used as they are.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> caption(np.random.default_rng(3), "coffee")
    'Espresso in a red cup'
    """
    what = _pick(rng, _SUBJECTS.get(subject, (subject,)))
    prefix = _pick(rng, _PREFIXES)
    tail = _pick(rng, _TAILS)
    tail = tail.format(artist=_pick(rng, _ARTISTS), place=_pick(rng, _PLACES), year=rng.integers(1995, 2024), number=rng.integers(2, 500))
    title = f"{prefix}{what}{tail}"
    return title[0].upper() + title[1:]


def vary(rng: np.random.Generator, original: str, subject: str) -> str:
    """Write another page's caption of the same picture: spelled otherwise, added to, cut, or somebody else's words.

    Parameters
    ----------
    rng : numpy.random.Generator
    original : str
        The caption to start from.
    subject : str
        As for `caption`.

    Returns
    -------
    str
        One line; now and then the original itself.
    """
    way = int(rng.integers(7))
    if way == 0:
        return original.lower()
    if way == 1:
        return f"{original} {_pick(rng, ('- Etsy', '| eBay', '- Pinterest', '@ Shutterstock', '· Flickr'))}"
    if way == 2:
        return f"{_pick(rng, ('Image result for', 'Photo:', 'Picture of', 'RT'))} {original}"
    if way == 3:
        return " ".join(original.split()[: max(2, len(original.split()) // 2)])
    if way == 4:
        return f"IMG_{rng.integers(1000, 9999)}.jpg"
    return caption(rng, subject)


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]
