from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_aes.models.row_optimizers import (
    ROW_OPTIMIZERS,
    RowAdagrad,
    RowAdam,
    RowOptimizer,
)
from optuna_aes.models.rows import BatchRows, RowTable, sorted_stably


@pytest.mark.parametrize("total", [50, 100_000])  # marked, and sorted
def test_distinct_rows_are_ascending_and_rebuild_the_batch(total: int) -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (20, 3)))
    batch = BatchRows.of(ids, total)
    assert batch.rows.tolist() == sorted(set(ids.reshape(-1).tolist()))
    assert torch.equal(batch.rows[batch.inverse], ids)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("count", [0, 100, 12_288, 26_624, 32_767, 32_768, 50_000])
def test_rows_are_sorted_as_numpy_sorts_them_stably(count: int, dtype: torch.dtype) -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 1000, count)).to(dtype)
    values[::7] = torch.iinfo(dtype).max  # what short ones are filled up with
    ordered, order = sorted_stably(values)
    assert torch.equal(order, torch.from_numpy(values.numpy().argsort(kind="stable")))
    assert torch.equal(ordered, values[order])


@pytest.mark.parametrize("total", [50, 100_000])
@pytest.mark.parametrize("dim", [1, 5])
def test_lookup_gives_the_values_and_gradients_of_torch(total: int, dim: int) -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (20, 3)).astype(np.int32))
    batch = BatchRows.of(ids, total)
    weight, slope = torch.randn(total, dim, requires_grad=True), torch.randn(20, 3, dim)
    leaf = weight.detach()[batch.rows].requires_grad_()
    found, wanted = batch.lookup(leaf), torch.nn.functional.embedding(ids, weight)
    assert torch.equal(found, wanted)
    found.backward(slope)
    wanted.backward(slope)
    assert leaf.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(leaf.grad, weight.grad[batch.rows])
    # The gradient has one too, in what it sums.
    torch.autograd.gradgradcheck(batch.lookup, leaf.detach().double().requires_grad_())


@pytest.mark.parametrize("total", [30, 100_000])
def test_a_part_is_the_batch_of_its_columns(total: int) -> None:
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(np.stack([rng.integers(0, 9, 40), rng.integers(9, 30, 40), rng.integers(0, 9, 40)], axis=1))
    part = BatchRows.of(ids.int(), total).part(9, 30, torch.tensor([1]))
    assert torch.equal(part.rows[part.inverse] + 9, ids[:, 1:2])
    rest = BatchRows.of(ids.int(), total).part(0, 9, torch.tensor([0, 2]))
    assert torch.equal(rest.rows[rest.inverse], ids[:, [0, 2]])
    for piece in (part, rest):
        leaf, slope = torch.randn(len(piece.rows), 4, requires_grad=True), torch.randn(*piece.inverse.shape, 4)
        wanted = torch.zeros(len(piece.rows), 4).index_add(0, piece.inverse.reshape(-1).long(), slope.reshape(-1, 4))
        piece.lookup(leaf).backward(slope)
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, wanted)
    nothing = BatchRows.of(ids.int(), total).part(30, 35, torch.tensor([], dtype=torch.int64))
    assert len(nothing.rows) == 0


def test_an_empty_batch_has_no_rows() -> None:
    batch = BatchRows.of(torch.zeros(0, 3, dtype=torch.int64), 5)
    assert (batch.rows.shape, batch.inverse.shape) == ((0,), (0, 3))


def test_a_table_starts_as_told() -> None:
    table = RowTable(1000, 4, std=0.5, zero_rows=[0, 7], generator=torch.Generator().manual_seed(3))
    again = RowTable(1000, 4, std=0.5, zero_rows=[0, 7], generator=torch.Generator().manual_seed(3))
    assert torch.equal(table.weight, again.weight)
    assert table.weight.std() == pytest.approx(0.5, rel=0.05)
    assert (table.weight == 0).all(dim=1).nonzero().squeeze(1).tolist() == [0, 7]
    assert not RowTable(3, 2, std=0.0).weight.any()


def test_lookup_and_gather_agree_and_only_gather_takes_a_gradient() -> None:
    table = RowTable(6, 3)
    ids = torch.tensor([[4, 1], [1, 1]])
    batch = BatchRows.of(ids, 6)
    leaf = table.gather(batch.rows)
    assert torch.equal(leaf[batch.inverse], table.lookup(ids))
    (leaf[batch.inverse].sum(1) * torch.tensor([[1.0], [10.0]])).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[:, 0].tolist() == [21.0, 1.0]  # row 1 was read three times, row 4 once
    assert table.weight.grad is None
    assert not table.lookup(ids).requires_grad


def test_gather_without_gradients_leaves_nothing_to_update() -> None:
    table = RowTable(6, 3)
    with torch.no_grad():
        table.gather(torch.tensor([1]))
    assert table.touched is None


def reference_step(
    weight: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    grads: dict[int, np.ndarray],
    widths: dict[int, int],
    *,
    step: int,
    lr: float,
    l2: float,
) -> None:
    """Row-wise Adam, row by row and in float64."""
    for row, given in grads.items():
        d = widths[row]
        if d == 0:
            continue
        grad = given[:d] + l2 * weight[row, :d]
        mean[row, :d] = 0.9 * mean[row, :d] + 0.1 * grad
        square[row] = 0.999 * square[row] + 0.001 * (grad**2).mean()
        corrected = np.sqrt(square[row] / (1 - 0.999**step)) + 1e-8
        weight[row, :d] -= lr * mean[row, :d] / (1 - 0.9**step) / corrected


@pytest.mark.parametrize("kind", ROW_OPTIMIZERS)
def test_the_compiled_update_is_the_plain_one(kind: str) -> None:
    """As it is before a compiler sees it: what the compiler makes of it is tested with a whole training."""
    plain, other = (RowTable(9, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    ours, fused = (ROW_OPTIMIZERS[kind]({"t": table}, lr=0.01, l2=0.1) for table in (plain, other))
    fused.fused, fused.FUSED_FROM = fused.whole_rows, 0  # type: ignore[misc]
    for step in range(5):
        rows = torch.tensor([0, 3, 4 + step % 2])
        for table, optimizer in ((plain, ours), (other, fused)):
            (table.gather(rows) * torch.arange(9.0).view(3, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(other.weight.data, plain.weight.data)
    for name, moment in ours.moments("t").items():
        torch.testing.assert_close(fused.moments("t")[name], moment)


def random_steps(
    optimizer: RowOptimizer, *, partial: bool
) -> Iterator[tuple[torch.Tensor, dict[int, np.ndarray], dict[int, int]]]:
    """Does 30 steps; of each gives the table before it, and gradients and columns in use of the rows it touched."""
    (table,) = optimizer.tables.values()
    rows, dim = table.weight.shape
    rng = np.random.default_rng(1)
    for _ in range(30):
        before = table.weight.clone()
        chosen = np.sort(rng.choice(rows, 5, replace=False))
        grad = rng.normal(size=(5, dim)).astype(np.float32)
        used = rng.integers(0, dim + 1, 5) if partial else np.full(5, dim)
        leaf = table.gather(torch.from_numpy(chosen), torch.from_numpy(used) if partial else None)
        (leaf * torch.from_numpy(grad)).sum().backward()
        optimizer.step()
        touched = chosen.tolist()
        yield before, dict(zip(touched, grad, strict=True)), dict(zip(touched, used.tolist(), strict=True))


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("partial", [False, True])
def test_row_adagrad_sums_the_mean_square_of_the_columns_in_use(l2: float, partial: bool) -> None:
    rows, dim = 12, 4
    table = RowTable(rows, dim, std=1.0, generator=torch.Generator().manual_seed(0))
    optimizer = RowAdagrad({"t": table}, lr=0.05, l2=l2)
    weight, square = table.weight.double().numpy().copy(), np.zeros(rows)
    for before, grads, widths in random_steps(optimizer, partial=partial):
        for row, d in widths.items():
            grad = grads[row][:d] + l2 * weight[row, :d]
            square[row] += (grad**2).mean() if d else 0.0
            weight[row, :d] -= 0.05 * grad / (np.sqrt(square[row]) + 1e-8)
            assert torch.equal(table.weight[row, d:], before[row, d:])  # bit by bit
        np.testing.assert_allclose(table.weight.numpy(), weight, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(optimizer.square["t"].numpy(), square, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("partial", [False, True])
def test_row_adam_is_adam_with_one_second_moment_per_row(l2: float, partial: bool) -> None:
    rows, dim = 12, 4
    table = RowTable(rows, dim, std=1.0, generator=torch.Generator().manual_seed(0))
    optimizer = RowAdam({"t": table}, lr=0.05, l2=l2)
    weight = table.weight.double().numpy().copy()
    mean, square = np.zeros((rows, dim)), np.zeros(rows)
    for step, (before, grads, widths) in enumerate(random_steps(optimizer, partial=partial), start=1):
        reference_step(weight, mean, square, grads, widths, step=step, lr=0.05, l2=l2)
        np.testing.assert_allclose(table.weight.numpy(), weight, rtol=2e-4, atol=2e-5)
        for row in range(rows):
            width = widths.get(row, 0)
            assert torch.equal(table.weight[row, width:], before[row, width:])  # bit by bit
            if width:
                assert not torch.equal(table.weight[row, :width], before[row, :width])
    np.testing.assert_allclose(optimizer.mean["t"].numpy(), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(optimizer.square["t"].numpy(), square, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ROW_OPTIMIZERS)
def test_a_table_of_one_column_is_what_torch_makes_of_it(kind: str) -> None:
    """With one column the second moment of a row is that of its only value."""
    table = RowTable(5, 1, std=1.0)
    dense = torch.nn.Parameter(table.weight.detach().clone())
    ours = ROW_OPTIMIZERS[kind]({"t": table}, lr=0.01)
    theirs = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}[kind]([dense], lr=0.01)
    target = torch.arange(5.0).unsqueeze(1)
    for _ in range(20):
        (table.gather(torch.arange(5)) - target).square().sum().backward()
        theirs.zero_grad()
        (dense - target).square().sum().backward()
        ours.step()
        theirs.step()
    torch.testing.assert_close(table.weight.detach(), dense.detach(), rtol=1e-5, atol=1e-6)


def take_step(table: RowTable, optimizer: RowOptimizer, row: int) -> None:
    table.gather(torch.tensor([row])).square().sum().backward()
    optimizer.step()


def test_a_step_forgets_what_was_read_and_a_table_not_read_stays() -> None:
    read, other = RowTable(4, 2), RowTable(4, 2)
    optimizer = RowAdam({"read": read, "other": other}, lr=0.1)
    take_step(read, optimizer, 1)
    after, untouched = read.weight.clone(), other.weight.clone()
    optimizer.step()
    assert read.touched is None
    assert torch.equal(read.weight, after)
    assert torch.equal(other.weight, untouched)


def test_a_lookup_without_a_backward_pass_updates_nothing() -> None:
    table = RowTable(4, 2)
    optimizer, before = RowAdam({"t": table}, lr=0.1), table.weight.clone()
    table.gather(torch.tensor([1]))
    optimizer.step()
    assert torch.equal(table.weight, before)


@pytest.mark.parametrize("kind", ROW_OPTIMIZERS)
def test_state_goes_back_into_another_optimiser(kind: str) -> None:
    table = RowTable(4, 2, std=1.0)
    optimizer = ROW_OPTIMIZERS[kind]({"t": table}, lr=0.1)
    for row in (1, 2, 1):
        take_step(table, optimizer, row)
    copy = RowTable(4, 2)
    copy.load_state_dict(table.state_dict())
    resumed = ROW_OPTIMIZERS[kind]({"t": copy}, lr=0.1)
    saved: dict[str, Tensor] = {name: t.clone() for name, t in optimizer.state()}
    resumed.load(saved, optimizer.steps)
    for row in (1, 3):
        take_step(table, optimizer, row)
        take_step(copy, resumed, row)
    assert torch.equal(table.weight, copy.weight)
    assert not torch.equal(saved["t.square"], optimizer.square["t"])
