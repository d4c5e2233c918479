"""Inject NaN and infinities into a training at a chosen step."""

from collections.abc import Callable
from unittest import mock

import torch
from torch import nn

from steelseg.training import resume
from steelseg.training.learner import Learner
from torture.commands import Command, run


def run_with(place: str, value: float, step: int, command: Command) -> int:
    """Run a command in whose training `value` turns up at a step, from 1 on."""
    build = resume.build_learner

    def spoilt(*args, **kwargs):
        learner = build(*args, **kwargs)
        PLACES[place](learner, value, _Countdown(step))
        return learner

    with mock.patch.object(resume, "build_learner", spoilt):
        return run(command)


class _Countdown:
    """Returns True once, at the chosen step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def _into_input(learner: Learner, value: float, is_due: Callable[[], bool]) -> None:
    def spoil(module: nn.Module, inputs: tuple[torch.Tensor]):
        if module.training and is_due():
            inputs[0].view(-1)[7] = value

    learner.model.network.register_forward_pre_hook(spoil)


def _into_loss(learner: Learner, value: float, is_due: Callable[[], bool]) -> None:
    def spoil(module: nn.Module, _: object, logits: torch.Tensor):
        return logits * value if module.training and is_due() else logits

    learner.model.register_forward_hook(spoil)


def _into_gradient(learner: Learner, value: float, is_due: Callable[[], bool]) -> None:
    def spoil(gradient: torch.Tensor):
        return gradient * value if is_due() else gradient

    next(learner.model.parameters()).register_hook(spoil)


def _into_weight(learner: Learner, value: float, is_due: Callable[[], bool]) -> None:
    def spoil(*_):
        if is_due():
            next(learner.model.parameters()).data.view(-1)[0] = value

    learner.optimizer.register_step_post_hook(spoil)


def _into_statistic(learner: Learner, value: float, is_due: Callable[[], bool]) -> None:
    statistics = [b for n, b in learner.model.named_buffers() if n.endswith("running_var")]

    def spoil(*_):
        if is_due():
            statistics[-1].view(-1)[0] = value

    learner.optimizer.register_step_post_hook(spoil)


def _into_moment(learner: Learner, value: float, is_due: Callable[[], bool]) -> None:
    def spoil(*_):
        if is_due():
            next(iter(learner.optimizer.state.values()))["exp_avg"].view(-1)[0] = value

    learner.optimizer.register_step_post_hook(spoil)


def _into_average(learner: Learner, value: float, is_due: Callable[[], bool]) -> None:
    assert learner.average is not None
    update = learner.average.update

    def spoil(model: nn.Module, *, decay: float) -> None:
        update(model, decay=decay)
        if is_due():
            next(learner.average.model.parameters()).view(-1)[0] = value

    learner.average.update = spoil


PLACES = {
    "input": _into_input,
    "loss": _into_loss,
    "gradient": _into_gradient,
    "weight": _into_weight,
    "statistic": _into_statistic,
    "moment": _into_moment,
    "average": _into_average,
}
