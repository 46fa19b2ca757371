from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from optuna_aes.errors import InputError
from optuna_aes.models.backbones.base import flatten
from optuna_aes.models.backbones.fm import FM, DeepFM, WideDeep, fm_interaction
from optuna_aes.models.backbones.registry import BACKBONES, backbone_class
from optuna_aes.models.backbones.tower import MLP, Tower


def test_fm_interaction_is_the_double_loop_over_pairs_padded_with_zeros() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(6, 2, 3)), rng.normal(size=(6, 3, 1)), rng.normal(size=(6, 1, 5))]
    expected = []
    for sample in range(6):
        fields = [group[sample, f] for group in groups for f in range(group.shape[1])]
        pairs = 0.0
        for a in range(len(fields)):
            for b in range(a + 1, len(fields)):
                common = min(len(fields[a]), len(fields[b]))
                pairs += float(fields[a][:common] @ fields[b][:common])
        expected.append(pairs)
    result = fm_interaction([torch.from_numpy(g) for g in groups])
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


def test_fm_interaction_has_the_right_gradient() -> None:
    groups = [torch.randn(2, 2, 3, dtype=torch.float64), torch.randn(2, 1, 2, dtype=torch.float64)]
    inputs = tuple(g.requires_grad_() for g in groups)
    assert torch.autograd.gradcheck(lambda *g: fm_interaction(list(g)), inputs)


def test_one_field_alone_has_no_interaction() -> None:
    assert fm_interaction([torch.randn(4, 1, 3), torch.zeros(4, 0, 0)]).abs().max() < 1e-6


def test_flatten_puts_groups_side_by_side() -> None:
    groups = [torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[5.0]]])]
    assert flatten(groups).tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]


def test_deepfm_on_a_case_worked_out_by_hand() -> None:
    model = DeepFM([(2, 2), (1, 1)], hidden=[2])
    with torch.no_grad():
        model.tower.hidden[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0, 1], [0, 1, 0, 0, -10]]))
        model.tower.hidden[0].bias.copy_(torch.tensor([0.5, 0.0]))
        model.tower.out.weight.copy_(torch.tensor([[2.0, 3.0]]))
        model.tower.out.bias.fill_(0.25)
    groups = [torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]), torch.tensor([[[4.0]]])]
    # pairs: (1,2)·(3,-1) = 1, (1,2)·(4,0) = 4, (3,-1)·(4,0) = 12; tower: relu(1+4+.5, 2-40) = (5.5, 0) -> 11.25
    assert model(groups, torch.tensor([0.125])).tolist() == [0.125 + 17.0 + 11.25]
    mlp = MLP([(2, 2), (1, 1)], hidden=[2])
    mlp.load_state_dict(model.state_dict())
    assert mlp(groups, None).tolist() == [11.25]
    wide_deep = WideDeep([(2, 2), (1, 1)], hidden=[2])
    wide_deep.load_state_dict(model.state_dict())
    assert wide_deep(groups, torch.tensor([0.125])).tolist() == [0.125 + 11.25]
    fm = FM([(2, 2), (1, 1)], hidden=[2])
    fm.bias.data.fill_(0.5)
    assert fm(groups, torch.tensor([0.125])).tolist() == [0.5 + 0.125 + 17.0]


@pytest.mark.parametrize("hidden", [(), (7,), (7, 3)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_tower_multiplies_only_the_columns_it_is_given(hidden: tuple[int, ...], batch_norm: bool) -> None:
    tower = Tower(6, hidden, batch_norm=batch_norm, batch_statistics=True)
    columns = torch.tensor([4, 0, 3])
    x = torch.randn(9, 3)
    full = torch.zeros(9, 6).index_copy(1, columns, x)
    torch.testing.assert_close(tower(x, columns), tower(full))


def test_batch_norm_comes_before_relu_and_dropout_only_in_training() -> None:
    tower = Tower(3, (50,), batch_norm=True, dropout=0.5)
    x = torch.randn(64, 3)
    linear, norm = tower.hidden[0], tower.norms[0]
    tower.eval()
    expected = tower.out(torch.relu((linear(x) - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps)))
    torch.testing.assert_close(tower(x), expected.squeeze(1))
    assert torch.equal(tower(x), tower(x))
    tower.train()
    assert not torch.equal(tower(x), tower(x))


def test_batch_statistics_are_those_of_the_batch_in_evaluation_too() -> None:
    tower = Tower(3, (5,), batch_norm=True, batch_statistics=True).eval()
    x = torch.randn(64, 3)
    torch.testing.assert_close(tower(100 * x), tower(1000 * x), rtol=1e-3, atol=1e-3)
    assert not any("running" in name for name in tower.state_dict())


@pytest.mark.parametrize("batch_norm", [False, True])
def test_no_inputs_make_a_constant_without_a_warning(batch_norm: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tower = Tower(0, (5, 4), batch_norm=batch_norm)
    assert sum(p.numel() for p in tower.parameters()) == 1
    tower.out.bias.data.fill_(0.75)
    assert tower(torch.zeros(3, 0)).tolist() == [0.75] * 3
    assert tower(torch.zeros(3, 0), torch.zeros(0, dtype=torch.int64)).tolist() == [0.75] * 3


def test_a_backbone_that_is_not_known_is_refused() -> None:
    assert backbone_class("mlp") is MLP
    with pytest.raises(InputError, match=f"backbone='dcn' is not known: give one of {', '.join(BACKBONES)}"):
        backbone_class("dcn")
