"""Team: the processes that train together, each with its share of the dialogues; one alone is the rule.

`accelerate launch` starts them. All hold the same base, or each a piece of it, and the same adapters and optimizers;
after every update they have the same gradients, so the adapters stay equal without being sent around. Every method here
is called by all processes in the same order, and each waits for the others.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor, nn

from coars_env import CoarsError, ConfigError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for another; ours. The first one on a machine downloads and builds what is missing."""
OURS = {
    "ACCELERATE_USE_DEEPSPEED": ("false",),
    "ACCELERATE_USE_MEGATRON_LM": ("false",),
    "FSDP_OFFLOAD_PARAMS": ("false",),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false",),
    "FSDP_SHARDING_STRATEGY": ("full_shard", "1"),
    "FSDP_RESHARD_AFTER_FORWARD": ("true", "full_shard"),
}
"""What `accelerate launch` may say of how the model lies in memory. What else it says of FSDP changes no numbers."""


@dataclass(frozen=True)
class Team:
    """This process's place in the team."""

    index: int = 0
    """The number of this process. 0 is the main one, which alone writes files."""
    size: int = 1
    shards: bool = False
    """Whether each process holds a piece of the base only, see `agents.training.sharding`."""

    @classmethod
    def launched(cls, device: str) -> "Team":
        """Those that `accelerate launch` or `torchrun` started; a process that was started in another way is alone.

        Args:
            device: "cpu", "cuda", or "auto" for a GPU if there is one. With "cuda" each process has its own from then
                on.

        Raises:
            ConfigError: the launcher was told to split the model in a way that is not ours.
        """
        for variable, ours in OURS.items():
            if (found := os.environ.get(variable, ours[0])).lower() not in ours:
                raise ConfigError(
                    "Processes share the dialogues of an update; each holds the whole base or, with --use_fsdp, its "
                    f"piece of every layer. Expected {variable}={ours[0]}, found {found}. Launch with --multi_gpu or "
                    "--use_fsdp, and without the option that says so; see docs/scaling.md."
                )
        if "LOCAL_RANK" not in os.environ:
            return ALONE
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)
        shards = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and state.num_processes > 1
        return cls(state.process_index, state.num_processes, shards)

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def one_first(self) -> AbstractContextManager[None]:
        """A block that one process on each machine runs before the others, which then find what it has built."""
        return nullcontext() if self.size == 1 else PartialState().local_main_process_first()

    def gathered(self, own: T) -> list[T]:
        """What each process has, in their order. It is pickled on the way."""
        return [own] if self.size == 1 else list(gather_object([own]))

    def merged(self, own: Mapping[int, T]) -> list[T]:
        """What all processes have, in the order of the numbers it is kept by."""
        found = {number: value for share in self.gathered(own) for number, value in share.items()}
        return [found[number] for number in sorted(found)]

    def joined(self, own: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
        """The lists of all processes one after the other, by name; on the CPU, where there are others."""
        if self.size == 1:
            return own
        shares = self.gathered({name: [x.cpu() for x in tensors] for name, tensors in own.items()})
        return {name: [x for share in shares for x in share[name]] for name in own}

    def add_up_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients in all processes. None counts as 0."""
        if self.size > 1:
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            total = reduce(torch.cat([gradient.flatten() for gradient in own]), "sum")
            for p, gradient in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
                p.grad = gradient.view_as(p)

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns in the main process, which alone calls it.

        Raises:
            CoarsError: `make` did; in every process.
        """
        if self.size == 1:
            return make()
        told: list[Any] = [None]
        if self.is_main:
            try:
                told = [make()]
            except CoarsError as error:
                told = [error]
        (answer,) = broadcast_object_list(told)
        if isinstance(answer, CoarsError):
            raise answer
        made: T = answer
        return made

    def leave(self) -> None:
        """Part from the others, at the end."""
        if self.size > 1:
            PartialState().destroy_process_group()


ALONE = Team()
"""One process that does everything."""
