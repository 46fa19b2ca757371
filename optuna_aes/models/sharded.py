"""A right-sized model whose tables are divided over processes by TorchRec, where they are larger than one device.

Every process, as ``torchrun`` starts them, holds a share of the tables and all of the rest. The rows of its batch come from
the processes that hold them, and TorchRec updates them there in the backward pass. Needs the extra ``torchrec``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from optuna_aes.data.dataset import OOV, PAD, Schema
from optuna_aes.errors import InputError
from optuna_aes.models._torchrec import OPTIMIZERS, Divided
from optuna_aes.models.backbones.registry import backbone_class
from optuna_aes.models.embedding import MixedEmbedding
from optuna_aes.models.model import CTRModel, ModelOptions, seeded
from optuna_aes.models.rows import SelfUpdating

SHARDINGS = ("auto", "row_wise", "table_wise")
LANES = 4  # FBGEMM keeps rows in multiples of so many columns


@dataclass(frozen=True)
class ShardOptions:
    """How tables are divided and updated.

    Args:
        sharding: ``"row_wise"`` (every process has some rows of each table), ``"table_wise"`` (each table is one process's),
            ``"auto"`` (TorchRec's planner chooses for each table), or one of these by field.
        optimizer: ``"adagrad"``, or ``"adam"``, which FBGEMM has on GPUs only; both keep one second moment a row.
        lr: Learning rate of the tables, scaled as the schedule scales that of the rest. Adagrad's wants to be larger.
        l2: Weight decay, added to the gradient of touched rows.
    """

    sharding: str | Mapping[str, str] = "auto"
    optimizer: str = "adagrad"
    lr: float = 0.05
    l2: float = 0.0

    def __post_init__(self) -> None:
        kinds = [self.sharding] if isinstance(self.sharding, str) else list(self.sharding.values())
        unknown = [kind for kind in kinds if kind not in SHARDINGS]
        if unknown:
            raise InputError(f"sharding={unknown[0]!r} is not known: give one of {', '.join(SHARDINGS)}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer={self.optimizer!r} is not known: give one of {', '.join(OPTIMIZERS)}")
        if not self.lr > 0 or not self.l2 >= 0:
            raise InputError(f"lr={self.lr} must be above 0, and l2={self.l2} 0 or more")

    def of(self, field: str) -> str:
        """How a field's table is divided."""
        return self.sharding if isinstance(self.sharding, str) else self.sharding.get(field, "auto")


def sharded_model(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    dim: int,
    options: ModelOptions,
    shards: ShardOptions | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> CTRModel:
    """A :class:`CTRModel` whose tables are divided over the processes of the default group; none ever holds them whole.

    It is trained as one that every process holds: with :class:`optuna_aes.models.parallel.DataParallel`. For one to deploy,
    give what :func:`gathered` gives to :func:`optuna_aes.export.save_model`.

    Args:
        schema: The dataset's fields.
        sizes: Embedding size of every field by name, 0 for a dropped one.
        dim: The common width D.
        options: Backbone and the rest.
        shards: How to divide and update the tables.
        device: Where this process computes.
        seed: Seed of the initial values, which are others than an undivided model's.

    Raises:
        InputError: If TorchRec is not installed, the processes have no group, or the tables cannot be divided so.

    Example:
        >>> model = sharded_model(data.schema, sizes, dim=16, options=ModelOptions(), device="cuda:0")
        >>> Trainer(model, share_of(data.train), data.valid, options, device="cuda:0", hook=DataParallel(model)).run()
    """
    if not dist.is_initialized():
        raise InputError(
            "sharded_model needs processes in a group: start them with torchrun, and call init_process_group"
        )
    first_order = backbone_class(options.backbone).first_order
    with torch.device("meta"):  # its shapes and places only
        whole = MixedEmbedding(schema, sizes, dim=dim, align=options.align, first_order=first_order, std=0.0)
    place, shards = torch.device(device), shards or ShardOptions()
    embedding = ShardedEmbedding(schema, whole, shards, device=place, std=options.init_std, seed=seed)
    return CTRModel(schema, sizes, dim=dim, options=options, seed=seed, embedding=embedding).to(place)


class _Table(NamedTuple):
    """A field's table: the field's number, rows, columns, and its first row in an undivided model's tables.

    The first row is that in the table of its size, and that in the one of first-order weights.
    """

    field: int
    rows: int
    size: int
    in_group: int
    in_linear: int


_LINEAR = "embedding.linear.weight"
_SHARD = "embedding.shard."  # how the names of what a process holds begin in a model's state


class ShardedEmbedding(SelfUpdating):
    """What :class:`MixedEmbedding` is, divided over processes: a table for each field, its first-order weights as a column.

    All processes call it together, each with as many rows of its own.

    Args:
        schema: The dataset's fields.
        whole: The undivided embedding, on the meta device.
        options: How to divide and update the tables.
        device: Where this process computes.
        std: Standard deviation of the initial values.
        seed: Their seed.

    Raises:
        InputError: If TorchRec is not installed, or the tables cannot be divided so.
    """

    def __init__(
        self,
        schema: Schema,
        whole: MixedEmbedding,
        options: ShardOptions,
        *,
        device: torch.device,
        std: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.options, self.dim = options, whole.dim
        self.groups, self.widths = whole.groups, whole.widths
        self.names = [field.name for field in schema.fields]
        self.columns, self.bags = whole.layout.columns, whole.layout.bags
        self.has_linear = whole.linear is not None
        self.tables = list(_tables(schema, whole))
        if not self.tables:
            raise InputError(
                "sizes drops every field, and there are no first-order weights: there is nothing to divide"
            )
        self.maps = nn.ParameterDict()
        with seeded(seed):
            for size, value in whole.maps.items():
                bound = int(size) ** -0.5
                self.maps[size] = nn.Parameter(torch.empty(value.shape).uniform_(-bound, bound))
        # Not a module of this one: its parameters are updated in the backward pass, and its state knows of the group.
        self.parts = Divided(
            {self.names[t.field]: (t.rows, self._width(t)) for t in self.tables},
            sharding={self.names[t.field]: options.of(self.names[t.field]) for t in self.tables},
            optimizer=options.optimizer,
            lr=options.lr,
            l2=options.l2,
            device=device,
        )
        self._draw(std, seed)

    def places(self, table: _Table) -> Iterator[tuple[str, int, slice]]:
        """Where a field's columns lie in an undivided model's state: name, first row, and which columns they are here."""
        if table.size:
            yield f"embedding.tables.{table.size}.weight", table.in_group, slice(0, table.size)
        if self.has_linear:
            yield _LINEAR, table.in_linear, slice(table.size, table.size + 1)

    def rows_of(self, name: str) -> int:
        """Rows of a table of an undivided model."""
        return sum(table.rows for table in self.tables if name in (place for place, _, _ in self.places(table)))

    def _width(self, table: _Table) -> int:
        """Columns that are kept of a table."""
        return -(-(table.size + self.has_linear) // LANES) * LANES

    @torch.no_grad()
    def _draw(self, std: float, seed: int) -> None:
        """Initial values: as an undivided model's, those of a field's rows are normal, and 0 where nothing is known."""
        for number, table in enumerate(self.tables):
            for shard in self.parts.shards(self.names[table.field]):
                # Of the place in the table, so that no two processes draw the same.
                place = np.random.SeedSequence((seed, number, shard.first))
                draw = torch.Generator().manual_seed(int(place.generate_state(1)[0]))
                values = torch.zeros(shard.weight.shape)
                values[:, : table.size].normal_(0.0, std, generator=draw)
                if shard.first <= OOV < shard.first + len(values):
                    values[OOV - shard.first] = 0.0
                shard.weight.copy_(values)

    def scale_lr(self, share: float) -> None:
        """See :class:`SelfUpdating`."""
        self.parts.set_lr(self.options.lr * share)

    def forward(self, ids: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Looks up a batch; see :meth:`MixedEmbedding.forward`."""
        found = self.parts(*self._ragged(ids))
        groups = [self._group(size, fields, found) for size, fields in self.groups]
        if not groups:  # every field is dropped
            groups = [torch.zeros(len(ids), 0, 0, device=ids.device)]
        if not self.has_linear:
            return groups, None
        return groups, torch.stack([found[self.names[t.field]][:, t.size] for t in self.tables]).sum(0)

    def _group(self, size: int, fields: list[int], found: Mapping[str, Tensor]) -> Tensor:
        values = torch.stack([found[self.names[f]][:, :size] for f in fields], dim=1)
        return torch.einsum("bfd,fde->bfe", values, self.maps[str(size)]) if str(size) in self.maps else values

    def _ragged(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and their numbers per row, field by field: int64 of shape ``(ids,)``, int32 of shape ``(tables · batch,)``."""
        values, lengths = [], []
        for table in self.tables:
            block = ids[:, self.columns[table.field]]
            if self.bags[table.field]:
                there = block != PAD
                values.append(block[there])
                lengths.append(there.sum(1, dtype=torch.int32))
            else:
                values.append(block[:, 0])
                lengths.append(torch.ones(len(ids), dtype=torch.int32, device=ids.device))
        return torch.cat(values).long(), torch.cat(lengths)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Adds what this process holds of the tables and of their optimiser's state."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in self.parts.local():
            destination[f"{prefix}shard.{name}"] = tensor

    @torch.no_grad()
    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Puts back what :meth:`_save_to_state_dict` gave in a process that holds the same shares."""
        _, _, missing, unexpected, _ = rest
        known = {f"{prefix}shard.{name}": tensor for name, tensor in self.parts.local()}
        for name, tensor in known.items():
            if name in state_dict:
                tensor.copy_(state_dict[name])
            else:
                missing.append(name)
        mine = {name: value for name, value in state_dict.items() if not name.startswith(f"{prefix}shard.")}
        super()._load_from_state_dict(mine, prefix, *rest)
        unexpected += [n for n in state_dict if n.startswith(f"{prefix}shard.") and n not in known]


def _tables(schema: Schema, whole: MixedEmbedding) -> Iterator[_Table]:
    """A table for every field that has any columns, those of equal size next to each other."""
    starts = whole.layout.oov_rows
    group_of = {
        f: (size, start) for (size, fields), start in zip(whole.groups, whole.starts, strict=True) for f in fields
    }
    for field in sorted(range(len(starts)), key=starts.__getitem__):
        size, start = group_of.get(field, (0, 0))
        if size or whole.linear is not None:
            yield _Table(field, schema.fields[field].cardinality, size, starts[field] - start, starts[field])


@torch.no_grad()
def gathered(model: CTRModel) -> dict[str, Tensor] | None:
    """The state of the same model undivided, on the CPU of the first process; None in the others. All of them must call it.

    Args:
        model: What :func:`sharded_model` made.
    """
    embedding = _sharded(model)
    state: dict[str, Tensor] = {}
    for table in embedding.tables:
        part = embedding.parts.gather(embedding.names[table.field])
        if part is None:
            continue
        for name, first, columns in embedding.places(table):
            if name not in state:
                state[name] = torch.zeros(embedding.rows_of(name), columns.stop - columns.start)
            state[name][first : first + table.rows] = part[:, columns]
    if dist.get_rank() > 0:
        return None
    rest = {name: value.cpu() for name, value in model.state_dict().items() if not name.startswith(_SHARD)}
    return {**rest, **state}


@torch.no_grad()
def fill(model: CTRModel, state: Mapping[str, Tensor]) -> None:
    """Puts the weights of the same model undivided into one that is: each process takes what it holds.

    Args:
        model: What :func:`sharded_model` made.
        state: What :func:`gathered` gave, or an exported model's file, of which no more is read than is taken.
    """
    embedding = _sharded(model)
    for table in embedding.tables:
        for shard in embedding.parts.shards(embedding.names[table.field]):
            for name, first, columns in embedding.places(table):
                begin = first + shard.first
                shard.weight[:, columns] = state[name][begin : begin + len(shard.weight)].to(shard.weight.device)
    own = model.state_dict()
    model.load_state_dict({name: own[name] if name.startswith(_SHARD) else state[name] for name in own})


def _sharded(model: CTRModel) -> ShardedEmbedding:
    if not isinstance(model.embedding, ShardedEmbedding):
        raise InputError("model is not divided: make it with sharded_model")
    return model.embedding
