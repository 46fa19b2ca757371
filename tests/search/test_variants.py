from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ids_of
from tiny_search import STRATEGY, Heard, tiny_data, tiny_search, tiny_task

from optuna_aes import AdaSS, Search, load_model
from optuna_aes.errors import InputError, StorageError
from optuna_aes.models.backbones.cross import DCNv2
from optuna_aes.models.model import CTRModel
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.read import open_record
from optuna_aes.search.retrain import build_model
from optuna_aes.search.variant import Variant
from optuna_aes.storage import open_storage
from optuna_aes.strategies.base import Strategy
from optuna_aes.strategies.baselines.scratch import RetrainTPE
from optuna_aes.strategies.ihas.strategy import IHAS
from optuna_aes.strategies.pruning.magnitude import Magnitude


def sizes_of(search: Search) -> list[dict[str, int]]:
    return [p.sizes for p in search.pareto().points]


def test_sizes_found_with_one_backbone_are_retrained_in_another(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/aes.db"
    search = tiny_search(storage, tiny_data())
    own = search.run()
    other = search.variant(backbone="dcnv2")
    result = other.run(["retrain"])
    assert other.context.studies.retrain.study_name == "tiny/retrain@dcnv2"
    assert (result.backbone, result.variant, result.title) == ("dcnv2", "dcnv2", "tiny@dcnv2")
    assert json.loads(json.dumps(result.to_json()))["variant"] == "dcnv2"
    assert sizes_of(other) == sizes_of(search)
    assert [p.search_trial for p in result.points] == [p.search_trial for p in own.points]
    assert all(a.auc_test != b.auc_test for a, b in zip(result.points, own.points, strict=True))
    assert search.pareto() == own  # the search's own points are what they were

    # From the storage alone, as the command line has it.
    record = open_record("tiny", storage, Variant("dcnv2"))
    assert record.settings["model"]["backbone"] == "dcnv2"
    model = load_model(other.export(tmp_path / "model"))
    assert isinstance(model, CTRModel)
    assert isinstance(model.backbone, DCNv2)
    best = result.best
    assert best is not None
    facts = json.loads((tmp_path / "model/sizes.json").read_text())
    assert facts["metrics"]["auc_test"] == pytest.approx(best.auc_test)

    heard = Heard()
    again = tiny_search(storage, tiny_data(), listener=heard).variant(backbone="dcnv2")
    assert again.run(["retrain"]) == result
    assert heard.count("retrained") == 0


def test_a_variant_is_begun_without_retraining_the_search_itself(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/aes.db"
    search = tiny_search(storage, tiny_data())
    search.run(["fit", "search"])
    variant = search.variant(backbone="mlp", inherited=False)
    assert variant.run(["retrain"]).points
    assert not search.pareto().points
    picks = search.picks()
    search.run(["retrain"])
    assert search.picks() == picks == variant.picks()
    assert sizes_of(search) == sizes_of(variant)


def test_the_searchs_own_backbone_is_no_variant(tmp_path: Path) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data())
    assert search.variant(backbone="deepfm") is search


@pytest.mark.parametrize("strategy", [STRATEGY, Magnitude(score_rows=1000)], ids=["adass", "magnitude"])
@pytest.mark.parametrize("backbone", ["deepfm", "dcnv2", "mlp", "fm", "widedeep"])
def test_inherited_models_begin_as_the_supernets_subnets(tmp_path: Path, strategy: Strategy, backbone: str) -> None:
    data = tiny_data()
    task = tiny_task(data)
    task = replace(task, model=replace(task.model, backbone=backbone))
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", data, task=task, strategy=strategy)
    search.run(["fit", "search"])
    variant = search.variant(inherited=True)
    supernet = load_supernet(search.context)
    ids, space = ids_of(data.test, 200), search.context.space
    moved = strategy.name == "magnitude" and backbone in (
        "deepfm",
        "fm",
    )  # products of columns that do not stay in place
    for sizes in ({"user": 4, "item": 2, "hour": 0, "noise": 2}, space.uniform(2)):
        model = build_model(variant.context, sizes, 0).eval()
        with torch.no_grad():
            expected = supernet.logits(space.to_indices(sizes)[np.newaxis], ids)[0]
            assert moved or torch.allclose(model(ids), expected, atol=1e-5)
        scratch = build_model(search.context, sizes, 0).eval()
        with torch.no_grad():
            assert not torch.allclose(scratch(ids), expected, atol=1e-3)


def test_inherited_weights_are_trained_on(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/aes.db"
    search = tiny_search(storage, tiny_data())
    search.run()
    result = search.variant(inherited=True).run(["retrain"])
    assert result.title == "tiny@inherited"
    assert sizes_of(search.variant(inherited=True)) == sizes_of(search)
    assert open_record("tiny", storage, Variant(inherited=True)).variant.inherited


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (IHAS(clusters=(1,), score_rows=1000), "no supernet whose weights"),
        (RetrainTPE(), "no supernet whose weights"),
        (AdaSS(sharing="separate", sampling=replace(STRATEGY.sampling, paths=1)), "one table per field"),
    ],
    ids=["ihas", "retrain-tpe", "separate"],
)
def test_where_there_is_nothing_to_inherit(tmp_path: Path, strategy: Strategy, text: str) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data(), strategy=strategy)
    with pytest.raises(InputError, match=text):
        search.variant(inherited=True)


def test_what_is_no_variant(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/aes.db"
    search = tiny_search(storage, tiny_data())
    with pytest.raises(InputError, match="give one of the two"):
        search.variant(backbone="mlp", inherited=True)
    with pytest.raises(InputError, match="backbone='nope' is not known"):
        search.variant(backbone="nope")
    with pytest.raises(InputError, match="takes two fields"):
        search.variant(backbone="neumf")
    with pytest.raises(StorageError, match="run optuna-aes retrain --backbone mlp first"):
        open_record("tiny", storage, Variant("mlp"))
    with pytest.raises(InputError, match="ends like"):
        tiny_search(storage, tiny_data(), name="tiny/retrain@mlp")
    names = {s.study_name for s in open_storage(storage).get_all_studies()}
    assert names == {"tiny", "tiny/fit", "tiny/retrain"}
