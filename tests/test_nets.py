"""Network parts: normalisation by all rows seen, weights and optimiser states that come back."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied import nets
from embodied.errors import UserError
from embodied.nets import (
    RunningNorm,
    adam_state,
    compiled,
    load_adam_state,
    load_weights,
    mlp,
    torch_threads,
    usable_device,
)


def assert_equal(a: torch.nn.Module, b: torch.nn.Module) -> None:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def normed(rows: torch.Tensor, cuts: list[int]) -> RunningNorm:
    norm = RunningNorm(rows.shape[1])
    for part in torch.tensor_split(rows, cuts):
        norm.update(part)
    return norm


@given(st.integers(0, 2**31), st.lists(st.integers(0, 40), max_size=5).map(sorted))
def test_running_norm_is_that_of_all_rows_however_they_came(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal([0, 5, -100], [1, 0.01, 30], (40, 3))).float()
    norm = normed(rows, cuts)
    torch.testing.assert_close(norm.mean, rows.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.var, rows.var(0, correction=0), rtol=1e-4, atol=1e-6)
    assert float(norm.count) == 40


def test_running_norm_by_hand() -> None:
    # rows 1, 3 | 8: mean 4, variance (9 + 1 + 16) / 3 = 26/3
    norm = normed(torch.tensor([[1.0], [3.0], [8.0]]), [2])
    assert norm.mean.item() == pytest.approx(4.0)
    assert norm.var.item() == pytest.approx(26 / 3)
    assert norm(torch.tensor([7.0])).item() == pytest.approx(3 / math.sqrt(26 / 3))


def test_before_any_row_it_changes_next_to_nothing() -> None:
    x = torch.tensor([[0.5, -3.0]])
    torch.testing.assert_close(RunningNorm(2)(x), x)


def test_what_never_varied_stays_zero_and_outliers_are_clipped() -> None:
    norm = normed(torch.tensor([[0.3, 1.0], [0.3, 2.0]]), [])
    assert norm(torch.tensor([0.3, 1.5])).tolist() == [0.0, 0.0]
    assert norm(torch.tensor([0.3, 1e9])).tolist() == [0.0, 10.0]
    assert norm(torch.tensor([5.0, 1.5])).tolist() == [10.0, 0.0]


def test_mlp_shapes_and_gains() -> None:
    net = mlp(3, (8, 5), 2, "relu", last_gain=0.01)
    shapes = [tuple(layer.weight.shape) for layer in net if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(8, 3), (5, 8), (2, 5)]
    assert net(torch.zeros(7, 4, 3)).shape == (7, 4, 2)
    # orthogonal: rows of the last layer have the length of its gain, columns of the first sqrt 2
    assert net[-1].weight.norm(dim=1).tolist() == pytest.approx([0.01, 0.01])
    assert net[0].weight.norm(dim=0).tolist() == pytest.approx([2**0.5] * 3)
    assert not any(layer.bias.any() for layer in net if isinstance(layer, torch.nn.Linear))
    assert [tuple(p.shape) for p in mlp(3, (), 2).parameters()] == [(2, 3), (2,)]  # linear


def test_mlp_refuses_what_is_no_network() -> None:
    with pytest.raises(UserError, match="unknown activation 'rleu': did you mean relu"):
        mlp(3, (8,), 2, "rleu")
    with pytest.raises(UserError, match=r"hidden=\[8, 0\]: give whole numbers >= 1"):
        mlp(3, (8, 0), 2)


def test_weights_come_back_in_place() -> None:
    source, target = mlp(3, (4,), 2), mlp(3, (4,), 2)
    kept = target[0].weight
    load_weights(target, {k: v.numpy() for k, v in source.state_dict().items()})
    assert kept is target[0].weight
    assert_equal(source, target)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (mlp(5, (4,), 2), r"0\.weight is \(4, 5\) there, \(4, 3\) here \(another observation"),
        (mlp(3, (), 2), r"0\.bias is \(2,\) there, \(4,\) here"),
        (mlp(3, (4,), 1), r"2\.bias is \(1,\) there, \(2,\) here"),
        (mlp(3, (4, 2), 2), r"4\.bias is \(2,\) there, nothing here"),
        (torch.nn.Identity(), r"0\.bias is nothing there, \(4,\) here"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(net: torch.nn.Module, message: str) -> None:
    target = mlp(3, (4,), 2)
    before = copy.deepcopy(target)
    with pytest.raises(UserError, match=message):
        load_weights(target, net.state_dict())
    assert_equal(before, target)


def steps(net: torch.nn.Module, optimiser: torch.optim.Optimizer, count: int) -> None:
    for k in range(count):
        optimiser.zero_grad()
        net(torch.full((1, 3), 1.0 + k)).square().sum().backward()
        optimiser.step()


@pytest.mark.parametrize("fused", [False, True])
def test_adam_goes_on_from_its_state(fused: bool) -> None:
    first = mlp(3, (4,), 1)
    whole = torch.optim.Adam(first.parameters(), lr=0.1, fused=fused)
    steps(first, whole, 3)
    whole.param_groups[0]["lr"] = 0.05
    second = mlp(3, (4,), 1)
    load_weights(second, {k: v.clone() for k, v in first.state_dict().items()})
    resumed = torch.optim.Adam(second.parameters(), lr=0.1, fused=fused)
    load_adam_state(resumed, adam_state(whole))
    steps(first, whole, 3)
    steps(second, resumed, 3)
    assert_equal(first, second)


def test_the_state_of_an_optimiser_that_never_stepped() -> None:
    net = mlp(3, (), 1)
    state = adam_state(torch.optim.Adam(net.parameters(), lr=0.1))
    load_adam_state(torch.optim.Adam(net.parameters()), state)
    assert state == {"lr": [0.1], "rows": [{}, {}]}


def test_without_a_compiler_it_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets.shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler .*running without torch.compile"):
        assert compiled(math.sqrt) is math.sqrt


def test_a_device_that_is_not_there() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device=toaster: .*device=cpu works everywhere"):
        usable_device("toaster")


def test_torch_gets_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    with torch_threads(2):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
