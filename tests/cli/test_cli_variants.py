from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, Ended

from optuna_aes import load_model
from optuna_aes.models.backbones.tower import MLP

Run = Callable[..., Ended]


@pytest.mark.slow
def test_a_search_is_retrained_in_another_backbone_and_from_inherited_weights(folder: Path, aes: Run) -> None:
    assert aes("search", "clicks.csv", *SMALL, "--quiet").code == 0
    own = json.loads(aes("pareto", "--json").out)

    done = aes("retrain", "--backbone", "mlp", "--threads", "1", "--device", "cpu")
    assert done.code == 0, done
    assert "clicks@mlp  adass · mlp" in done.out
    found = json.loads(aes("pareto", "--backbone", "mlp", "--json").out)
    assert (found["backbone"], found["variant"]) == ("mlp", "mlp")
    assert [p["sizes"] for p in found["points"]] == [p["sizes"] for p in own["points"]]
    assert found["points"][0]["auc_test"] != own["points"][0]["auc_test"]
    assert json.loads(aes("pareto", "--json").out) == own

    assert aes("export", "--backbone", "mlp", "--out", "model").code == 0
    assert isinstance(load_model(folder / "model").backbone, MLP)
    stages = json.loads(aes("status", "--backbone", "mlp", "--json").out)["stages"]
    assert stages["retrain"]["finished"] == stages["retrain"]["requested"] == 1
    assert aes("pareto", "--backbone", "mlp", "--html", "r.html").code == 0
    page = (folder / "r.html").read_text()
    assert "<h1>clicks@mlp</h1>" in page
    assert "export --name clicks --backbone mlp" in page

    assert aes("retrain", "--inherited", "--quiet").code == 0
    assert json.loads(aes("pareto", "--inherited", "--json").out)["variant"] == "inherited"
    assert aes("retrain", "--backbone", "deepfm", "--quiet").code == 0  # the search's own
    assert json.loads(aes("pareto", "--backbone", "deepfm", "--json").out) == own

    for given, text in (
        (("retrain", "--backbone", "nope"), "backbone='nope' is not known"),
        (("retrain", "--backbone", "mlp", "--inherited"), "give one of the two"),
        (("pareto", "--backbone", "fm"), "run optuna-aes retrain --backbone fm first"),
        (("pareto", "--backbone", "nope"), "has no study 'clicks/retrain@nope'"),
    ):
        ended = aes(*given)
        assert (ended.code, ended.out) == (2, "")
        assert text in ended.err
        assert ended.err.count("\n") == 1
