"""The field's libraries, trained by their own ``fit``: DeepCTR-Torch and FuxiCTR (``pip install 'optuna-aes[bench]'``)."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from studies.bench.contestants.base import OnStep, Work


class DeepCtr:
    """DeepCTR-Torch's DeepFM; without its linear and FM parts it is a plain MLP. No decay, and no metrics on the way.

    Args:
        work: What to train.
    """

    def __init__(self, work: Work) -> None:
        from deepctr_torch.inputs import SparseFeat
        from deepctr_torch.models import DeepFM

        self.work = work
        fields = work.dataset.schema.fields
        columns = [SparseFeat(f.name, f.cardinality, embedding_dim=work.dim) for f in fields]
        deepfm = work.backbone == "deepfm"
        self.model = DeepFM(
            columns if deepfm else [],
            columns,
            use_fm=deepfm,
            dnn_hidden_units=work.hidden,
            l2_reg_linear=0,
            l2_reg_embedding=0,
            init_std=work.std,
            seed=work.seed,
        )
        as_torch_has_it(self.model)  # its initial deviation is for the tower's weights too, and far too small there
        self.model.compile(torch.optim.Adam(self.model.parameters(), lr=work.lr), "binary_crossentropy")

    def train(self, on_step: OnStep) -> None:
        train = self.work.dataset.train
        inputs = self.inputs(train.ids)
        labels = train.labels.astype(np.float32)
        self.model.optim.register_step_post_hook(lambda *_: on_step())
        with contextlib.redirect_stdout(io.StringIO()):
            self.model.fit(inputs, labels, batch_size=self.work.batch_size, epochs=1000, verbose=0)

    def predict(self) -> npt.NDArray[np.floating]:
        return self.model.predict(self.inputs(self.work.dataset.test.ids), 16384).reshape(-1)

    def inputs(self, ids: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[np.int32]]:
        return {f.name: ids[:, i] for i, f in enumerate(self.work.dataset.schema.fields)}


class FuxiCtr:
    """FuxiCTR's BaseModel, layers and npz loader, put together as its model zoo does; the package leaves the zoo out.

    Args:
        work: What to train.
    """

    def __init__(self, work: Work) -> None:
        from fuxictr.features import FeatureMap

        logging.disable(logging.INFO)
        torch.manual_seed(work.seed)
        self.work = work
        self.folder = tempfile.TemporaryDirectory()
        self.map = FeatureMap("bench", self.folder.name)
        for field in work.dataset.schema.fields:
            self.map.features[field.name] = {"source": "", "type": "categorical", "vocab_size": field.cardinality}
        self.map.labels, self.map.num_fields = [work.dataset.schema.label], len(self.map.features)
        self.map.set_column_index()
        self.model = _fuxi_model()(self.map, work, self.folder.name)

    def loader(self, split: str, *, shuffle: bool) -> Any:
        from fuxictr.pytorch.dataloaders import RankDataLoader

        rows = getattr(self.work.dataset, split)
        path = Path(self.folder.name) / f"{split}.npz"
        columns = {f.name: rows.ids[:, i] for i, f in enumerate(self.work.dataset.schema.fields)}
        np.savez(path, **columns, **{self.work.dataset.schema.label: rows.labels})
        # The gradient of a row's own batch is what every loop takes.
        stage, data = ("train", {"train_data": str(path)}) if shuffle else ("test", {"test_data": str(path)})
        made = RankDataLoader(self.map, stage=stage, batch_size=self.work.batch_size, shuffle=shuffle, **data)
        return made[0] if shuffle else made

    def train(self, on_step: OnStep) -> None:
        loader = self.loader("train", shuffle=True)
        self.model.optimizer.register_step_post_hook(lambda *_: on_step())
        # Never to validate: the other loops have none.
        self.model._eval_steps = 2**62
        self.model.fit(loader, epochs=1000)

    def predict(self) -> npt.NDArray[np.floating]:
        return self.model.predict(self.loader("test", shuffle=False))


def as_torch_has_it(tower: torch.nn.Module) -> None:
    """Initial weights as torch has them for linear layers: of two trainings the AUC after the same rows can be compared."""
    for module in tower.modules():
        if isinstance(module, torch.nn.Linear):
            module.reset_parameters()


def _fuxi_model() -> Any:
    from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class Model(BaseModel):
        def __init__(self, features: Any, work: Work, folder: str) -> None:
            super().__init__(features, verbose=0, model_root=folder, metrics=["AUC"])
            init = f"partial(nn.init.normal_, std={work.std})"
            self.embedding_layer = FeatureEmbedding(features, work.dim, embedding_initializer=init)
            self.fm = FactorizationMachine(features) if work.backbone == "deepfm" else None
            width = work.dim * features.num_fields
            self.mlp = MLP_Block(width, hidden_units=list(work.hidden), output_dim=1)
            self.compile("adam", "binary_crossentropy", work.lr)
            self.reset_parameters()
            as_torch_has_it(self.mlp)
            self.model_to_device()

        def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
            x = self.get_inputs(inputs)
            embedded = self.embedding_layer(x)
            logit = self.mlp(embedded.flatten(start_dim=1))
            if self.fm is not None:
                logit = logit + self.fm(x, embedded)
            return {"y_pred": self.output_activation(logit)}

    return Model
