from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import PLAIN, WITH_BAG, fields_for, ids_of, tiny_split
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.group import GroupProducts
from optuna_aes.models.backbones.registry import BACKBONES
from optuna_aes.models.model import CTRModel, ModelOptions, row_tables
from optuna_aes.models.row_optimizers import RowAdam
from optuna_aes.models.sharing import PrefixEmbedding, SeparateEmbedding
from optuna_aes.models.supernet import SubnetScorer, Supernet

CANDIDATES = (0, 1, 2, 4)
PATHS = np.array([[3, 3, 3, 3], [0, 1, 2, 3], [2, 2, 0, 0], [0, 0, 0, 0], [1, 3, 1, 3], [0, 2, 0, 2]])


def make(
    sharing: str = "prefix", schema: Schema = WITH_BAG, *, candidates: tuple[int, ...] = CANDIDATES, **options: object
) -> Supernet:
    """A supernet with weights large enough to tell subnets apart."""
    supernet = Supernet(
        schema, candidates, options=ModelOptions(hidden=(16, 8), init_std=0.7, **options), sharing=sharing
    )
    generator = torch.Generator().manual_seed(9)
    if supernet.embedding.linear is not None:
        supernet.embedding.linear.weight.normal_(generator=generator)
    if isinstance(supernet.embedding, SeparateEmbedding):
        supernet.embedding.running_mean.normal_(generator=generator)
        supernet.embedding.running_var.uniform_(0.5, 2.0, generator=generator)
        with torch.no_grad():
            supernet.embedding.gain.uniform_(0.5, 2.0, generator=generator)
    return supernet


def plain(supernet: Supernet, path: np.ndarray, ids: Tensor, *, gradients: bool = False) -> Tensor:
    supernet.eval()
    supernet.embedding.set_paths(path[None])
    with torch.set_grad_enabled(gradients):
        return supernet(ids).detach()


@pytest.mark.parametrize("schema", [WITH_BAG, PLAIN], ids=["bags", "plain"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("sharing", ["prefix", "separate"])
def test_group_scoring_equals_a_plain_forward_pass(
    sharing: str, backbone: str, batch_norm: bool, schema: Schema
) -> None:
    schema = fields_for(backbone, schema)
    supernet = make(sharing, schema, backbone=backbone, batch_norm=batch_norm, dropout=0.5)
    ids = ids_of(tiny_split(schema, rows=90))
    paths = PATHS[:, : len(schema.fields)]
    scored = supernet.logits(paths, ids)
    assert scored.shape == (len(paths), 90)
    for path, logits in zip(paths, scored, strict=True):
        for gradients in (False, True):
            # Batch norm magnifies the rounding of units that hardly vary.
            expected = plain(supernet, path, ids, gradients=gradients)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=5e-5 if batch_norm else 1e-5)
    # An FM makes of a field alone what it makes of none.
    told_apart = (paths > 0).sum(1) != 1 if backbone == "fm" else np.full(len(paths), True)
    distinct = {tuple(row.tolist()) for row, told in zip(scored, told_apart, strict=True) if told}
    assert len(distinct) == len({tuple(p) for p in paths[told_apart].tolist()})


@pytest.mark.parametrize("sharing", ["prefix", "separate"])
@pytest.mark.parametrize("block", [1, 7, 89, 90, 1000])
def test_blocks_change_nothing(sharing: str, block: int) -> None:
    supernet = make(sharing)
    ids = ids_of(tiny_split(WITH_BAG, rows=90))
    torch.testing.assert_close(supernet.logits(PATHS, ids, block=block), supernet.logits(PATHS, ids))


def test_no_block_is_longer_than_asked_for_and_none_is_a_single_row(monkeypatch: pytest.MonkeyPatch) -> None:
    supernet = make(batch_norm=True)
    lengths: list[int] = []
    bank = supernet.embedding.bank
    monkeypatch.setattr(supernet.embedding, "bank", lambda ids: lengths.append(len(ids)) or bank(ids))
    supernet.logits(PATHS[:1], ids_of(tiny_split(WITH_BAG, rows=89)), block=44)
    assert lengths == [30, 30, 29]


def test_no_paths_make_no_logits() -> None:
    assert make().logits(PATHS[:0], ids_of(tiny_split(WITH_BAG, rows=9))).shape == (0, 9)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_mode_and_weights_as_they_were(training: bool) -> None:
    supernet = make("separate", batch_norm=True)
    supernet.train(training)
    before = {n: t.clone() for n, t in supernet.state_dict().items()}
    supernet.logits(PATHS, ids_of(tiny_split(WITH_BAG, rows=50)))
    assert all(module.training == training for module in supernet.modules())
    assert all(torch.equal(t, before[n]) for n, t in supernet.state_dict().items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_prefix_subnet_is_a_right_sized_model_with_the_first_columns(backbone: str) -> None:
    """The claim that makes inherited weights mean something: cut out the subnet, and nothing changes."""
    schema = fields_for(backbone, WITH_BAG)
    supernet = make("prefix", schema, backbone=backbone)
    path = np.array([1, 3, 0, 3])[: len(schema.fields)]
    names = [f.name for f in schema.fields]
    sizes = {name: CANDIDATES[k] for name, k in zip(names, path, strict=True)}
    model = CTRModel(schema, sizes, dim=4, options=ModelOptions(backbone=backbone, hidden=(16, 8)))
    inside, outside = supernet.embedding, model.embedding
    assert isinstance(inside, PrefixEmbedding)
    columns = []
    for (size, fields), start in zip(outside.groups, outside.starts, strict=True):
        for f in fields:
            rows = schema.fields[f].cardinality
            to, source = outside.layout.oov_rows[f] - start, inside.layout.oov_rows[f]
            outside.tables[str(size)].weight[to : to + rows] = inside.table.weight[source : source + rows, :size]
            columns += [f * 4 + c for c in range(size)]
    if outside.linear is not None:
        for f, field in enumerate(schema.fields):
            to, source = outside.layout.oov_rows[f], inside.layout.oov_rows[f]
            outside.linear.weight[to : to + field.cardinality] = inside.linear.weight[
                source : source + field.cardinality
            ]
    weights = supernet.backbone.state_dict()
    for name, weight in weights.items():
        crossed = name.startswith("cross.layers")  # as wide at their outputs as at their inputs
        kept = weight[columns] if crossed else weight
        over_inputs = name in ("tower.hidden.0.weight", "cross.out.weight") or (crossed and weight.ndim == 2)
        weights[name] = kept[:, columns] if over_inputs else kept
    if backbone == "neumf":
        weights["product.weight"] = weights["product.weight"][:, : min(sizes.values())]
    if backbone == "autoint":
        by_field = weights["out.weight"].view(len(schema.fields), -1)
        weights["out.weight"] = by_field[[f for _, fields in outside.groups for f in fields]].view(1, -1)
    model.backbone.load_state_dict(weights)
    ids = ids_of(tiny_split(schema, rows=60))
    torch.testing.assert_close(supernet.logits(path[None], ids)[0], model(ids).detach(), rtol=1e-4, atol=1e-5)


def test_a_separate_candidate_is_its_own_table_mapped_and_normalised() -> None:
    embedding = make("separate").embedding.eval()
    assert isinstance(embedding, SeparateEmbedding)
    ids = ids_of(tiny_split(WITH_BAG, rows=30))
    path = np.array([2, 0, 3, 1])
    embedding.set_paths(path[None])
    ((group,), _) = embedding(ids)
    rows = embedding.layout.rows(ids)
    for f, k in enumerate(path):
        if k == 0:
            assert not group[:, f].any()
            continue
        columns = embedding.layout.columns_of([f])
        values = embedding.layout.pool(embedding.tables[str(k)].weight[rows[:, columns]], ids, [f])[:, 0]
        mapped = values @ embedding.maps[str(k)][f]
        mean, var = embedding.running_mean[k, f], embedding.running_var[k, f]
        normed = (mapped - mean) / torch.sqrt(var + 1e-5) * embedding.gain[k, f]
        torch.testing.assert_close(group[:, f], normed, rtol=1e-4, atol=1e-5)


def test_training_moves_the_statistics_of_the_chosen_candidates_only() -> None:
    embedding = make("separate").embedding.train()
    before = embedding.running_mean.clone(), embedding.running_var.clone()
    path = np.array([2, 0, 3, 2])
    embedding.set_paths(path[None])
    ((group,), _) = embedding(ids_of(tiny_split(WITH_BAG, rows=64)))
    chosen = torch.zeros(4, 4, dtype=torch.bool)
    chosen[[2, 3, 2], [0, 2, 3]] = True
    for old, new in zip(before, (embedding.running_mean, embedding.running_var), strict=True):
        assert torch.equal((old != new).any(dim=2), chosen)
    used = group[:, [0, 2, 3]] / embedding.gain[[2, 3, 2], [0, 2, 3]].unsqueeze(1)
    torch.testing.assert_close(used.mean(0), torch.zeros(3, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(used.var(0, unbiased=False), torch.ones(3, 4), rtol=0, atol=1e-2)


@pytest.mark.parametrize("backbone", ["mlp", "autoint"])
def test_a_batch_is_cut_into_equal_pieces_one_for_each_path(backbone: str) -> None:
    supernet = make("prefix", backbone=backbone)
    ids = ids_of(tiny_split(WITH_BAG, rows=60))
    supernet.embedding.set_paths(PATHS[:3])
    together = supernet(ids)
    for i, path in enumerate(PATHS[:3]):
        piece = slice(20 * i, 20 * (i + 1))
        torch.testing.assert_close(together[piece].detach(), plain(supernet, path, ids[piece]))


def train_once(supernet: Supernet, paths: np.ndarray, update: np.ndarray | None = None) -> dict[str, Tensor]:
    """Table weights before and changes after two steps, the second of which has moments to be tempted by."""
    supernet.train()
    ids = ids_of(tiny_split(WITH_BAG, rows=60))
    optimizer = RowAdam(row_tables(supernet), lr=0.1, l2=0.01)
    supernet.embedding.set_paths(PATHS[:1])
    supernet(ids).square().sum().backward()
    optimizer.step()
    before = {n: t.weight.clone() for n, t in row_tables(supernet).items()}
    supernet.embedding.set_paths(paths, update)
    supernet(ids).square().sum().backward()
    optimizer.step()
    return {n: t.weight != before[n] for n, t in row_tables(supernet).items()}


def by_field(supernet: Supernet, changed: Tensor) -> list[Tensor]:
    """For every field, which columns of its rows changed."""
    starts = [*supernet.embedding.layout.oov_rows, supernet.embedding.layout.total_rows]
    return [changed[a:b].any(dim=0) for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize(
    ("paths", "update", "widths"),
    [
        ([[0, 1, 2, 3]], None, [0, 1, 2, 4]),
        ([[0, 1, 2, 3], [2, 0, 1, 0]], None, [2, 1, 2, 4]),  # the widest path of the batch
        ([[3, 3, 3, 3]], [True, False, True, False], [4, 0, 4, 0]),
    ],
)
def test_a_prefix_step_changes_only_the_columns_of_its_paths(
    paths: list[list[int]], update: list[bool] | None, widths: list[int]
) -> None:
    supernet = make("prefix")
    changed = train_once(supernet, np.array(paths), None if update is None else np.array(update))
    for columns, width in zip(by_field(supernet, changed["embedding.table"]), widths, strict=True):
        assert columns.tolist() == [c < width for c in range(4)]


@pytest.mark.parametrize("update", [None, [True, True, False, True]])
def test_a_separate_step_changes_only_the_tables_of_its_path(update: list[bool] | None) -> None:
    supernet = make("separate")
    path = np.array([[1, 3, 2, 0]])
    changed = train_once(supernet, path, None if update is None else np.array(update))
    for k in (1, 2, 3):
        fields = [bool(c.any()) for c in by_field(supernet, changed[f"embedding.tables.{k}"])]
        assert fields == [int(p) == k and (update is None or update[f]) for f, p in enumerate(path[0])]


def test_the_seed_makes_the_weights_and_the_callers_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    nets = [Supernet(PLAIN, CANDIDATES, options=ModelOptions(), seed=s) for s in (4, 4, 5)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (n.embedding.table.weight for n in nets)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InputError, match="sharing='both' is not known"):
        Supernet(PLAIN, CANDIDATES, options=ModelOptions(), sharing="both")
    supernet = make("separate")
    supernet.embedding.set_paths(PATHS[:2])
    with pytest.raises(InputError, match="one path a step"):
        supernet(ids_of(tiny_split(WITH_BAG, rows=8)))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("sharing", ["prefix", "separate"])
def test_a_path_without_fields_has_a_gradient(sharing: str, backbone: str) -> None:
    schema = fields_for(backbone, WITH_BAG)
    supernet = make(sharing, schema, backbone=backbone).train()
    supernet.embedding.set_paths(PATHS[3:4, : len(schema.fields)])
    F.softplus(supernet(ids_of(tiny_split(schema, rows=20)))).sum().backward()
    (bias,) = (p for n, p in supernet.backbone.named_parameters() if n in ("bias", "out.bias", "tower.out.bias"))
    assert bias.grad.item() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in supernet.backbone.parameters())


@pytest.mark.parametrize("rows", [500, 1000])
def test_the_scorer_gives_the_auc_of_the_same_rows_each_time(rows: int) -> None:
    supernet, split = make("prefix"), tiny_split(WITH_BAG, rows=800)
    scorer = SubnetScorer(supernet, split, rows=rows, seed=3, block=333)
    again = SubnetScorer(supernet, split, rows=rows, seed=3)
    assert len(scorer.ids) == min(rows, 800)
    assert torch.equal(scorer.ids, again.ids)
    scores = scorer(PATHS)
    assert scores.dtype == np.float64
    for path, score in zip(PATHS, scores, strict=True):
        logits = plain(supernet, path, scorer.ids).numpy()
        assert score == pytest.approx(roc_auc_score(scorer.labels, logits), abs=1e-6)
    np.testing.assert_array_equal(scores, scorer(PATHS))
    np.testing.assert_allclose(scores, again(PATHS), atol=1e-6)
    if rows < 800:
        other = SubnetScorer(supernet, split, rows=rows, seed=4)
        assert not torch.equal(scorer.ids, other.ids)
    else:
        assert torch.equal(scorer.ids, ids_of(split))


@pytest.mark.parametrize("backbone", ["deepfm", "autoint"])
@pytest.mark.parametrize("room", [0, 20_000, 10**9])
def test_what_is_kept_changes_no_score_and_is_bounded(
    backbone: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    supernet = make("prefix", backbone=backbone)
    split = tiny_split(WITH_BAG, rows=800)
    fresh, holding = (SubnetScorer(supernet, split, block=100) for _ in range(2))
    holding.keep_embeddings(room)
    expected = fresh(PATHS)
    np.testing.assert_array_equal(holding(PATHS), expected)
    looked_up: list[int] = []
    bank = supernet.embedding.bank
    monkeypatch.setattr(supernet.embedding, "bank", lambda ids: looked_up.append(len(ids)) or bank(ids))
    np.testing.assert_array_equal(holding(PATHS), expected)
    assert holding.kept_bytes <= room
    held = 8 - len(looked_up)
    assert (held == 0) == (room == 0)
    assert (held == 8) == (room == 10**9)


def test_more_than_half_of_a_group_shares_a_product_and_logits_stay_the_same() -> None:
    supernet = make("prefix", backbone="deepfm")
    ids = ids_of(tiny_split(WITH_BAG, rows=90))
    like = np.array([[3, 1, 2, 0]] * 7)
    like[np.arange(7), np.arange(7) % 4] = 3 - like[np.arange(7), np.arange(7) % 4]
    columns = supernet.embedding.columns(like)
    products = GroupProducts(supernet.backbone.tower.first.weight, supernet.backbone.tower.first.bias, columns)
    multiplied = len(products.common[0]) + sum(len(at) for _, (at, _) in products.own)
    assert multiplied < 0.6 * columns.used.sum()
    alone = torch.cat([supernet.logits(path[None], ids) for path in like])
    torch.testing.assert_close(supernet.logits(like, ids), alone, rtol=1e-5, atol=1e-5)


def test_a_subnet_without_columns_scores_nothing_in_any_company() -> None:
    supernet = make("prefix", PLAIN, backbone="mlp", batch_norm=True)
    paths = np.array([[3, 3, 3], [3, 3, 2], [0, 0, 0], [3, 2, 3], [3, 3, 3]])
    scorer = SubnetScorer(supernet, tiny_split(PLAIN, rows=300))
    assert scorer(paths)[2] == 0.5
