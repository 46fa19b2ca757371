"""A warm start: the weights that a right-sized model takes over from the supernet that holds all sizes."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor

from optuna_aes.models.embedding import MixedEmbedding
from optuna_aes.models.model import CTRModel
from optuna_aes.models.rows import RowTable
from optuna_aes.models.supernet import Supernet


@torch.no_grad()
def inherit(model: CTRModel, net: Supernet, kept: Tensor) -> None:
    """Copies the kept columns of every table, first-order weights, and of the backbone whatever has a counterpart.

    With linear alignment the model then gives what the supernet gives under the mask ``kept``. With zero-padding its tables'
    columns move together, so that where fields kept different columns, terms that multiply column by column differ; where
    every field kept its first ones, nothing moves. What a backbone has of another shape (attention over narrower fields)
    stays as it is.

    Args:
        model: A model whose sizes are the numbers of kept columns.
        net: The trained supernet.
        kept: Which columns, bool of shape ``(fields, D)``.
    """
    _inherit_tables(model, net, kept)
    columns = _columns(model, kept)
    theirs: dict[str, Tensor] = dict(net.backbone.named_parameters())
    for name, parameter in model.backbone.named_parameters():
        if name not in theirs:
            continue
        value = theirs[name]
        for axis in _input_axes(name, value, kept.numel(), theirs):
            value = value.index_select(axis, columns)
        if value.shape == parameter.shape:
            parameter.copy_(value)


def _input_axes(name: str, value: Tensor, full: int, names: Container[str]) -> list[int]:
    """Axes of a backbone's parameter that run along the columns of its input."""
    if name.startswith("tower."):  # where a hidden layer is as wide as the input, its axes are not the input's
        first = "tower.hidden.0.weight" if "tower.hidden.0.weight" in names else "tower.out.weight"
        return [1] if name == first else []
    return [axis for axis, length in enumerate(value.shape) if length == full]


def _inherit_tables(model: CTRModel, net: Supernet, kept: Tensor) -> None:
    ours, table = model.embedding, net.embedding.get_parameter("table.weight")
    assert isinstance(ours, MixedEmbedding)
    starts = net.embedding.layout.field_start.tolist()
    ends = [*starts[1:], net.embedding.layout.total_rows]
    rows = ours.layout.field_start.tolist()
    for (size, fields), first in zip(ours.groups, ours.starts, strict=True):
        group = ours.tables[str(size)]
        assert isinstance(group, RowTable)
        for i, f in enumerate(fields):
            at = rows[f] - first
            columns = kept[f].nonzero().squeeze(1)
            group.weight[at : at + ends[f] - starts[f]] = table[starts[f] : ends[f], columns]
            if str(size) in ours.maps:  # puts each column back where it was
                ours.maps[str(size)][i] = torch.eye(ours.dim, device=table.device)[columns]
    if ours.linear is not None and net.embedding.linear is not None:
        for f, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ours.linear.weight[rows[f] : rows[f] + end - start] = net.embedding.linear.weight[start:end]


def _columns(model: CTRModel, kept: Tensor) -> Tensor:
    """The columns of the full-width input that the model's groups fill, in their order."""
    dim, at = kept.shape[1], [torch.zeros(0, dtype=torch.int64, device=kept.device)]
    assert isinstance(model.embedding, MixedEmbedding)
    for size, fields in model.embedding.groups:
        for f in fields:
            whole = str(size) in model.embedding.maps
            own = torch.arange(dim, device=kept.device) if whole else kept[f].nonzero().squeeze(1)
            at.append(f * dim + own)
    return torch.cat(at)
