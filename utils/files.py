"""Files that are written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.commandline import UserError, first_line

UNFINISHED = ".unfinished"  # ends the names of files that are being written; utils/locks.py removes what is left


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Have `write(file)` fill a temporary file beside `path`, then put it in place of `path`.

    A reader, a crash or a full disk never meets half a file: the old one stays until the new one is on disk.
    Raises UserError if the file cannot be written; nothing is left behind then.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED, delete=False
        ) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        # torch.save reports a failed write as a RuntimeError.
        if isinstance(error, OSError | RuntimeError):
            raise UserError(f"{path}: cannot be written ({error}); free some space or choose another folder") from error
        raise


def read_json(path: Path) -> Any:
    """What is in a JSON file. Raises UserError if it is damaged, or OSError if it cannot be opened."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)})") from None


def write_json(path: Path, value: Any) -> None:
    """Write figures as indented JSON, whole or not at all; paths become text."""
    write_atomically(path, lambda file: file.write(json.dumps(value, indent=1, default=str).encode() + b"\n"))
