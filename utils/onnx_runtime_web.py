"""ONNX Runtime Web, which does the arithmetic in a browser: a pinned release from the npm registry."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from functools import partial
from pathlib import Path

from utils.commandline import UserError
from utils.files import write_atomically

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The build for the CPU alone, and what it computes with.
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def install_runtime(folder: Path) -> None:
    """Put its files into a folder, if they are not there. npm keeps what it has once downloaded.

    Raises UserError if there is no npm, it cannot download, what comes is not the pinned release, or it cannot be
    written.
    """
    if all((folder / name).exists() for name in FILES):
        return
    with tempfile.TemporaryDirectory() as download:
        archive = _download(Path(download))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise UserError(f"{PACKAGE}: what npm downloaded is not the pinned release (sha512 {digest})")
        with tarfile.open(archive) as package:
            for name in FILES:
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None  # the digest says so
                write_atomically(folder / name, partial(shutil.copyfileobj, member))


def _download(folder: Path) -> Path:
    """The package's archive, in the folder."""
    command = ["npm", "pack", PACKAGE, "--prefer-offline", "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    except FileNotFoundError:
        raise UserError(f"npm, which downloads {PACKAGE}, is not installed: see https://nodejs.org") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"status {error.returncode}").splitlines()[-1]
        raise UserError(f"npm cannot download {PACKAGE}: {reason}") from None
    return next(folder.glob("*.tgz"))
