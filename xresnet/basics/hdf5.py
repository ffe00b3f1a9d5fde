"""Read arrays from untrusted HDF5 files.

HDF5 can fill arrays from other files (external storage and links, virtual data sets), and can
expand a few kilobytes to any size (compression, or only a fill value). Neither is allowed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xresnet.basics.cli import UserError

# All arrays together may take this many bytes for each byte of the file, and so many besides.
UNFOLDS, SMALL = 100, 64 << 20


class Reader:
    """An open h5py.File that is read through hard links only, up to a limit in total.

    Args:
        file: the h5py.File.
        size: its size in bytes.
        where: its name in errors.
    """

    def __init__(self, file: Any, size: int, where: str) -> None:
        self.file, self.size, self.where = file, size, where
        self.left = UNFOLDS * size + SMALL

    def at(self, path: str, group: Any = None) -> Any:
        """The group or data set at `path`, from `group` or the root; None if there is none.

        Raises:
            UserError: the path leads through a soft or an external link.
        """
        import h5py

        found = self.file if group is None else group
        for part in filter(None, path.split("/")):
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise UserError(f"{self.where}: {path!r} is a link, which is not followed")
            found = found[part]
        return found

    def array(self, data: Any) -> np.ndarray:
        """The numbers of a data set.

        Raises:
            UserError: it is not a numeric data set, lies in other files, or is too large for
                the size of its file.
        """
        import h5py

        if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "biuf" or not data.size:
            name = getattr(data, "name", None)
            raise UserError(f"{self.where}: {name!r} is not a numeric data set")
        if data.external or data.is_virtual:
            raise UserError(f"{self.where}: {data.name!r} lies in other files and is not read")
        self.left -= data.nbytes
        if self.left < 0:
            raise UserError(
                f"{self.where}: {data.name!r} would take {data.nbytes / 1e9:.2f} GB, out of a "
                f"file of {self.size:,} bytes: not read"
            )
        return data[()]
