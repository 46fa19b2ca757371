"""Training steps in bfloat16: as good, and in float32 where a CPU has no instructions for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers import ids_of

from optuna_aes.data.dataset import Dataset
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.models import compiled, whole
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.precision import has_bfloat16
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer


@pytest.fixture(scope="module")
def data() -> Dataset:
    fields = (PlantedField("user", 60, 2), PlantedField("item", 40, 2), PlantedField("noise", 80, 0, main=0.0))
    return planted(fields, rows=(6000, 3000, 10), seed=0)


@pytest.fixture(autouse=True)
def instructions(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """What the CPU is said to have, whatever it has."""
    said = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: said)
    has_bfloat16.cache_clear()
    yield said
    has_bfloat16.cache_clear()


def trainer(data: Dataset, *, amp: bool = True, whole_tables: bool = False) -> Trainer:
    options = ModelOptions(hidden=(16,), init_std=0.1)
    model = CTRModel(data.schema, {f.name: 4 for f in data.schema.fields}, dim=4, options=options)
    train = TrainOptions(epochs=6, batch_size=128, lr=1e-2, patience=0, amp=amp, compile=whole_tables)
    made = Trainer(model, data.train, data.valid, train)
    assert (made.whole is not None) == whole_tables
    return made


@pytest.mark.parametrize("whole_tables", [False, True], ids=["by the row", "whole tables"])
def test_bfloat16_comes_to_the_same_auc(monkeypatch: pytest.MonkeyPatch, data: Dataset, whole_tables: bool) -> None:
    for module in (compiled, whole):
        monkeypatch.setattr(module, "compiled", lambda function, **_: function)
    seen: list[torch.dtype] = []
    exact, half = trainer(data, amp=False), trainer(data, whole_tables=whole_tables)
    handle = half.model.backbone.tower.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    with torch.random.fork_rng():
        exact.run()
        half.run()
    # Training in bfloat16, validation not.
    assert set(seen[: half.steps_per_epoch]) == {torch.bfloat16}
    assert seen[half.steps_per_epoch] == torch.float32
    handle.remove()
    assert exact.best_auc > 0.7
    assert half.best_auc == pytest.approx(exact.best_auc, abs=0.003)
    assert half.best_auc != exact.best_auc
    assert all(value.dtype == torch.float32 for value in half.model.state_dict().values() if value.is_floating_point())


def test_without_instructions_training_is_in_float32_and_says_so_once(
    data: Dataset, instructions: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    instructions["avx512_bf16"] = False
    ids, labels = ids_of(data.valid, 50), torch.zeros(50)
    exact, *made = (trainer(data, amp=amp) for amp in (False, True, True))
    for one in made:
        assert torch.equal(one._losses(ids, labels), exact._losses(ids, labels))
    assert [record.message for record in caplog.records] == [
        "amp needs a CPU with bfloat16 instructions (AVX512_BF16 or AMX), and this one has none: trains in float32"
    ]


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_asked_whether_it_multiplies_bfloat16_by_itself(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], caplog: pytest.LogCaptureFixture, native: bool
) -> None:
    instructions.clear()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    assert has_bfloat16("cuda") == native
    assert [record.message for record in caplog.records] == [
        "amp needs a GPU with bfloat16 instructions (compute capability 8.0 or later), and this one has none: "
        "trains in float32"
    ][native:]
