"""play.py: what its keys do, tried without a window, and its films.

V, M and C are as they are born here, in a game with short episodes (toy_game.py): it does not matter how they drive.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pygame
import pytest
import torch
from conftest import assert_one_line_error, largest_file, run, succeed
from toy_game import SIZES, TOY

from envs.games import CARRACING, GAMES
from models.controller import Controller
from models.mdrnn import MDRNN
from models.vae import VAE
from playing.playable import Playable, load_playable
from playing.session import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, SingleView
from playing.side_by_side import SideBySide
from utils.checkpoints import save_checkpoint
from utils.commandline import UserError
from utils.rollouts import Episode, Recorder, drive_episode
from utils.run_folder import open_dream
from utils.video import open_film


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A run folder of the toy game with V, C, and M that can dream."""
    monkeypatch.setitem(GAMES, TOY.name, TOY)
    torch.manual_seed(0)
    mdrnn, controller = MDRNN(SIZES), Controller(SIZES)
    torch.nn.init.normal_(controller.fc.weight)  # so that what it sees matters
    mdrnn.gmm_linear.bias.data[-1] = -9  # an end is rare
    starts = {name: torch.randn(3, size) for name, size in (("mu", 4), ("logsigma", 4), ("hidden", 16), ("cell", 16))}
    starts["steps"] = torch.zeros(3, dtype=torch.int64)
    save(tmp_path / "vae" / "best.tar", VAE(SIZES))
    save(tmp_path / "mdrnn" / "best.tar", mdrnn, include_reward=True, starts=starts)
    save(tmp_path / "ctrl" / "best.tar", controller)
    return tmp_path


def save(path: Path, model: torch.nn.Module, **more: object) -> None:
    common = {"state_dict": model.state_dict(), "game": TOY.name, "sizes": SIZES.to_dict()}
    save_checkpoint(path, common | more)


def forget_rewards(folder: Path) -> None:
    """M as without --include_reward."""
    save(folder / "mdrnn" / "best.tar", MDRNN(SIZES))


@pytest.fixture
def playable(folder) -> Playable:
    return load_playable(folder)


def press(session, *keys: str) -> None:
    for key in keys:
        session.handle_key(key)
        session.handle_key(key, down=False)


def steps(session, count: int) -> None:
    for _ in range(count):
        session.advance()


class Actions(Recorder):
    """Keeps the actions and the rewards of an episode."""

    def __init__(self):
        self.kept = []

    def act(self, environment, action, reward, terminated):
        self.kept.append((*action.tolist(), reward))


def test_the_agent_drives_as_in_the_drive_loop(playable):
    """The same actions and rewards, to the last bit."""
    session, recorder = SingleView(playable, seed=3), Actions()
    outcome = drive_episode(playable.world, TOY, "plain", Episode(playable.controller, 3, recorder=recorder))
    driven = []
    for _ in range(TOY.max_steps):
        action = session.real.agent.act()
        session.step()
        driven.append((*action.tolist(), session.real.reward))
    assert driven == recorder.kept and len({action for action, _ in driven}) == TOY.max_steps
    assert session.real.over and session.real.total_return == outcome.total_return
    session.step()
    assert session.real.steps == outcome.length


@pytest.mark.parametrize("inputs", ["zh", "z"])
def test_carracing_is_driven_as_in_the_drive_loop(untrained_run, tmp_path, inputs):
    torch.manual_seed(0)
    controller = Controller(replace(CARRACING.sizes, inputs=inputs))
    for stage in ("vae", "mdrnn"):
        (tmp_path / stage).symlink_to(untrained_run / stage)
    save_checkpoint(tmp_path / "ctrl" / "best.tar", {"state_dict": controller.state_dict()})
    playable, recorder = load_playable(tmp_path), Actions()
    drive_episode(playable.world, CARRACING, "fast", Episode(playable.controller, 5, patience=50, recorder=recorder))
    session = SingleView(playable, seed=5)
    steps(session, len(recorder.kept))
    assert session.real.total_return == sum(reward for *_, reward in recorder.kept)
    assert np.abs(session.real.agent.moment.hidden).min() > 0  # M remembers, even if C does not see it


def test_a_human_drives_with_the_keys_of_the_game(playable):
    session = SingleView(playable, human=True)
    before = session.real.agent.moment
    session.handle_key("right")
    for _ in range(3):
        level = session.real.environment._level
        session.step()
        assert session.real.environment._level == pytest.approx(min(level + 0.05, 1))
    session.handle_key("left")  # both: they cancel each other out
    level = session.real.environment._level
    session.step()
    session.handle_key("right", down=False)
    session.handle_key("left", down=False)
    session.step()
    assert session.real.environment._level == level
    assert (session.real.agent.moment.hidden != before.hidden).all()  # so that the agent can take over
    press(session, "m")
    assert not session.human
    session.step()
    assert session.real.environment._level != level


@pytest.mark.parametrize("game", GAMES.values(), ids=list(GAMES))
def test_keys_are_actions_of_their_games(game):
    assert game.keys
    for contribution in game.keys.values():
        assert len(contribution) == game.sizes.action
        assert (np.clip(contribution, game.sizes.lowest_action, game.sizes.highest_action) == contribution).all()


def test_m_remembers_what_a_human_did(playable):
    """Its state is that of the modules' own equations on the human's actions."""
    session, mdrnn = SingleView(playable, human=True), playable.mdrnn
    session.handle_key("right")
    latents = [session.real.agent.moment.latent]
    for _ in range(5):
        session.step()
        latents.append(session.real.agent.moment.latent)
    with torch.no_grad():
        prediction, (hidden, cell) = mdrnn(torch.ones(5, 1, 1), torch.from_numpy(np.array(latents[:5]))[:, None])
    np.testing.assert_allclose(session.real.agent.moment.hidden, hidden[0, 0].numpy(), atol=1e-5)
    np.testing.assert_allclose(session.real.agent.moment.cell, cell[0, 0].numpy(), atol=1e-5)
    assert session.real.agent.predicted_reward() == pytest.approx(prediction.reward[-1, 0].item(), abs=1e-5)


def test_the_dream_goes_on_where_reality_is_and_reality_where_it_was(playable):
    session = SingleView(playable)
    steps(session, 7)
    moment, level = session.real.agent.moment, session.real.environment._level
    press(session, "tab")
    assert session.scene is session.dream and session.scene.steps == 0 and session.scene.total_return == 0
    np.testing.assert_array_equal(playable.dreamer.latent, moment.latent)
    np.testing.assert_array_equal(session.scene.frame, playable.dreamer.decode(moment.latent))
    np.testing.assert_array_equal(session.scene.agent.moment.hidden, moment.hidden)
    expected = playable.mdrnn(
        torch.from_numpy(session.scene.agent.act())[None, None],
        torch.from_numpy(moment.latent)[None, None],
        (torch.from_numpy(moment.hidden)[None, None], torch.from_numpy(moment.cell)[None, None]),
    )[0].reward.item()
    steps(session, 1)
    assert session.scene.reward == pytest.approx(expected, abs=1e-5)
    steps(session, 4)
    assert session.scene.steps == 5 and session.real.steps == 7
    press(session, "n")
    assert session.scene is session.real and session.real.environment._level == level
    np.testing.assert_array_equal(session.real.agent.moment.hidden, moment.hidden)
    steps(session, 1)
    assert session.real.steps == 8


def test_pause_single_step_and_restart(playable):
    session = SingleView(playable, seed=4)
    press(session, "e")  # of no use while it runs
    session.step()
    press(session, ".")
    steps(session, 3)
    assert session.real.steps == 1
    press(session, "e")
    steps(session, 3)
    assert session.real.steps == 2
    press(session, ".")
    steps(session, 3)
    assert session.real.steps == 5
    press(session, "r")
    assert (session.real.seed, session.real.steps, session.real.total_return) == (5, 0, 0)
    np.testing.assert_array_equal(session.real.frame, TOY.make("plain").reset(seed=5)[0])
    assert not session.real.agent.moment.hidden.any()
    for key in ("q", "escape"):
        session.closed = False
        press(session, key)
        assert session.closed


def test_the_temperature_has_bounds(playable):
    session = SingleView(playable, in_dream=True)
    assert session.scene is session.dream
    press(session, "+", "=", "-")
    assert playable.dreamer.temperature == 1.05 and "1.05" in session.notice
    press(session, *"-" * 40)
    assert playable.dreamer.temperature == LOWEST_TEMPERATURE
    steps(session, 5)
    assert np.isfinite(playable.dreamer.latent).all()
    press(session, *"+" * 120)
    assert playable.dreamer.temperature == HIGHEST_TEMPERATURE


def test_text_changes_but_not_the_size(playable):
    """The frame is enlarged without blur, and the text stands below it."""
    session = SingleView(playable)
    plain = session.step()
    np.testing.assert_array_equal(plain[: 64 * 9 : 9, ::9], session.real.frame)
    session.notice = "one word and another " * 40
    assert session.picture().shape == plain.shape == (664, 576, 3)
    assert (session.picture()[576:] != plain[576:]).any()


def test_a_notice_goes_by_itself(folder):
    forget_rewards(folder)
    session = SingleView(load_playable(folder))
    press(session, "tab")
    assert session.scene is session.real and "has not learned rewards" in session.notice
    for _ in range(5 * TOY.frames_per_second):
        session.step()
    assert session.notice
    session.step()
    assert not session.notice


def test_without_a_controller_a_human_drives(folder):
    (folder / "ctrl" / "best.tar").unlink()
    session = SingleView(load_playable(folder))
    press(session, "m")
    assert session.human and "no controller" in session.notice
    session.step()
    assert session.real.steps == 1
    film = folder / "film.gif"
    assert_one_line_error(run("play.py", "--logdir", folder, "--record", film), "ctrl", "traincontroller.py")
    assert not film.exists()


def test_v_is_enough_for_a_human(folder):
    for stage in ("mdrnn", "ctrl"):
        (folder / stage / "best.tar").unlink()
    session = SingleView(load_playable(folder))
    session.step()
    press(session, "tab")
    assert session.real.steps == 1 and "trainmdrnn.py" in session.notice


def test_side_by_side_the_dream_goes_on_alone(folder, playable):
    session = SideBySide(playable, dream_steps=10, warm_up=5)
    steps(session, 5)
    assert not session.dream.frame.any() and session.dream.over
    moment, action = session.real.agent.moment, session.real.agent.act()
    picture = session.step()
    alone = open_dream(folder)
    alone.reset(seed=session.dream.seed, options=moment._asdict())
    frame, reward, *_ = alone.step(action)
    assert session.dream.steps == 1 and session.dream.total_return == reward
    np.testing.assert_array_equal(session.dream.frame, frame)
    columns = [picture[:320:5, left : left + 320 : 5] for left in (0, 328, 656)]
    np.testing.assert_array_equal(columns[0], session.real.frame)
    np.testing.assert_array_equal(columns[1], playable.dreamer.decode(session.real.agent.moment.latent))
    np.testing.assert_array_equal(columns[2], session.dream.frame)
    steps(session, 9)
    assert session.dream.steps == 10 and session.real.steps == 15
    steps(session, 1)
    assert session.dream.steps == 1  # begun anew
    press(session, "tab")
    assert session.notice and session.step().shape == picture.shape
    press(session, "r")
    assert session.real.seed == 1 and session.real.steps == 0 and not session.dream.frame.any()


@pytest.mark.parametrize(("options", "shape", "length"), [
    (["--side-by-side", "--dream-steps", 5], (448, 976, 3), 12),
    (["--dream"], (664, 576, 3), 12),
    ([], (664, 576, 3), 40),
])  # fmt: skip
def test_a_film_of_what_would_be_shown(folder, options, shape, length):
    film = folder / "films" / "film.mp4"
    limit = ["--steps", length] if length < TOY.max_steps else []
    output = succeed(run("play.py", "--logdir", folder, "--record", film, *options, *limit))
    assert f"{length} steps" in output and str(film) in output
    assert imageio.imread(film).shape == (length, *shape)


@pytest.mark.parametrize("name", ["film.mp4", "film.gif"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Pillow closes what it could not write
def test_a_full_disk_leaves_the_film_before(name, tmp_path):
    film = tmp_path / name
    film.write_bytes(b"the film before")
    noise = np.random.default_rng(0).integers(256, size=(40, 64, 64, 3), dtype=np.uint8)
    with (
        largest_file(20_000),
        pytest.raises(UserError, match=f"{film}: cannot be written") as error,
        open_film(film, 50) as opened,
    ):
        for picture in noise:
            opened.add(partial(np.asarray, picture))
    assert "\n" not in str(error.value)
    assert film.read_bytes() == b"the film before" and list(tmp_path.iterdir()) == [film]


def test_a_gif_has_every_fourth_picture(folder):
    film = folder / "film.gif"
    succeed(run("play.py", "--logdir", folder, "--record", film, "--side-by-side", "--steps", 10))
    assert imageio.imread(film).shape == (3, 448, 976, 3)


@pytest.mark.parametrize("option", ["--dream", "--side-by-side"])
def test_without_a_reward_head_there_is_no_dream(folder, option):
    forget_rewards(folder)
    result = run("play.py", "--logdir", folder, option)
    assert_one_line_error(result, folder / "mdrnn" / "best.tar", "trainmdrnn.py", "--include_reward")


@pytest.mark.parametrize("driver", ["", "x11"])
def test_without_a_display_there_is_no_window(folder, monkeypatch, driver):
    """Neither where SDL says so nor where it would play unseen."""
    pygame.display.quit()
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", driver) if driver else monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    assert_one_line_error(run("play.py", "--logdir", folder), "no display", "--record FILE", "xvfb-run")


def test_the_window_passes_keys_on(folder, monkeypatch):
    """In SDL's driver without a screen: a pause, two single steps, a warmer dream, and the end."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # "offscreen" loads Mesa's LLVM, beside which Triton's crashes
    sessions, presses = [], [pygame.K_PERIOD, pygame.K_e, pygame.K_e, pygame.K_KP_PLUS, pygame.K_ESCAPE]
    monkeypatch.setattr("play.SingleView", lambda *arguments: sessions.append(SingleView(*arguments)) or sessions[0])
    flip = pygame.display.flip

    def flip_and_press():
        flip()
        if presses:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=presses.pop(0)))

    monkeypatch.setattr(pygame.display, "flip", flip_and_press)
    succeed(run("play.py", "--logdir", folder, "--seed", 2, "--temperature", 1.15))
    (session,) = sessions
    assert session.closed and session.paused and session.real.seed == 2 and session.real.steps == 1 + 2
    assert session.dream.environment.temperature == 1.2 and not pygame.display.get_init()


@pytest.mark.parametrize("options", [
    ["--steps", 5],
    ["--dream-steps", 5],
    ["--temperature", 9],
    ["--dream", "--side-by-side"],
    ["--human", "--record", "film.gif"],
    ["--record", "film.avi"],
])  # fmt: skip
def test_wrong_use(folder, options):
    assert run("play.py", "--logdir", folder, *options).returncode == 2
