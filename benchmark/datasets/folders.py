"""Where datasets lie: the roots that are searched, the folder a name means, and names that stay inside it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from benchmark.datasets.catalogue import ALIASES
from benchmark.files import make_folder

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def roots(data_dir: str | Path | None = None) -> list[Path]:
    """Folders with one sub-folder per dataset, in the order they are searched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "genrec-bench"
    given = [data_dir, os.environ.get("GENREC_DATA"), cache]
    return [Path(root).expanduser() for root in given if root]


def is_path(text: str) -> bool:
    """Whether the user means a place and not a name; only names are looked for below the roots."""
    return text.endswith(".inter") or os.sep in text


def find(name: str, data_dir: str | Path | None = None) -> Path | None:
    """The folder of a dataset below the roots, None for one that is nowhere."""
    if is_path(name):
        return None
    folders = [root / name for root in roots(data_dir)]
    files = (f"{name}.inter", f"{name}.train.inter")
    return next((folder for folder in folders if any((folder / file).is_file() for file in files)), None)


def writable_root(data_dir: str | Path | None = None) -> Path:
    """The first root that new files may go to; a folder named by the user as ``data_dir`` is not passed over.

    Raises OSError with one clear sentence when there is none.
    """
    candidates = roots(data_dir)
    for root in candidates:
        try:
            make_folder(root)
            return root
        except OSError as error:
            if data_dir or error.errno not in READ_ONLY or root == candidates[-1]:
                raise
    raise AssertionError("the last root returns or raises")


def checked_name(name: str) -> str:
    """``name`` as the name of a new dataset, which is a folder and a file name and so must not lead elsewhere."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"{name!r} cannot name a dataset; use letters, digits and . _ + - without any folder")
    if name in ALIASES:
        raise ValueError(f"{name} is short for {ALIASES[name]}; choose another --name for your own data")
    return name
