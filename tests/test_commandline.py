"""How a script ends."""

import subprocess
import sys

import pytest
from conftest import ROOT

AT_THE_END = """
import atexit, os, signal, sys
from utils.commandline import UserError, run_script
def stop_it():
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
atexit.register(stop_it)
def main():
    if sys.argv[1] == "1":
        raise UserError("no luck")
    if sys.argv[1] == "130":
        stop_it()
run_script(main)
"""


@pytest.mark.parametrize(("status", "words"), [(0, []), (1, ["error: no luck"]), (130, ["interrupted"])])
def test_a_script_that_has_ended_heeds_no_signals(status, words):
    command = [sys.executable, "-c", AT_THE_END, str(status)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == status
    assert [line.split(";")[0] for line in result.stderr.strip().splitlines()] == words
