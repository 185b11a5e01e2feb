"""export_dream.py: its files, and one line for every run folder that it cannot make a page of.

No network: what comes from npm stands in, but for tests/test_browser.py.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_line_error, run, succeed

import export_dream
from envs.games import TAKECOVER
from models.controller import Controller
from models.mdrnn import MDRNN
from models.packed import BLOCK, Blocks, Half, pack
from models.vae import VAE
from utils.checkpoints import save_checkpoint
from utils.onnx_runtime_web import FILES

SHIPPED = ROOT / "pretrained" / "dream"


def untrained_takecover(folder: Path) -> Path:
    """A run folder of Take Cover with V, M and C as they are born; dreams begin anywhere."""
    torch.manual_seed(0)
    sizes = TAKECOVER.sizes
    mdrnn = MDRNN(sizes)
    mdrnn.gmm_linear.bias.data[-1] = -9  # an end is rare
    widths = {"mu": sizes.latent, "logsigma": sizes.latent, "hidden": sizes.hidden, "cell": sizes.hidden}
    starts = {name: torch.randn(5, width) for name, width in widths.items()} | {"steps": torch.arange(5)}
    for stage, model in (("vae", VAE(sizes)), ("mdrnn", mdrnn), ("ctrl", Controller(sizes))):
        state = {"state_dict": model.state_dict(), "game": TAKECOVER.name, "sizes": sizes.to_dict(), "starts": starts}
        save_checkpoint(folder / stage / "best.tar", state)
    return folder


@pytest.fixture
def no_download(monkeypatch) -> None:
    monkeypatch.setattr(export_dream, "install_runtime", lambda folder: None)


@pytest.mark.slow
def test_a_page_is_a_folder_of_its_own(no_download, tmp_path):
    page = tmp_path / "some" / "page"
    assert "models: 3.9" in succeed(run("export_dream.py", "--logdir", SHIPPED, "--out", page))
    made = {"carracing", "games.json"}
    assert {path.name for path in page.iterdir()} == made | {path.name for path in (ROOT / "web").iterdir()}
    dreams = page / "carracing"
    assert {path.name for path in dreams.iterdir()} == {"V.onnx", "M.onnx", "C.onnx", "starts.bin", "dream.json"}
    facts = json.loads((dreams / "dream.json").read_text())
    assert facts["title"] == "CarRacing-v3" and facts["keys"]["down"] == [0, 0, 0.8] and facts["wholeGain"] == 1000
    starts = np.fromfile(dreams / "starts.bin", "<f4").reshape(facts["starts"], -1)
    assert starts.shape == (64, 2 * 32 + 2 * 256)
    first = torch.load(SHIPPED / "mdrnn" / "best.tar", weights_only=True)["starts"]["mu"][0].float()
    np.testing.assert_array_equal(starts[0, :32], first)
    assert str(ROOT) not in "".join(path.read_text() for path in page.rglob("*.js*"))
    assert not any(str(ROOT).encode() in path.read_bytes() for path in page.rglob("*.onnx"))


def test_games_are_listed_in_their_order_whichever_came_first(tmp_path):
    for games in (["takecover"], ["carracing", "takecover"]):
        (tmp_path / games[0]).mkdir()
        (tmp_path / games[0] / "dream.json").touch()
        export_dream.write_games(tmp_path)
        assert [game["name"] for game in json.loads((tmp_path / "games.json").read_text())] == games


@pytest.mark.parametrize("bits, error", [(8, 0.005), (4, 0.08)])
def test_weights_are_rounded_to_the_nearest(bits, error):
    torch.manual_seed(0)
    weight = torch.randn(7, BLOCK + 3)  # the last block is not full
    blocks = Blocks(weight, bits)
    largest = weight.abs().max()
    assert blocks().shape == weight.shape and (blocks() - weight).abs().max() < error * largest
    assert blocks.numbers.dtype == torch.uint8 and blocks.numbers.shape[1] == BLOCK * bits // 8
    assert (Blocks(torch.zeros(BLOCK), bits)() == 0).all()


def test_only_large_matrices_are_rounded_to_few_bits():
    assert isinstance(pack(torch.zeros(1000, 999)), Half)
    assert pack(torch.zeros(1000, 1000)).bits == 8 and pack(torch.zeros(1000, 2000)).bits == 4


def test_what_no_page_can_be_made_of_is_one_line(no_download, tmp_path, untrained_run):
    def refused(logdir: Path, *parts: object) -> None:
        assert_one_line_error(run("export_dream.py", "--logdir", logdir, "--out", tmp_path / "page"), *parts)
        assert not (tmp_path / "page").exists()

    refused(tmp_path / "nowhere", tmp_path / "nowhere" / "vae" / "best.tar", "trainvae.py")
    refused(untrained_run, untrained_run / "mdrnn" / "best.tar", "rewards", "--include_reward")
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "run"))
    for stage, script in (("ctrl", "traincontroller.py"), ("mdrnn", "trainmdrnn.py"), ("vae", "trainvae.py")):
        (folder / stage / "best.tar").unlink()
        refused(folder, folder / stage / "best.tar", script)
    for stage in ("vae", "mdrnn", "ctrl"):
        (folder / stage / "best.tar").write_bytes(b"no checkpoint")
        refused(folder, folder / "vae" / "best.tar")
    takecover = untrained_takecover(tmp_path / "takecover")
    shutil.copy(SHIPPED / "ctrl" / "best.tar", takecover / "ctrl" / "best.tar")
    refused(takecover, takecover / "ctrl" / "best.tar", "carracing", "takecover")
    state = torch.load(SHIPPED / "vae" / "best.tar", weights_only=True)
    state["state_dict"] = {name: w for name, w in state["state_dict"].items() if not name.startswith("decoder")}
    save_checkpoint(folder / "vae" / "best.tar", state)
    for stage in ("mdrnn", "ctrl"):
        shutil.copy(SHIPPED / stage / "best.tar", folder / stage / "best.tar")
    refused(folder, folder / "vae" / "best.tar", "decoder", "trainvae.py")


def test_without_npm_it_is_one_line_unless_the_runtime_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(export_dream, "write_model", lambda path, *rest: None)
    command = ["export_dream.py", "--logdir", SHIPPED, "--out", tmp_path / "page"]
    assert_one_line_error(run(*command), "npm", "nodejs.org")
    for name in FILES:
        (tmp_path / "page" / "ort").mkdir(parents=True, exist_ok=True)
        (tmp_path / "page" / "ort" / name).touch()
    succeed(run(*command))


@pytest.mark.parametrize("script, reason", [("echo no route >&2; exit 1", "no route"), ("touch x.tgz", "sha512")])
def test_a_failed_or_forged_download_is_one_line(tmp_path, monkeypatch, script, reason):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent))
    result = run("export_dream.py", "--logdir", SHIPPED, "--out", tmp_path / "page")
    assert_one_line_error(result, "onnxruntime-web@", reason)
