"""Policy: one frozen base model, two LoRA adapters, one for each side of the dialogue."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from agents.backbones.backbone import Backbone, body, project
from agents.kv import choice_mask, constrained_logprobs
from coars_env import RECOMMENDER, ROLES, USER, CheckpointError, Role

ADAPTERS: dict[str, str] = {RECOMMENDER: "recommender", USER: "user"}
"""Name of each side's adapter."""


class Policy:
    """Two trainable policies over one backbone. `with policy.acting(role): ...` makes one side's adapter the live one.

    The adapters stay in `eval` mode without dropout, so rollout, teacher and student see the same network.
    """

    def __init__(self, backbone: Backbone, *, rank: int = 16, alpha: int = 32, seed: int = 0) -> None:
        self.backbone = backbone
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        with torch.random.fork_rng():  # peft draws its own start from the global stream; it is replaced below
            self.peft: PeftModel = get_peft_model(backbone.model, config, adapter_name=ADAPTERS[RECOMMENDER])
            self.peft.add_adapter(ADAPTERS[USER], config)
        for side, role in enumerate(ROLES):
            _initialise(self.parameters(role), seed=seed * len(ROLES) + side)
        self.peft.eval()
        self._train_all()

    @classmethod
    def load(cls, backbone: Backbone, folder: Path) -> "Policy":
        """Put the adapters saved by `save` on a backbone.

        Raises:
            CheckpointError: no adapters there, or adapters of another base.
        """
        self = cls.__new__(cls)
        self.backbone = backbone
        try:
            first, *rest = ADAPTERS.values()
            self.peft = PeftModel.from_pretrained(backbone.model, folder / first, adapter_name=first, is_trainable=True)
            for name in rest:
                self.peft.load_adapter(folder / name, name, is_trainable=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"Adapters are read from two folders written by `coars train`. Expected {sorted(ADAPTERS.values())} "
                f"that fit the base model in {folder}, found {error}. Check the path and the backbone."
            ) from error
        self.peft.eval()
        self._train_all()
        return self

    def save(self, folder: Path) -> None:
        """Write both adapters in peft's own format: `PeftModel.from_pretrained(base, folder / "recommender")`."""
        self.peft.save_pretrained(folder, selected_adapters=list(ADAPTERS.values()))

    def named_parameters(self, role: Role) -> list[tuple[str, nn.Parameter]]:
        """The adapter's tensors, found by name: which of them ask for a gradient changes with the live adapter."""
        mark = f".{ADAPTERS[role]}."
        return [(name, parameter) for name, parameter in self.peft.named_parameters() if mark in name]

    def parameters(self, role: Role) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters(role)]

    @contextlib.contextmanager
    def acting(self, role: Role | None) -> Iterator[PreTrainedModel]:
        """The base model with this side's adapter live, or with none for `None`."""
        try:
            if role is None:
                with self.peft.disable_adapter():
                    yield self.peft.get_base_model()
            else:
                self.peft.set_adapter(ADAPTERS[role])
                yield self.peft.get_base_model()
        finally:
            self._train_all()

    def _train_all(self) -> None:
        # set_adapter and disable_adapter switch the gradients of the other adapter off and leave them off
        for role in ROLES:
            for parameter in self.parameters(role):
                parameter.requires_grad_(True)

    def score(
        self,
        role: Role | None,
        token_ids: Tensor,
        places: tuple[Tensor, Tensor],
        allowed: Sequence[tuple[int, ...] | None],
        *,
        temperature: float = 1.0,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities of chosen tokens under a side's adapter, or under the bare base for `role=None`.

        Args:
            role: whose adapter.
            token_ids: [B, L], padded on the right.
            places: row and column of each scored token, [N] each; logits are made for these alone.
            allowed: what each of the N positions may hold.
            temperature: that of the sampling.
            attention_mask: [B, 1, L, L] bool, or None for causal attention.
            position_ids: [B, L], or None for 0, 1, 2, ...

        Returns:
            [N] in nats.
        """
        rows, columns = places
        with self.acting(role) as model:
            hidden = body(model)(
                input_ids=token_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
            ).last_hidden_state
            before = hidden[rows, columns - 1]  # [N, D] position t predicts token t + 1
            mask = choice_mask(allowed, self.backbone.free_mask)
            logprobs = constrained_logprobs(project(model, before), mask, temperature)
            return logprobs.gather(1, token_ids[rows, columns][:, None])[:, 0]


def _initialise(parameters: Sequence[nn.Parameter], *, seed: int) -> None:
    """Kaiming-uniform for A and zero for B, peft's own start, from a generator of our own."""
    generator = torch.Generator().manual_seed(seed)
    for first, second in zip(parameters[::2], parameters[1::2], strict=True):
        assert first.shape[0] == second.shape[1]  # A [r, in] and B [out, r]
        bound = math.sqrt(1 / first.shape[1])
        start = torch.empty(first.shape).uniform_(-bound, bound, generator=generator)
        first.data.copy_(start)
        second.data.zero_()
