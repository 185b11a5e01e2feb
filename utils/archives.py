"""Zip files, as rollouts and checkpoints are: what is in them is used only if its checksum is right, and takes no more
memory than it should, whatever the file says of itself."""

import io
import math
import zipfile
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
    try:
        with zipfile.ZipFile(path) as archive:
            return [_read_array(archive, key) for key in keys]
    except (KeyError, DamagedFile):
        raise
    except Exception as error:  # whatever zipfile, zlib and NumPy may say of mistakes inside a file
        raise _damage(error) from None


def array_names(path: Path) -> set[str]:
    """The names of the arrays in a npz file, by its directory alone. Raises DamagedFile if that cannot be read, or
    OSError if the file cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception as error:
        raise _damage(error) from None


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
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise DamagedFile("it is compressed")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise DamagedFile("it claims to be larger than it is")
            if name := archive.testzip():
                raise DamagedFile(f"the checksum of {name} is wrong")
    except DamagedFile:
        raise
    except Exception as error:
        raise _damage(error) from None


def _damage(error: Exception) -> Exception:
    """The error of a file that could be opened; that of one that could not stays as it is."""
    if isinstance(error, OSError) and error.filename:
        return error
    lines = str(error).split("\n")
    return DamagedFile(lines[0] or type(error).__name__)
