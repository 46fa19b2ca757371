"""The second-order gradient of the soft selection: through the step that the weights take next.

dα L_val(w − ξ ∇w L_train(w, α), α), with the product of second derivatives by central differences as in DARTS (Liu,
Simonyan, Yang, 2019, arXiv 1806.09055). Tables are read and moved by the rows of the batches only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_aes.models.evaluation import evaluating
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.pruning.base import gates
from optuna_aes.strategies.pruning.gradients import forget

Batch = tuple[Tensor, Tensor]
Slopes = list[tuple[Tensor, Tensor | None, Tensor]]
"""Gradients of weights: the weight, the rows that a table's gradient is of (None for all), and the gradient."""


def unrolled_gradient(
    supernet: Supernet, valid: Batch, train: Batch, *, ahead: float, tower: bool, distance: float = 1e-3
) -> Tensor:
    """Gradient of the validation loss after a step of the weights, with respect to the gates, shape ``(fields, D)``.

    Args:
        supernet: A masked supernet; its weights are the same afterwards, to the last bit.
        valid: Ids and labels of a validation batch.
        train: Those of the training batch that the step is taken on.
        ahead: ξ, length of the step.
        tower: Whether the backbone's weights take the step too.
        distance: By how much weights are moved to see how the training gradient changes, in norm: as little as single
            precision bears, as every unit of the tower that switches on or off on the way is an error.
    """
    _, slopes = _gradients(supernet, train, tower)
    with _moved(slopes, -ahead):
        direct, slopes = _gradients(supernet, valid, tower)
    norm = float(torch.stack([slope.square().sum() for _, _, slope in slopes]).sum().sqrt())
    if norm == 0:
        return direct
    by = distance / norm
    with _moved(slopes, by):
        plus, _ = _gradients(supernet, train, tower)
    with _moved(slopes, -by):
        minus, _ = _gradients(supernet, train, tower)
    return direct - ahead * (plus - minus) / (2 * by)


def _gradients(supernet: Supernet, batch: Batch, tower: bool) -> tuple[Tensor, Slopes]:
    """Gradients of a batch's mean loss: of the gates, and of the weights."""
    embedding = gates(supernet)
    ids, labels = batch
    embedding.gate.requires_grad_()
    with evaluating(supernet):
        loss = F.binary_cross_entropy_with_logits(supernet(ids), labels)
        tables = [t for t in (embedding.table, embedding.linear) if t is not None and t.touched is not None]
        touched = [t.touched for t in tables if t.touched is not None]
        dense = list(supernet.backbone.parameters()) if tower else []
        wanted = [embedding.gate, *(t.leaf for t in touched), *dense]
        gradient, *slopes = torch.autograd.grad(loss, wanted, allow_unused=True)
    embedding.gate.requires_grad_(False)
    forget(supernet)
    weights = [*((t.weight, at.rows) for t, at in zip(tables, touched, strict=True)), *((p, None) for p in dense)]
    return gradient, [(w, rows, s) for (w, rows), s in zip(weights, slopes, strict=True) if s is not None]


@contextlib.contextmanager
def _moved(slopes: Slopes, by: float) -> Iterator[None]:
    """Adds multiples of the gradients to the weights for the block, and puts the weights back as they were."""
    with torch.no_grad():
        before = [weight[rows].clone() if rows is not None else weight.clone() for weight, rows, _ in slopes]
        for (weight, rows, slope), old in zip(slopes, before, strict=True):
            weight[slice(None) if rows is None else rows] = old + by * slope
    try:
        yield
    finally:
        with torch.no_grad():
            for (weight, rows, _), old in zip(slopes, before, strict=True):
                weight[slice(None) if rows is None else rows] = old
