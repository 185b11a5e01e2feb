"""Presets: options from a file, one a line, and clear words about what is wrong in it."""

import pytest
from conftest import ROOT, run, succeed

from traincontroller import parse_arguments, settings_of
from utils.commandline import ScriptParser

STAGES = ("data/generation_script.py", "trainvae.py", "trainmdrnn.py", "traincontroller.py", "test_controller.py")
SCRIPTS = (*STAGES, "play.py")


@pytest.fixture
def preset(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "preset").write_text(text)
        return f"@{tmp_path / 'preset'}"

    return write


@pytest.mark.parametrize("path", sorted((ROOT / "presets").iterdir()), ids=lambda path: path.name)
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_presets_fit_every_script(path, script):
    usage = run(script, f"@{path}", "--help")
    assert usage.returncode == 0 and "@presets/quickstart" in usage.stdout
    sections = {line for line in path.read_text().splitlines() if line.startswith("[")}
    assert sections <= {f"[{name.split('/')[-1]}]" for name in SCRIPTS}
    text = path.read_text()
    assert "traincontroller" not in text or "--search" in text  # the default may become another one day


def test_what_stands_behind_a_preset_wins(preset):
    word = preset(
        "[trainvae.py]\n--epochs 7\n\n[traincontroller.py]\n# ours\n--search mirrored  # pairs\n--sigma 1 2\n"
    )
    args = parse_arguments(["--logdir", "run", word, "--pop-size", "6"])
    settings = settings_of(args)
    assert (settings.search, settings.sigma, settings.memory_sigma, settings.population) == ("mirrored", 1, 2, 6)
    assert args.presets == [word[1:]]
    assert settings_of(parse_arguments([word, "--logdir", "run", "--search", "cma"])).search == "cma"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[trainvae.py]\n\n--epochs 1\n--epoch-size 3\n", 4, "trainvae.py has no option --epoch-size"),
        ("[trainvae.py]\n--epochs few\n", 2, "'few' is not an integer"),
        ("[trainvae.py]\n--dataset 'a folder\n", 2, "No closing quotation"),
    ],
)
def test_what_is_wrong_in_a_preset_is_one_line(preset, text, line, words):
    word = preset(text)
    result = run("trainvae.py", word, "--logdir", "nowhere")
    assert result.returncode == 2
    (message,) = result.stderr.splitlines()
    assert message.startswith(f"error: {word[1:]}:{line}: ") and words in message
    # The other scripts take their own lines.
    assert run("trainmdrnn.py", word, "--help").returncode == (2 if "quotation" in words else 0)


def test_a_preset_that_is_missing_is_one_line(tmp_path):
    result = run("trainvae.py", f"@{tmp_path / 'none'}", "--logdir", "nowhere")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"error: {tmp_path / 'none'}: no preset to be read (No such file or directory)"
    ]


def test_a_mistake_on_the_command_line_is_not_blamed_on_a_preset(preset, capsys):
    parser = ScriptParser("some.py", None)
    parser.add_argument("--number", type=int)
    parser.add_argument("--other", type=int)
    word = preset("[some.py]\n--number 1\n")
    with pytest.raises(SystemExit):
        parser.parse_args([word, "--other", "x"])
    for mistake in (["--number", "x"], ["--number=x"]):
        with pytest.raises(SystemExit):
            parser.parse_args([word, *mistake])
        assert word[1:] not in capsys.readouterr().err
    succeed(run("trainvae.py", "--help"))
