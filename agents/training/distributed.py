"""Data-parallel process group; a single process by default.

`accelerate launch` starts the processes. Every process holds the same adapters and optimizers, and the whole base or,
with `--use_fsdp`, a shard of it. After each update all processes have the same gradients, so the adapters stay equal
without being sent around. All processes call every method here in the same order, and each call waits for the others.
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

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another (our choice). The first one on a machine downloads and builds what is
missing."""
SUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": ("false",),
    "ACCELERATE_USE_MEGATRON_LM": ("false",),
    "FSDP_OFFLOAD_PARAMS": ("false",),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false",),
    "FSDP_SHARDING_STRATEGY": ("full_shard", "1"),
    "FSDP_RESHARD_AFTER_FORWARD": ("true", "full_shard"),
}
"""Launcher settings that change where the model lives, with the values supported here. Other FSDP settings change no
numbers."""


@dataclass(frozen=True)
class ProcessGroup:
    """The place of this process in the group."""

    rank: int = 0
    """Number of this process. Rank 0 is the main process and alone writes files."""
    world_size: int = 1
    sharded: bool = False
    """Whether each process holds only a shard of the base, see `agents.training.sharding`."""

    @classmethod
    def launched(cls, device: str) -> "ProcessGroup":
        """Join the processes that `accelerate launch` or `torchrun` started, or return `SINGLE_PROCESS`.

        Args:
            device: "cpu", "cuda", or "auto" for a GPU if there is one. With "cuda" each process gets its own GPU.

        Raises:
            ConfigError: the launcher splits the model in a way that is not supported.
        """
        for variable, supported in SUPPORTED.items():
            if (found := os.environ.get(variable, supported[0])).lower() not in supported:
                raise ConfigError(
                    f"{variable}={found} is not supported: processes share the dialogues of an update, and each holds "
                    f"the whole base or, with --use_fsdp, its shard of every layer. Expected {variable}="
                    f"{supported[0]}. Launch with --multi_gpu or --use_fsdp, and without the option that sets it; see "
                    "docs/scaling.md."
                )
        if "LOCAL_RANK" not in os.environ:
            return SINGLE_PROCESS
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=TIMEOUT)
        sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and state.num_processes > 1
        return cls(state.process_index, state.num_processes, sharded)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def local_main_first(self) -> AbstractContextManager[None]:
        """Run a block in one process of each machine first; the others then find what it has built."""
        return nullcontext() if self.world_size == 1 else PartialState().local_main_process_first()

    def all_gather(self, own: T) -> list[T]:
        """Return the value of every process, in rank order. Values are pickled on the way."""
        return [own] if self.world_size == 1 else list(gather_object([own]))

    def merge(self, own: Mapping[int, T]) -> list[T]:
        """Return the values of all processes, ordered by their keys."""
        found = {number: value for share in self.all_gather(own) for number, value in share.items()}
        return [found[number] for number in sorted(found)]

    def concatenate(self, own: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
        """Concatenate the lists of all processes by name. Tensors move to the CPU where there are several processes."""
        if self.world_size == 1:
            return own
        shares = self.all_gather({name: [x.cpu() for x in tensors] for name, tensors in own.items()})
        return {name: [x for share in shares for x in share[name]] for name in own}

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its sum over all processes. None counts as 0."""
        if self.world_size > 1:
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            total = reduce(torch.cat([gradient.flatten() for gradient in own]), "sum")
            for p, gradient in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
                p.grad = gradient.view_as(p)

    def broadcast_from_main(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process alone and return its result everywhere.

        Raises:
            CoarsError: `make` raised it; raised in every process.
        """
        if self.world_size == 1:
            return make()
        made: list[Any] = [None]
        if self.is_main:
            try:
                made = [make()]
            except CoarsError as error:
                made = [error]
        (result,) = broadcast_object_list(made)
        if isinstance(result, CoarsError):
            raise result
        found: T = result
        return found

    def destroy(self) -> None:
        """Leave the group, at the end."""
        if self.world_size > 1:
            PartialState().destroy_process_group()


SINGLE_PROCESS = ProcessGroup()
"""One process that does everything."""
