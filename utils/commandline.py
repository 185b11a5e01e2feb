"""What the command lines of all scripts share: argument types, presets, and how a run ends."""

import argparse
import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from envs.errors import UserError
from envs.games import Game

LARGEST = 2**32 - 1  # as a seed, all libraries take that; NumPy's global generator, from which cma draws, no more


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function and leave with a status: 0 done, 1 failed, 130 interrupted.

    (2, wrong use, is argparse's own.) A UserError becomes one line on stderr; SIGTERM ends a run as Ctrl-C does. When
    main has ended, both are ignored: there is nothing left to stop, and libraries clean up for a moment.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line when it is printed
    try:
        try:
            main()
        finally:
            _heed_no_signals()
    except UserError as error:
        _fail(str(error), status=1)
    except OSError as error:
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}", status=1)
    except KeyboardInterrupt:
        _heed_no_signals()  # a second one may have come in between
        _fail("interrupted; the same command again, but for --noreload, goes on from what is saved", status=130)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C and SIGTERM off until the block is done, which should take a second or two at most: what belongs
    together is written together, and no library is left in a state from which it cannot be closed."""
    pending: list[int] = []
    previous = {
        number: signal.signal(number, lambda signum, frame: pending.append(signum))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if pending:
        raise KeyboardInterrupt


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _heed_no_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _fail(message: str, status: int) -> NoReturn:
    print(f"\n{'error: ' if status == 1 else ''}{message}", file=sys.stderr)
    sys.exit(status)


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    if value > LARGEST:
        raise argparse.ArgumentTypeError(f"{value} is more than {LARGEST}")
    return value


def _finite(text: str, positive: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf") or (positive and value == 0):
        raise argparse.ArgumentTypeError(f"{text} is {'zero, ' if positive else ''}negative or infinite")
    return value


# argparse types
natural_int = partial(_integer, least=0)
positive_int = partial(_integer, least=1)
population_size = partial(_integer, least=2)  # evolution compares candidates
natural_float = partial(_finite, positive=False)
positive_float = partial(_finite, positive=True)


def share(text: str) -> float:
    """argparse type: from 0 to 1."""
    value = natural_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than 1")
    return value


def output_file(text: str) -> Path:
    """argparse type: a file that may be written, before an hour is spent on what goes into it."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {folder} is no folder to write to")
    return path


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the script's docstring as written and the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default is not None and action.default is not False
        return super()._get_help_string(action) if has_default else action.help


class ScriptParser(argparse.ArgumentParser):
    """Takes presets, too: @FILE stands for the options in the file's section [<name of the script>], one a line, with
    comments after #. What stands behind it on the command line wins."""

    def __init__(self, file: str, description: str | None):
        super().__init__(Path(file).name, description=description, formatter_class=HelpFormatter)
        self.epilog = "@FILE reads options from a preset, such as @presets/quickstart"
        self._origins: dict[str, str] = {}  # where a preset gave an option: file:line

    def parse_args(self, argv: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        words = sys.argv[1:] if argv is None else [str(word) for word in argv]
        expanded = []
        for word in words:
            if word[:1] == "@":
                expanded += self._read_preset(Path(word[1:]))
            else:
                self._origins.pop(word.split("=")[0], None)  # an option given again here is not the preset's
                expanded.append(word)
        args = super().parse_args(expanded, namespace)
        args.script = self.prog
        args.presets = [word[1:] for word in words if word[:1] == "@"]
        return args

    def _read_preset(self, path: Path) -> list[str]:
        """The words of a preset for this script; one line on stderr and status 2 if it cannot be used."""
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self._refuse(f"{path}: no preset to be read ({getattr(error, 'strerror', None) or 'no text'})")
        options = {name for action in self._actions for name in action.option_strings}
        here, words = False, []
        for number, line in enumerate(lines, 1):
            try:
                parts = shlex.split(line, comments=True)
            except ValueError as error:
                self._refuse(f"{path}:{number}: {error}")
            if parts and parts[0].startswith("["):
                here = parts[0] == f"[{self.prog}]"
            elif parts and here:
                option = parts[0].split("=")[0]
                if option not in options:
                    self._refuse(f"{path}:{number}: {self.prog} has no option {parts[0]}")
                self._origins[option] = f"{path}:{number}"
                words += parts
        return words

    def _refuse(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")

    def error(self, message: str) -> NoReturn:
        named = re.match(r"argument ([^:]+):", message)
        for option in named[1].split("/") if named else []:
            if option in self._origins:
                self._refuse(f"{self._origins[option]}: {message}")
        super().error(message)


def pick_kind(kind: str | None, default: str, game: Game, option: str = "--env") -> str:
    """The kind of environment that an option names. Raises UserError if the game has none of this kind."""
    if kind is not None and kind not in game.kinds:
        raise UserError(f"{option} {kind}: {game.name} has only {', '.join(game.kinds)}")
    return kind or default
