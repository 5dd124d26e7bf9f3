"""Steps as they are taken, beside steps as a textbook writes them: the same weights, of the default to the bit."""

from __future__ import annotations

import copy
import io
from typing import Literal

import pytest
import torch
from torch import Tensor

from training.fitting import fit
from training.fitting.fit import Inputs
from training.fitting.objective import ObjectiveSettings, loss
from training.fitting.profiles import PROFILES
from training.fitting.steps import TRACED_FROM, Adam, Pace, Plan, Steps, gradients_of, steps_of
from training.fitting.tracing import traced
from training.progress import Progress
from training.settings import TrainingSettings
from worker.detection.model import VAE, Family, Shape

FEATURES, WINDOW, BATCH, EPOCH = 6, 2, 16, 5        # the fifth batch of an epoch is smaller
FAMILIES: list[Family] = ["normal", "mixture", "flow", "categorical", "bernoulli"]
Sigma = Literal["fixed", "shared", "per-feature"]


def inputs(missing: float, n: int = 4 * BATCH + 3) -> Inputs:
    generator = torch.Generator().manual_seed(2)
    x_KF = torch.rand(n + WINDOW - 1, FEATURES, generator=generator)
    present_KF = torch.rand(x_KF.shape, generator=generator) >= missing
    return Inputs(x_KF, present_KF, torch.arange(n)[:, None] + torch.arange(WINDOW))


def plan(steps: int, sigma: Sigma = "fixed", noise: float = 0.0) -> Plan:
    objective = ObjectiveSettings(sigma=sigma, kl_weight=0.5, free_bits=0.02)
    weight_D = torch.linspace(0.0, 2.0, FEATURES * WINDOW)
    return Plan(objective, weight_D, noise, BATCH, steps, _pace)


def _pace(step: int) -> Pace:
    """The KL weight stays for some steps and rises then."""
    return Pace(1e-2 / (1 + step), 0.1 * (step // 3))


def model_of(family: Family) -> VAE:
    torch.manual_seed(1)
    return VAE(Shape(features=FEATURES, window=WINDOW, hidden=(9,), latent=3, family=family))


def orders(epochs: int, n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randperm(n, generator=generator) for _ in range(epochs)]


def as_written(model: VAE, train: Inputs, plan: Plan, epochs: int) -> Tensor:
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    step, sums = 0, torch.zeros(2)
    for order_N in orders(epochs, len(train)):
        for index_B in torch.split(order_N, plan.batch_size):
            x_BD, present_BD = train.rows(index_B)
            rate, kl_weight = plan.pace(step)
            optimizer.param_groups[0]["lr"] = rate
            seen_BD = x_BD + plan.noise * torch.randn_like(x_BD) if plan.noise else x_BD
            terms = loss(
                model(seen_BD), x_BD, plan.objective, weight_D=plan.weight_D, present_BD=present_BD,
                kl_weight=kl_weight,
            )
            optimizer.zero_grad()
            terms.total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            sums += torch.stack([terms.reconstruction.detach(), terms.kl.detach()])
            step += 1
    return sums


def taken(model: VAE, train: Inputs, plan: Plan, epochs: int) -> Steps:
    steps = steps_of(model, train, plan)
    for order_N in orders(epochs, len(train)):
        steps.begin(order_N.to(train.x_KF.device))
        for _ in range(EPOCH):
            steps.take()
    return steps


def exactly(found: Tensor, expected: Tensor) -> None:
    assert torch.equal(found, expected)


def nearly(found: Tensor, expected: Tensor) -> None:
    """Autograd adds up the gradients of what is used twice in an order of its own: so seen of flow, with torch 2.11."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [2 * EPOCH, TRACED_FROM])     # as they are, and traced
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_are_those_of_steps_written_out(family: Family, missing: float, steps: int) -> None:
    train, asked = inputs(missing), plan(steps, noise=0.1)
    written = model_of(family)
    ours = copy.deepcopy(written)
    torch.manual_seed(3)
    sums = as_written(written, train, asked, epochs=2)
    after = torch.rand(3)
    torch.manual_seed(3)
    found = taken(ours, train, asked, epochs=2)
    assert torch.equal(torch.rand(3), after)                    # tracing draws no numbers
    same = exactly if family == "normal" else nearly
    same(found.sums, sums)
    for name, weight in written.state_dict().items():
        same(ours.state_dict()[name], weight)


@pytest.mark.parametrize("sigma", ["fixed", "shared", "per-feature"])
@pytest.mark.parametrize("family", FAMILIES)
def test_this_torch_can_trace(family: Family, sigma: Sigma) -> None:
    model, train = model_of(family), inputs(missing=0.2)
    gradients = gradients_of(model, plan(1, sigma))
    weights: list[Tensor] = list(model.parameters())
    fast = traced(gradients, weights, train.rows(torch.arange(BATCH)))
    assert fast is not None
    batch = train.rows(torch.arange(20, 20 + BATCH))
    found = []
    for how in (gradients, fast):
        torch.manual_seed(5)
        with torch.no_grad():
            found.append(how(weights, 0.3, batch))
    for one, other in zip(*found, strict=True):
        nearly(one, other)


def test_what_cannot_be_traced_is_done_as_it_is() -> None:
    def gradients(weights: list[Tensor], kl_weight: float | Tensor, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return weights[0] * float(batch[0].sum()),              # a number that a list of calls does not have

    assert traced(gradients, [torch.ones(1)], (torch.ones(2),)) is None


def test_adam_is_torch_adam() -> None:
    weight = torch.linspace(-1, 1, 7)
    theirs = torch.nn.Parameter(weight.clone())
    optimizer, ours = torch.optim.Adam([theirs], lr=0.01, fused=True), Adam([weight])
    for step in range(5):
        theirs.grad = torch.sin(torch.arange(7.0) + step)
        optimizer.step()
        ours.step([theirs.grad], 0.01)
        assert torch.equal(weight, theirs.detach())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_graph_takes_the_steps_of_the_cpu(missing: float) -> None:
    here, there = inputs(missing), Inputs(*(column.cuda() for column in inputs(missing)))
    asked = plan(2 * EPOCH)
    ours, theirs = model_of("normal"), model_of("normal").cuda()
    for model in (ours, theirs):                                # devices draw differently: σ is nearly 0
        last = model.encoder[-1]
        assert isinstance(last, torch.nn.Linear)
        last.bias.data[3:] = -1e3
    on_card = asked._replace(weight_D=None if asked.weight_D is None else asked.weight_D.cuda())
    one, other = taken(ours, here, asked, epochs=2), taken(theirs, there, on_card, epochs=2)
    torch.testing.assert_close(other.sums.cpu(), one.sums, rtol=1e-3, atol=1e-3)
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name].cpu(), weight, rtol=1e-3, atol=2e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_repeats_a_run_on_a_card(family: Family) -> None:
    train = Inputs(*(column.cuda() for column in inputs(0.1, 500)))
    asked = TrainingSettings(family=family, epochs=3, min_steps=0, noise=0.05, latent=3, hidden=(16,))
    recipe = PROFILES["pointwise"]._replace(window=WINDOW)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (
        fit.fit(train, train, recipe, asked, torch.device("cuda"), Progress(io.StringIO())) for _ in range(2)
    )
    assert torch.equal(torch.rand(3), expected)
    assert first.looks == second.looks
    assert first.looks[-1].held_total < first.looks[0].held_total
    for name, weight in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], weight)
