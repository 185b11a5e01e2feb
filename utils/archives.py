"""Zip files, as rollouts and checkpoints are: what is in them is used only if its checksum is right, and takes no more
memory than it should, whatever the file says of itself."""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

LARGEST_ARRAY = 1 << 29  # bytes; a rollout of 1,000 frames has 12 million
ZIP_MAGIC = b"PK\x03\x04"


class DamagedFile(Exception):
    """A file does not hold what it should; the message, one line, says why."""


def read_arrays(path: Path, keys: tuple[str, ...]) -> list[np.ndarray]:
    """Some arrays of a npz file. Raises DamagedFile, KeyError if there is none of that name, or OSError if the file
    cannot be opened.

    Unlike np.load it believes neither a header nor the size that it claims before the checksum is verified.
    """
    with _opened(path) as archive:
        return [_read_array(archive, key) for key in keys]


def array_names(path: Path) -> set[str]:
    """The names of the arrays in a npz file, by its directory alone. Raises DamagedFile if that cannot be read, or
    OSError if the file cannot be opened."""
    with _opened(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def _read_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    member = archive.getinfo(f"{key}.npy")
    if member.file_size > LARGEST_ARRAY:
        raise DamagedFile(f"{key} claims to be of {member.file_size} bytes")
    with archive.open(member) as stream:
        content = stream.read(member.file_size)  # with a number, because without one a small file may become a huge one
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise DamagedFile(f"{key} is of an unknown format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise DamagedFile(f"{key} is not the array of {shape} {dtype} that it claims to be")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def check_archive(path: Path) -> None:
    """Raises DamagedFile if a zip file is damaged, or would be larger in memory than on disk; OSError if it cannot be
    opened. Files of another format pass: PyTorch's older one has no checksums.

    torch.load compares no checksums: it reads a flipped bit as another weight.
    """
    with open(path, "rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            return
    with _opened(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise DamagedFile("it is compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise DamagedFile("it claims to be larger than it is")
        if name := archive.testzip():
            raise DamagedFile(f"the checksum of {name} is wrong")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file to read from. Whatever zipfile, zlib and NumPy say of mistakes inside it becomes a DamagedFile; a
    KeyError, and the OSError of a file that cannot be opened, stay as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except Exception as error:
        if isinstance(error, DamagedFile | KeyError) or (isinstance(error, OSError) and error.filename):
            raise
        lines = str(error).split("\n")
        raise DamagedFile(lines[0] or type(error).__name__) from None
