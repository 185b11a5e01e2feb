"""Points of the search become controllers of raw inputs that do the same."""

import numpy as np
import pytest
import torch
from conftest import run, succeed

from data.encoding import encode
from data.loaders import find_rollouts, load_rollout, split_rollouts
from models.controller import Architecture, Controller, drive_batch
from models.mdrnn import MDRNN
from utils.checkpoints import load_checkpoint, load_input_statistics, load_mdrnn, load_vae
from utils.coordinates import Coordinates


def inputs_like_those_of_m(size: int) -> torch.Tensor:
    """Inputs (5000, size) far from zero and strongly correlated."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(5000, 6, generator=generator) @ torch.randn(6, size, generator=generator)
    return few + 0.01 * torch.randn(5000, size, generator=generator) + torch.linspace(-2, 2, size)


@pytest.mark.parametrize("architecture", [Architecture(), Architecture(False), Architecture(False, 7)])
def test_a_step_of_the_search_moves_the_actions_and_not_their_mean(architecture):
    inputs, outputs = architecture.layers[0]
    seen = inputs_like_those_of_m(inputs)
    coordinates = Coordinates(architecture, torch.zeros(architecture.size), seen.mean(dim=0), seen.T.cov())
    points = torch.randn(200, architecture.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points[:, inputs * outputs : (inputs + 1) * outputs] = 0  # the biases
    controllers = coordinates.to_controllers(points)
    assert controllers.dtype == torch.float32
    weights = controllers[:, : inputs * outputs].unflatten(1, (outputs, inputs))
    biases = controllers[:, inputs * outputs : (inputs + 1) * outputs]
    pulled = torch.einsum("noi,ti->nto", weights, seen) + biases[:, None]  # before tanh
    assert pulled.mean(dim=1).abs().max() < 1e-3 * pulled.std()
    assert pulled.std().item() == pytest.approx(1, rel=0.1)  # a step of 1 moves by 1, whatever the inputs are
    rest = (inputs + 1) * outputs
    assert torch.equal(controllers[:, rest:], points[:, rest:].float())


def test_the_origin_is_the_start_and_without_statistics_points_are_parameters():
    architecture = Architecture()
    start = Controller(architecture).to_vector()
    seen = inputs_like_those_of_m(288)
    points = torch.randn(3, architecture.size, dtype=torch.float64)
    plain = Coordinates(architecture, start)
    principal = Coordinates(architecture, start, seen.mean(dim=0), seen.T.cov())
    for coordinates in (plain, principal):
        assert torch.equal(coordinates.to_controllers(torch.zeros(1, architecture.size))[0], start)
        again = Coordinates(architecture, **coordinates.state_dict())
        assert torch.equal(again.to_controllers(points), coordinates.to_controllers(points))
    torch.testing.assert_close(plain.to_controllers(points), (start + points).float())
    actions = drive_batch(architecture, principal.to_controllers(points), seen[:3])
    assert actions.shape == (3, 3)


def test_m_brings_the_statistics_of_what_c_sees(trained, tiny_dataset):
    statistics = load_input_statistics(trained)
    mean, covariance = statistics["mean"], statistics["covariance"]
    assert mean.shape == (288,) and covariance.shape == (288, 288)
    assert (torch.linalg.eigvalsh(covariance.double()) > -1e-4).all()
    hidden = covariance.diagonal()[32:]
    assert (hidden > 0).all() and (mean[32:].abs() < 1).all()

    # Against a plain loop over the one test rollout, as C would see it.
    _, (file,) = split_rollouts(find_rollouts(tiny_dataset))
    frames, actions = map(torch.from_numpy, load_rollout(file, ("observations", "actions")))
    mu, _ = encode(load_vae(trained).eval(), frames, torch.device("cpu"), torch.float32)
    mdrnn, state, rows = load_mdrnn(trained), (torch.zeros(1, 1, 256), torch.zeros(1, 1, 256)), []
    with torch.no_grad():
        for latent, action in zip(mu, actions, strict=True):
            rows.append(torch.cat([latent, state[0][0, 0]]))
            _, state = mdrnn(action[None, None], latent[None, None], state)
    rows = torch.stack(rows)
    torch.testing.assert_close(mean, rows.mean(dim=0), atol=0.02, rtol=0.05)
    np.testing.assert_allclose(covariance.diagonal().sqrt(), rows.std(dim=0), atol=0.02, rtol=0.1)


def test_files_without_statistics_serve_too(untrained_run, tmp_path):
    assert isinstance(load_mdrnn(untrained_run), MDRNN) and load_input_statistics(untrained_run) is None
    options = ["--n-samples", 1, "--pop-size", 4, "--patience", 10, "--eval-episodes", 1, "--generations", 1]
    for stage in ("vae", "mdrnn"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "best.tar").write_bytes((untrained_run / stage / "best.tar").read_bytes())
    succeed(run("traincontroller.py", "--logdir", tmp_path, *options))
    assert load_checkpoint(tmp_path / "ctrl" / "checkpoint.tar", "")["coordinates"]["covariance"] is None
