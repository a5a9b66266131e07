"""Files of one run in another: linked where that is possible, else copied."""

from __future__ import annotations

import os
import shutil

from dedup.storage.tables import filesystem, hidden_name, is_local

_CHUNK = 16 * 1024 * 1024


def link_or_copy(source: str, target: str) -> None:
    """Let a file appear under a second name, whole or not at all; what stood there is replaced.

    Parameters
    ----------
    source, target : str
        Paths or any fsspec URLs.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    On one local file system it is a hard link, which takes no room. That is safe because no file of a run is ever changed: all are
    written under another name and then renamed, so that a run that is redone gets files of its own and the link keeps the old one.
    """
    from_fs, from_path = filesystem(source)
    to_fs, to_path = filesystem(target)
    if is_local(source) and is_local(target):
        os.makedirs(os.path.dirname(to_path), exist_ok=True)
        hidden = hidden_name(to_path)
        try:
            os.link(from_path, hidden)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(from_path, hidden)
        os.replace(hidden, to_path)
        if os.path.exists(hidden):  # renaming one of two links to the same file onto the other does nothing
            os.unlink(hidden)
    elif not is_local(source) and from_fs is to_fs:
        from_fs.cp_file(from_path, to_path)
    elif is_local(source):
        to_fs.put_file(from_path, to_path)
    elif is_local(target):
        os.makedirs(os.path.dirname(to_path), exist_ok=True)
        hidden = hidden_name(to_path)
        from_fs.get_file(from_path, hidden)
        os.replace(hidden, to_path)
    else:
        with from_fs.open(from_path, "rb") as reader, to_fs.open(to_path, "wb") as writer:
            shutil.copyfileobj(reader, writer, _CHUNK)
