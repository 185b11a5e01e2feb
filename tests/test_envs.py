"""The environments against Gymnasium's CarRacing-v3: rewards, ends, tracks bit for bit, frames within a grey level."""

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.box2d.car_racing import CarRacing
from gymnasium.utils.env_checker import check_env
from scripted_drivers import drive_away, drive_brownian, drive_randomly, drive_well

import envs
from envs.carracing import GymnasiumCarRacing, shrink

KINDS = ("fast", "gymnasium")


class PartlyDrawn(GymnasiumCarRacing):
    """Gymnasium's environment that draws only when asked to, so that whole episodes can be compared in a test."""

    drawing = False

    def _render(self, mode):
        if self.drawing or mode != "state_pixels":
            return super()._render(mode)
        return np.zeros((64, 64, 3), np.uint8)


def frame_errors(policy, seed, every):
    """Drives both environments through one episode; returns the mean absolute error of the frames compared.

    These are the first 50, while the camera zooms in, and after that one of `every`.
    """
    fast, reference = envs.make_env("fast"), PartlyDrawn()
    reference.drawing = True
    frame, _ = fast.reset(seed=seed)
    expected, _ = reference.reset(seed=seed)
    errors = [np.abs(frame.astype(int) - expected).mean()]
    for step, action in enumerate(policy(fast, np.random.default_rng(seed)), 1):
        reference.drawing = step < 50 or step % every == 0
        frame, _, terminated, truncated, _ = fast.step(action)
        expected = reference.step(action)[0]
        if reference.drawing:
            errors.append(np.abs(frame.astype(int) - expected).mean())
        if terminated or truncated:
            break
    return np.array(errors)


@pytest.mark.parametrize(
    ("policy", "seeds", "end"),
    [
        (drive_randomly, (0, 1, 2, 3), "time"),
        (drive_brownian, (4, 5, 6, 7), None),
        (drive_well, (0, 2), "time"),
        (drive_well, (1, 3), "lap"),
        (drive_away, (0, 8), "away"),
    ],
)
def test_rewards_ends_and_tracks_equal_gymnasiums(policy, seeds, end):
    fast = envs.make_env("fast")
    reference = gymnasium.wrappers.TimeLimit(PartlyDrawn(), 1000)
    for seed in seeds:
        fast.reset(seed=seed)
        reference.reset(seed=seed)
        assert fast.track == reference.unwrapped.track
        for action in policy(fast, np.random.default_rng(seed)):
            _, *outcome = fast.step(action)
            _, *expected = reference.step(action)
            assert outcome == expected
            assert fast.tile_visited_count == reference.unwrapped.tile_visited_count
            if outcome[1] or outcome[2]:
                break
        assert tuple(fast.car.hull.position) == tuple(reference.unwrapped.car.hull.position)
        reward, terminated, truncated, info = outcome
        assert end is None or end == ("time" if truncated else "lap" if info["lap_finished"] else "away")
        assert truncated or end != "away" or reward == -100
        assert fast.np_random.bit_generator.state == reference.unwrapped.np_random.bit_generator.state


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_equals_car_racing_v3s(kind):
    env, reference = envs.make_env(kind), gymnasium.make("CarRacing-v3")
    frame, _ = env.reset(seed=12)
    expected, _ = reference.reset(seed=12)
    for action, _ in zip(drive_well(env, None), range(60), strict=False):
        assert np.abs(frame.astype(int) - shrink(expected)).mean() <= (1.0 if kind == "fast" else 0.0)
        frame, *outcome = env.step(action)
        expected, *expected_outcome = reference.step(action)
        assert outcome == expected_outcome


@pytest.mark.parametrize(
    ("policy", "seed"), [(drive_randomly, 0), (drive_brownian, 1), (drive_well, 1), (drive_away, 2)]
)
def test_frames_are_within_a_grey_level(policy, seed):
    errors = frame_errors(policy, seed, every=10)
    assert errors.mean() < 0.5
    assert errors[:50].mean() < 0.5
    assert errors.max() < 1.0


def test_visited_tiles_lose_their_shade():
    env = envs.make_env("fast")
    env.reset(seed=0)
    for _ in range(60):
        before, *_ = env.step(np.zeros(3, np.float32))
    assert not env.road[4].road_visited
    env.road[4].color[:] = env.road_color  # what the contact listener does
    after = env._render("state_pixels")
    assert (after != before).any()
    assert any(colour is env.road[4].color for _, colour in env.road_poly)  # Gymnasium's drawing sees it too


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_ends_only_when_all_tiles_are_visited(kind):
    """`lap_complete_percent`, 95 % by default, has no effect up to Gymnasium 1.4: scores depend on it."""
    env = envs.make_env("fast") if kind == "fast" else PartlyDrawn()
    env.reset(seed=1)
    env.road[150].road_visited = True  # never to be counted
    past_start = False
    for action in drive_well(env, None):
        _, _, terminated, truncated, _ = env.step(action)
        assert not terminated
        past_start |= env.tile_visited_count == len(env.track) - 1
        if truncated:
            break
    assert past_start


@pytest.mark.parametrize("kind", KINDS)
def test_truncates_at_a_thousand_steps_in_each_episode(kind):
    env = envs.make_env("fast") if kind == "fast" else PartlyDrawn()
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(np.zeros(3, np.float32))[2:4] for _ in range(1000)]
        assert ends == [(False, False)] * 999 + [(False, True)]


def test_resets_with_a_seed_repeat_the_episode():
    env = envs.make_env("fast")
    episodes = []
    for _ in range(2):
        frames = [env.reset(seed=5)[0]]
        frames += [env.step(a)[0] for a, _ in zip(drive_well(env, None), range(100), strict=False)]
        episodes.append(np.array(frames))
        env.reset()  # another track in between
    assert (episodes[0] == episodes[1]).all()


def test_environments_do_not_disturb_one_another():
    def frames(env, seed):
        yield env.reset(seed=seed)[0]
        for action in drive_brownian(env, np.random.default_rng(seed)):
            yield env.step(action)[0]

    alone = [[f for f, _ in zip(frames(envs.make_env("fast"), s), range(80), strict=False)] for s in (1, 2)]
    in_turns = zip(frames(envs.make_env("fast"), 1), frames(envs.make_env("fast"), 2), range(80), strict=False)
    for (one, two, _), expected_one, expected_two in zip(in_turns, *alone, strict=True):
        assert (one == expected_one).all()
        assert (two == expected_two).all()


def test_a_frame_is_not_overwritten_by_the_next_step():
    env = envs.make_env("fast")
    frame, _ = env.reset(seed=0)
    copy = frame.copy()
    env.step(np.array([0.0, 1.0, 0.0], np.float32))
    assert (frame == copy).all()


@pytest.mark.parametrize("kind", KINDS)
def test_spaces_and_conventions(kind):
    env = envs.make_env(kind)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.action_space == gymnasium.spaces.Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 1], np.float32))
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_viewing_shows_gymnasiums_drawing(kind):
    env, reference = envs.make_env(kind, render_mode="rgb_array"), CarRacing(render_mode="rgb_array")
    env.reset(seed=0)
    reference.reset(seed=0)
    for _ in range(3):
        env.step(np.array([0.3, 1.0, 0.0], np.float32))
        reference.step(np.array([0.3, 1.0, 0.0], np.float32))
    assert (env.render() == reference.render()).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="slow"):
        envs.make_env("slow")


def test_colours_can_be_randomised():
    fast = gymnasium.make("FastCarRacing-v0", domain_randomize=True).unwrapped
    reference = GymnasiumCarRacing(domain_randomize=True)
    for seed in range(3):
        error = np.abs(fast.reset(seed=seed)[0].astype(int) - reference.reset(seed=seed)[0]).mean()
        assert error < 1.0


def test_registered_with_gymnasium():
    env = gymnasium.make("FastCarRacing-v0")
    env.reset(seed=0)
    steps = 0
    truncated = False
    while not truncated:
        _, _, _, truncated, _ = env.step(np.zeros(3, np.float32))
        steps += 1
    assert steps == 1000


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_runs_in_a_vector(mode):
    single = envs.make_env("fast")
    vector = gymnasium.make_vec("FastCarRacing-v0", num_envs=2, vectorization_mode=mode)
    try:
        frames, _ = vector.reset(seed=3)
        assert frames.shape == (2, 64, 64, 3)
        action = np.array([0.1, 0.5, 0.0], np.float32)
        for _ in range(5):
            frames, rewards, *_ = vector.step(np.array([action, action]))
        for i in range(2):
            single.reset(seed=3 + i)
            for _ in range(5):
                frame, reward, *_ = single.step(action)
            assert (frames[i] == frame).all()
            assert rewards[i] == pytest.approx(reward)
    finally:
        vector.close()


def test_shrink_averages_areas():
    image = np.zeros((3, 3, 1), np.uint8)
    image[1, 1] = 90
    image[0, 0] = 9
    assert shrink(image)[:, :, 0].tolist() == [[14, 10], [10, 10]]
