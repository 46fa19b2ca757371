"""Tables divided over the processes of a group by TorchRec: its planner, its collection of tables, and what is kept where."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from optuna_aes.errors import InputError

OPTIMIZERS = {"adagrad": "EXACT_ROWWISE_ADAGRAD", "adam": "PARTIAL_ROWWISE_ADAM"}

_PIECE = 2**18  # rows that are sent at a time when a table is gathered


class Shard(NamedTuple):
    """Rows of a table that this process holds: the number of the first one, and their weights, which are the live ones."""

    first: int
    weight: Tensor


class Divided:
    """A TorchRec collection of tables, mean-pooled, that updates itself in the backward pass.

    Args:
        tables: Rows and columns of each table by name.
        sharding: How to divide each: ``"row_wise"``, ``"table_wise"``, or ``"auto"``, which is the planner's choice.
        optimizer: A key of ``OPTIMIZERS``.
        lr: Learning rate.
        l2: Weight decay, added to the gradient.
        device: Where this process computes.

    Raises:
        InputError: If TorchRec is not installed, or the tables do not fit.
    """

    def __init__(
        self,
        tables: Mapping[str, tuple[int, int]],
        *,
        sharding: Mapping[str, str],
        optimizer: str,
        lr: float,
        l2: float,
        device: torch.device,
    ) -> None:
        if optimizer == "adam" and device.type == "cpu":
            raise InputError("optimizer='adam' is not there on the CPU, where FBGEMM has none: give 'adagrad'")
        with _quiet():
            try:
                from fbgemm_gpu.split_embedding_configs import EmbOptimType
                from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
                from torchrec.distributed.types import ShardingEnv
                from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
                from torchrec.modules.embedding_modules import EmbeddingBagCollection
            except (ImportError, OSError) as error:
                raise InputError(
                    f"tables are divided by TorchRec, which cannot be imported ({' '.join(str(error).split())}): see Install "
                    "in the README"
                ) from None
            update = {"optimizer": EmbOptimType[OPTIMIZERS[optimizer]], "learning_rate": lr, "eps": 1e-8}
            decay = {"weight_decay": l2, "weight_decay_mode": WeightDecayMode.L2} if l2 else {}
            whole = EmbeddingBagCollection(
                tables=[
                    EmbeddingBagConfig(
                        name=name,
                        feature_names=[name],
                        num_embeddings=rows,
                        embedding_dim=width,
                        pooling=PoolingType.MEAN,
                    )
                    for name, (rows, width) in tables.items()
                ],
                device=torch.device("meta"),
            )
            sharder = _sharder({**update, **decay})
            plan = _planned(whole, sharder, sharding, device)
            env = ShardingEnv.from_process_group(dist.group.WORLD)
            self.collection = sharder.shard(whole, plan.plan[""], env, device)
        self.names = list(tables)

    def __call__(self, values: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """The mean of each row's values, by table, of shape ``(batch, columns)``.

        Args:
            values: Row numbers, table by table and sample by sample, int64 of shape ``(values,)``.
            lengths: How many each sample has, int32 of shape ``(tables · batch,)``.
        """
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ragged = KeyedJaggedTensor.from_lengths_sync(keys=self.names, values=values, lengths=lengths)
            found: dict[str, Tensor] = self.collection(ragged).wait().to_dict()
        return found

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate."""
        optimizer = self.collection.fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()  # which does no more than to pass it on

    def shards(self, name: str) -> list[Shard]:
        """What this process holds of a table."""
        return [Shard(int(s.metadata.shard_offsets[0]), s.tensor.detach()) for s in self._weight(name).local_shards()]

    def local(self) -> Iterator[tuple[str, Tensor]]:
        """All that this process holds, weights and the optimiser's state, by name."""
        for name in self.names:
            for shard in self.shards(name):
                yield f"{name}.{shard.first}", shard.weight
        for key, state in self.collection.fused_optimizer.state_dict()["state"].items():
            for kind, value in state.items():
                for shard in value.local_shards() if hasattr(value, "local_shards") else ():
                    yield f"{kind}.{key}.{shard.metadata.shard_offsets[0]}", shard.tensor

    def gather(self, name: str) -> Tensor | None:
        """A table, on the CPU of the first process; None in the others. All of them must call it."""
        weight, rank = self._weight(name), dist.get_rank()
        mine = {shard.first: shard.weight for shard in self.shards(name)}
        out = torch.empty(tuple(weight.size())) if rank == 0 else None
        for shard in weight.metadata().shards_metadata:
            (first, _), (rows, columns) = shard.shard_offsets, shard.shard_sizes
            owner = shard.placement.rank()
            for start in range(0, rows, _PIECE):
                count = min(_PIECE, rows - start)
                piece = mine[first][start : start + count].contiguous() if rank == owner else None
                if owner != 0 and piece is not None:
                    dist.send(piece, 0)
                if out is None:
                    continue
                if piece is None:
                    piece = torch.empty(count, columns, device=shard.placement.device().type)
                    dist.recv(piece, owner)
                out[first + start : first + start + count] = piece.cpu()
        return out

    def _weight(self, name: str) -> Any:
        return self.collection.state_dict()[f"embedding_bags.{name}.weight"]


def _sharder(update: Mapping[str, Any]) -> Any:
    """What divides the collection: whole rows, or whole tables, updated in the backward pass."""
    from torchrec.distributed.embedding_types import EmbeddingComputeKernel
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.types import ShardingType

    class Sharder(EmbeddingBagCollectionSharder):  # type: ignore[misc]  # an extra, without types here
        def sharding_types(self, compute_device_type: str) -> list[str]:
            return [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]  # the latter on the CPU too

        def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
            return [EmbeddingComputeKernel.FUSED.value]

    return Sharder(fused_params=dict(update))


def _planned(whole: Any, sharder: Any, sharding: Mapping[str, str], device: torch.device) -> Any:
    """A plan that all processes agree on."""
    from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
    from torchrec.distributed.planner.types import PlannerError

    processes = dist.get_world_size()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if device.type == "cuda":
        memory = {"hbm_cap": torch.cuda.get_device_properties(device).total_memory}
    else:
        memory = {"ddr_cap": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // here}
    topology = Topology(world_size=processes, local_world_size=here, compute_device=device.type, **memory)
    fixed = {name: ParameterConstraints(sharding_types=[kind]) for name, kind in sharding.items() if kind != "auto"}
    planner = EmbeddingShardingPlanner(topology=topology, constraints=fixed, debug=False, stats=[])
    try:
        return planner.collective_plan(whole, [sharder], dist.group.WORLD)
    except PlannerError as error:
        told = " ".join(str(error).split())[:300]
        raise InputError(f"the tables cannot be divided over {processes} processes: {told}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what TorchRec says to whoever works on it."""
    logger = logging.getLogger("torchrec")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
