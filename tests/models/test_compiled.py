from __future__ import annotations

import shutil

import pytest
import torch
from helpers import PLAIN, tiny_dataset

from optuna_aes.models import precision
from optuna_aes.models.backbones.base import Backbone
from optuna_aes.models.compiled import can_compile
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.row_optimizers import RowOptimizer
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer


def trainer(*, compile: bool, dropout: float = 0.2, tables: str = "adam", amp: bool = False) -> Trainer:
    data = tiny_dataset(PLAIN)
    options = ModelOptions(backbone="deepfm", hidden=(8,), dropout=dropout)
    sizes = {field.name: 2 + 2 * (i % 2) for i, field in enumerate(PLAIN.fields)}
    model = CTRModel(PLAIN, sizes, dim=4, options=options, seed=0)
    train = TrainOptions(epochs=2, batch_size=64, lr=0.01, l2=0.01, patience=0, compile=compile, tables=tables, amp=amp)
    return Trainer(model, data.train, data.valid, train, seed=3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compilation for the CPU needs a C++ compiler")
@pytest.mark.parametrize(
    ("dropout", "tables", "amp"),
    [(0.2, "adam", False), *((0.0, tables, amp) for tables in ("adam", "adagrad") for amp in (False, True))],
    ids=["dropout", "whole tables", "whole tables, bfloat16", "by the row", "by the row, bfloat16"],
)
def test_compiled_training_differs_by_rounding_only_and_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch, dropout: float, tables: str, amp: bool
) -> None:
    monkeypatch.setattr(RowOptimizer, "FUSED_FROM", 0)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)  # a CPU without imitates it
    plain, compiled = (trainer(compile=on, dropout=dropout, tables=tables, amp=amp) for on in (False, True))
    assert plain.amp == compiled.amp == amp
    assert (compiled.whole is None) == (bool(dropout) or tables == "adagrad")
    assert bool(compiled.compiled.fast) == (not dropout)
    wanted, found = plain.run(), compiled.run()
    assert [e.loss for e in found] == pytest.approx([e.loss for e in wanted], abs=1e-4)
    assert [e.auc for e in found] == pytest.approx([e.auc for e in wanted], abs=2e-3)
    weights = plain.model.state_dict()
    for name, value in compiled.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=1e-3, rtol=1e-2)
    backbones = [module for module in compiled.model.modules() if isinstance(module, Backbone)]
    assert all("forward" not in vars(module) for module in backbones)


def test_without_a_compiler_training_is_as_ever_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    can_compile.cache_clear()
    wanted = trainer(compile=False).run()
    made = [trainer(compile=True) for _ in range(2)]
    can_compile.cache_clear()
    assert [e.loss for e in made[0].run()] == [e.loss for e in wanted]
    assert [r.message for r in caplog.records] == [
        "compile needs a C++ compiler, and there is none here: trains uncompiled; install g++ to be faster"
    ]
