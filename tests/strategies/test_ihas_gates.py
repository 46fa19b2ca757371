from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from optuna_aes.errors import InputError
from optuna_aes.strategies.ihas.gates import (
    GATES,
    GateNetwork,
    concrete_gates,
    gate_params,
    gaussian_gates,
    gaussian_open,
    logistic_noise,
    regulariser,
)

MU = torch.tensor([[-1.2, -0.3, 0.0, 0.2, 0.9]])


def test_gaussian_gates_are_clipped_and_noisy_with_half_a_deviation() -> None:
    noise = torch.tensor([[1.0, -1.0, 0.5, 3.0, -2.0]])
    expected = np.clip(MU.numpy() + 0.5 + 0.5 * noise.numpy(), 0, 1)
    np.testing.assert_allclose(gaussian_gates(MU, noise).numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(gaussian_gates(MU).numpy(), [[0, 0.2, 0.5, 0.7, 1.0]], rtol=1e-6)


def test_gaussian_gates_are_open_as_often_as_is_said() -> None:
    np.testing.assert_allclose(gaussian_open(MU).numpy(), norm.cdf((MU.numpy() + 0.5) / 0.5), rtol=1e-5)
    draws = gaussian_gates(MU.expand(200_000, -1), torch.randn(200_000, 5, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose((draws > 0).float().mean(0), gaussian_open(MU)[0], atol=5e-3)


def test_concrete_gates_are_hard_and_have_the_soft_gradient() -> None:
    mu = MU.clone().requires_grad_()
    noise = torch.tensor([[2.0, 0.1, -0.1, 0.1, -3.0]])
    gates = concrete_gates(mu, noise)
    np.testing.assert_allclose(gates.detach().numpy(), [[1, 0, 0, 1, 0]])
    gates.sum().backward()
    soft = 1 / (1 + np.exp(-(MU.numpy() + noise.numpy()) / 0.5))
    np.testing.assert_allclose(mu.grad.numpy(), soft * (1 - soft) / 0.5, rtol=1e-4)
    np.testing.assert_allclose(concrete_gates(MU).numpy(), [[0, 0, 0, 1, 1]])


def test_concrete_gates_are_open_as_often_as_is_said() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        many = MU.expand(200_000, -1)
        noise = logistic_noise(many)
    assert noise.isfinite().all()
    np.testing.assert_allclose(concrete_gates(many, noise).mean(0), torch.sigmoid(MU[0]), atol=5e-3)


def test_the_regulariser_is_its_formula() -> None:
    p = np.random.default_rng(0).random((7, 6)).astype(np.float32)
    expected = 0.3 * p.mean() - 0.5 * np.abs(p - p.mean(1, keepdims=True)).mean()
    assert float(regulariser(torch.from_numpy(p), sparse=0.3, polar=0.5)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", list(GATES))
def test_the_network_draws_in_training_and_decides_otherwise(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GateNetwork(3, 4, kind=kind, hidden=5)
        values = torch.randn(16, 3, 4)
        first, second = network(values), network(values)
        assert first.shape == values.shape
        assert not torch.equal(first, second)
        assert network.open.shape == (16, 12)
        assert network.open.mean() > 0.8  # a fit begins with nearly everything open
        assert ((first >= 0) & (first <= 1)).all()
        network.eval()
        torch.testing.assert_close(network(values), network(values))
        mu = network.out(torch.relu(network.inner(network.norm(values.flatten(1)))))
        torch.testing.assert_close(network(values), GATES[kind][0](mu, None).view_as(values))
        assert network.interior(values).dtype == torch.bool


def test_gate_params_are_what_a_network_has() -> None:
    network = GateNetwork(3, 4, hidden=5)
    state = {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert gate_params(3, 4, 5) == sum(v.numel() for v in state.values())


def test_an_unknown_gate_is_refused() -> None:
    with pytest.raises(InputError, match="gate='steel'"):
        GateNetwork(2, 2, kind="steel")
