"""Sharding: a base whose decoder layers lie in pieces among the processes of a processes, by FSDP.

A layer is gathered for each pass and forgotten after it, which takes all processes at once. So all must make equally
many passes: in playing by `in_step`, in learning by `pad_to_world_size`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch.distributed import all_reduce
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from agents.models.backbones.backbone import body, layers
from agents.models.policy import Policy
from agents.training.distributed import ProcessGroup
from agents.training.samples import TrainingSample
from coars_env import ROLES


def shard(policy: Policy, device: str, processes: ProcessGroup) -> None:
    """Leave each process its piece of every decoder layer, and put that and the rest on its device, layer by layer.

    Whole in every process stay the embeddings and the output matrix, which is used outside of the model's forward pass,
    and the adapters, which learn. To be called before the first pass.
    """
    model = policy.backbone.model
    mesh = init_device_mesh(device, (processes.world_size,))
    adapters = {parameter for role in ROLES for parameter in policy.parameters(role)}
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, ignored_params=adapters)
    fully_shard(body(model), mesh=mesh, ignored_params=set(body(model).parameters()))  # the layers share its streams
    policy.backbone.to(device)


@contextlib.contextmanager
def in_step(policy: Policy, processes: ProcessGroup) -> Iterator[None]:
    """A block in which each process makes as many passes without gradient as it likes. Who is done with it makes empty
    ones until all are. No other exchange between processes may stand in it.
    """
    if not processes.sharded:
        yield
        return
    base, device = body(policy.backbone.model), policy.backbone.device

    def at_work(own: int) -> torch.Tensor:
        number = torch.tensor(own, device=device)
        all_reduce(number)
        return number

    def tell(*_: object) -> None:
        at_work(1)

    hook = base.register_forward_pre_hook(tell)
    try:
        yield
    finally:
        hook.remove()
    nothing = torch.zeros((1, 1), dtype=torch.long, device=device)
    with torch.no_grad():
        while at_work(0):
            base(input_ids=nothing, use_cache=False)


def pad_to_world_size(samples: Sequence[TrainingSample], processes: ProcessGroup) -> list[TrainingSample]:
    """The samples for passes that are alike in all processes: as many for each, filled up with some that teach nothing,
    and each read from its start, since what several begin with would be a pass more.
    """
    if not processes.sharded or not samples:
        return list(samples)
    whole = [replace(sample, opening=0) for sample in samples]
    first = min(whole, key=lambda sample: len(sample.token_ids))
    nothing = replace(first, turns=(replace(first.turns[0], columns=()),))
    return [*whole, *[nothing] * (-len(whole) % processes.world_size)]
