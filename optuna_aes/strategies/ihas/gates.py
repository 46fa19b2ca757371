"""The gates of iHAS: which columns of the embeddings a row uses, and what keeps them few and decided."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from optuna_aes.errors import InputError

SIGMA = 0.5
"""Standard deviation of the Gaussian gates' noise (stochastic gates, Yamada et al., 2020, arXiv 1810.04247)."""
TEMPERATURE = 0.5
"""Of the binary concrete gates (Maddison et al., 2017, arXiv 1611.00712)."""


def gaussian_gates(mu: Tensor, noise: Tensor | None = None) -> Tensor:
    """Gates z = clip(μ + 0.5 + σε, 0, 1), shaped as ``mu``; without noise the deterministic gates."""
    shifted = mu + 0.5 if noise is None else mu + 0.5 + SIGMA * noise
    return shifted.clamp(0.0, 1.0)


def gaussian_open(mu: Tensor) -> Tensor:
    """P(z > 0) = Φ((μ + 0.5) / σ)."""
    return 0.5 * (1.0 + torch.erf((mu + 0.5) / (SIGMA * math.sqrt(2.0))))


def concrete_gates(mu: Tensor, noise: Tensor | None = None) -> Tensor:
    """Gates 1[s > 0.5] with the gradient of s = sigmoid((μ + ε) / T), ε logistic; without noise 1[μ > 0]."""
    if noise is None:
        return (mu > 0).to(mu.dtype)
    soft = torch.sigmoid((mu + noise) / TEMPERATURE)
    hard = (soft > 0.5).to(mu.dtype)
    return hard + (soft - soft.detach())


def logistic_noise(like: Tensor) -> Tensor:
    """Draws from the logistic distribution, shaped as ``like``."""
    # Float32 rounds draws near 1 up to 1, whose logit is infinite.
    return torch.logit(torch.rand_like(like), eps=1e-6)


Gates = Callable[[Tensor, Tensor | None], Tensor]

# By name: the gates, the probability that they are open, their noise, and μ at the start, at which nearly all are open.
GATES: dict[str, tuple[Gates, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], float]] = {
    "gaussian": (gaussian_gates, gaussian_open, torch.randn_like, 0.5),
    "concrete": (concrete_gates, torch.sigmoid, logistic_noise, 2.0),
}


def regulariser(open_: Tensor, *, sparse: float, polar: float) -> Tensor:
    """λ₁·mean(p) − λ₂·mean|p − p̄|: few open gates, and in every row some much more open than others.

    Args:
        open_: Probability that each gate is open, shape ``(batch, gates)``; p̄ is the mean of a row.
        sparse: λ₁.
        polar: λ₂.

    Returns:
        A scalar.
    """
    deviation = (open_ - open_.mean(1, keepdim=True)).abs()
    return sparse * open_.mean() - polar * deviation.mean()


class GateNetwork(nn.Module):
    """μ = MLP(BN(e)): one number per field and column, from all embeddings of the row.

    In training :meth:`forward` draws gates and keeps the probabilities that they are open, for the regulariser; in
    evaluation mode gates are deterministic.

    Args:
        fields: Number of fields.
        dim: Width D of their embeddings.
        kind: ``"gaussian"`` or ``"concrete"``.
        hidden: Units of the network's hidden layer.

    Raises:
        InputError: If the kind is not known.
    """

    def __init__(self, fields: int, dim: int, *, kind: str = "gaussian", hidden: int = 64) -> None:
        super().__init__()
        if kind not in GATES:
            raise InputError(f"gate={kind!r} is not known: give one of {', '.join(GATES)}")
        self.kind = kind
        width = fields * dim
        self.norm = nn.BatchNorm1d(width)
        self.inner = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        nn.init.constant_(self.out.bias, GATES[kind][3])
        self.open: Tensor | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Gates of embeddings, both of shape ``(batch, fields, D)``."""
        gates, open_, noise, _ = GATES[self.kind]
        mu = self.out(torch.relu(self.inner(self.norm(values.flatten(1)))))
        if not self.training:
            return gates(mu, None).view_as(values)
        self.open = open_(mu)
        return gates(mu, noise(mu)).view_as(values)

    def interior(self, values: Tensor) -> Tensor:
        """Whether each gate's probability of being open is between 0.1 and 0.9: not decided yet. Shape as ``values``."""
        mu = self.out(torch.relu(self.inner(self.norm(values.flatten(1)))))
        probability = GATES[self.kind][1](mu)
        return ((probability > 0.1) & (probability < 0.9)).view_as(values)


def gate_params(fields: int, dim: int, hidden: int) -> int:
    """Numbers that a :class:`GateNetwork` needs to serve: weights, and the batch norm's four vectors."""
    width = fields * dim
    return 4 * width + (width + 1) * hidden + (hidden + 1) * width
