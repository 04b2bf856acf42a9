"""Policy: one frozen base model, two LoRA adapters, one for each side of the dialogue."""

import contextlib
import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from agents.models.backbones.backbone import Backbone, body, project
from agents.models.decoding import Allowed, additive, choice_mask, constrained_logprobs
from coars_env import RECOMMENDER, ROLES, USER, CheckpointError, ConfigError, Role

ADAPTERS: dict[str, str] = {RECOMMENDER: "recommender", USER: "user"}
"""Name of each side's adapter."""


class Policy:
    """Two trainable policies over one backbone. `with policy.use_adapter(role): ...` makes one side's adapter the live
    one.

    The adapters stay in `eval` mode without dropout, so rollout, teacher and student see the same network.

    Raises:
        ConfigError: the backbone carries adapters already.
    """

    logits_at_once: int = 2**26
    """Most logits that `score` makes in one piece: a quarter of a gigabyte in fp32; ours."""

    def __init__(self, backbone: Backbone, *, rank: int = 16, alpha: int = 32, seed: int = 0) -> None:
        config = LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        self._wrap(backbone, dict.fromkeys(ROLES, config))
        for side, role in enumerate(ROLES):
            _initialise(self.parameters(role), seed=seed * len(ROLES) + side)

    @classmethod
    def load(cls, backbone: Backbone, folder: Path) -> "Policy":
        """Put the adapters saved by `save` on a backbone.

        Raises:
            CheckpointError: no adapters there, damaged ones, or adapters of another base. The backbone is left as it
                was.
            ConfigError: the backbone carries adapters already.
        """
        self = cls.__new__(cls)
        try:
            _check_base(backbone, folder)
            configs = {role: _saved_config(folder / ADAPTERS[role]) for role in ROLES}
            weights = {role: load_file(folder / ADAPTERS[role] / "adapter_model.safetensors") for role in ROLES}
            self._wrap(backbone, configs)
            try:
                for role in ROLES:
                    self._set_weights(role, weights[role])
            except Exception:
                self.peft.unload()
                raise
        except ConfigError:
            raise
        except Exception as error:  # peft, safetensors and json each have errors of their own
            raise CheckpointError(
                f"Adapters are read from two folders written by `coars train`. Expected {sorted(ADAPTERS.values())} "
                f"that fit the base model in {folder}, found {error}. Check the path and the backbone."
            ) from error
        return self

    def _wrap(self, backbone: Backbone, configs: Mapping[Role, LoraConfig]) -> None:
        if any(isinstance(module, BaseTunerLayer) for module in backbone.model.modules()):
            raise ConfigError(
                "A backbone carries one policy. Expected one without adapters, found some on it. Load it again, "
                "or take the other policy off with `policy.peft.unload()`."
            )
        self.backbone = backbone
        self.base = fingerprint(backbone.model)
        """`fingerprint` of the base, taken while this process holds all of it."""
        first, *rest = ROLES
        devices = [] if backbone.device.type == "cpu" else [backbone.device]
        with torch.random.fork_rng(devices), warnings.catch_warnings():  # peft draws a start of its own; it is replaced
            warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers under an old name
            peft = get_peft_model(backbone.model, configs[first], adapter_name=ADAPTERS[first])
            assert isinstance(peft, PeftModel)
            self.peft: PeftModel = peft
            for role in rest:
                self.peft.add_adapter(ADAPTERS[role], configs[role])
        self.peft.set_adapter(ADAPTERS[first])
        self.peft.eval()
        named = list(self.peft.named_parameters())
        self._named = {role: [(n, p) for n, p in named if f".{ADAPTERS[role]}." in n] for role in ROLES}
        self._train_all()

    def _set_weights(self, role: Role, weights: dict[str, Tensor]) -> None:
        expected = get_peft_model_state_dict(self.peft, adapter_name=ADAPTERS[role], save_embedding_layers=False)
        shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
        if (found := {name: tuple(tensor.shape) for name, tensor in weights.items()}) != shapes:
            differing = sorted(shapes.items() ^ found.items())
            raise ValueError(f"{ADAPTERS[role]} of another shape, for instance {differing[0]}")
        set_peft_model_state_dict(self.peft, weights, adapter_name=ADAPTERS[role])

    def save(self, folder: Path) -> None:
        """Write both adapters in peft's own format: `PeftModel.from_pretrained(base, folder / "recommender")`."""
        # without the last argument peft asks the hub whether the vocabulary was resized
        self.peft.save_pretrained(str(folder), selected_adapters=list(ADAPTERS.values()), save_embedding_layers=False)
        (folder / "base.json").write_text(json.dumps({"fingerprint": self.base}))

    def named_parameters(self, role: Role) -> list[tuple[str, nn.Parameter]]:
        """The adapter's tensors, found by name: which of them ask for a gradient changes with the live adapter."""
        return self._named[role]

    def parameters(self, role: Role) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._named[role]]

    @contextlib.contextmanager
    def use_adapter(self, role: Role | None) -> Iterator[PreTrainedModel]:
        """The base model with this side's adapter live, or with none for `None`."""
        base = self.peft.get_base_model()
        assert isinstance(base, PreTrainedModel)
        try:
            if role is None:
                with self.peft.disable_adapter():
                    yield base
            else:
                if self.peft.active_adapter != ADAPTERS[role]:
                    self.peft.set_adapter(ADAPTERS[role])
                yield base
        finally:
            self._train_all()

    @contextlib.contextmanager
    def use_weights(self, role: Role, weights: Sequence[Tensor]) -> Iterator[None]:
        """An adapter with other weights for a moment; order as in `parameters`."""
        own = [parameter.data for parameter in self.parameters(role)]
        try:
            for parameter, other in zip(self.parameters(role), weights, strict=True):
                parameter.data = other
            yield
        finally:
            for parameter, data in zip(self.parameters(role), own, strict=True):
                parameter.data = data

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
        allowed: Sequence[Allowed],
        *,
        temperature: float = 1.0,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Log-probabilities of chosen tokens under a side's adapter, or under the bare base for `role=None`.

        Args:
            role: whose adapter.
            token_ids: [B, L], padded on the right.
            places: row and column of each scored token, [N] each; logits are made for these alone.
            allowed: what each of the N positions may hold.
            temperature: that of the sampling.
            attention_mask: [B, 1, L, M + L] bool, or None for causal attention.
            position_ids: [B, L], or None for 0, 1, 2, ...
            cache: holds M columns read before, and takes the L of this pass.

        Returns:
            [N] in nats.
        """
        rows, columns = places
        with self.use_adapter(role) as model:
            hidden = body(model)(
                input_ids=token_ids,
                attention_mask=None if attention_mask is None else additive(attention_mask, model.dtype),
                position_ids=position_ids,
                cache=cache,
                use_cache=cache is not None,
            ).last_hidden_state
        before = hidden[rows, columns - 1]  # [N, D] position t predicts token t + 1
        tokens = token_ids[rows, columns]

        def chosen(before: Tensor, tokens: Tensor, allowed: Sequence[Allowed]) -> Tensor:
            mask = choice_mask(allowed, self.backbone.free_mask)
            logprobs = constrained_logprobs(project(model, before), mask, temperature)
            return logprobs.gather(1, tokens[:, None])[:, 0]

        size = max(1, self.logits_at_once // self.backbone.vocabulary)
        if len(tokens) <= size:
            return chosen(before, tokens, allowed)
        # the logits of one piece at a time; backward makes them again
        parts = [slice(first, first + size) for first in range(0, len(tokens), size)]
        again = torch.is_grad_enabled()
        return torch.cat(
            [
                checkpoint(chosen, before[p], tokens[p], allowed[p], use_reentrant=False)
                if again
                else chosen(before[p], tokens[p], allowed[p])
                for p in parts
            ]
        )


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of names, shapes and first numbers of a base model's tensors, the same in fp32 and bf16 and with or
    without adapters: to tell bases of one shape apart.
    """
    h = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not any(f".{adapter}." in name for adapter in ADAPTERS.values()):
            start = parameter.detach().flatten()[:256].to("cpu", torch.bfloat16).view(torch.int16)
            h.update(f"{name.replace('.base_layer', '')} {tuple(parameter.shape)}".encode())
            h.update(start.numpy().tobytes())
    return h.hexdigest()


def _check_base(backbone: Backbone, folder: Path) -> None:
    """Adapters saved before fingerprints were have none, and are taken on trust."""
    if (folder / "base.json").is_file():
        saved = json.loads((folder / "base.json").read_text(encoding="utf-8"))["fingerprint"]
        if saved != fingerprint(backbone.model):
            raise ValueError("adapters of a base model with other weights")


def _saved_config(folder: Path) -> LoraConfig:
    if not (folder / "adapter_config.json").is_file():  # peft would take the path for a hub name
        raise FileNotFoundError(f"no adapter_config.json in {folder}")
    config = LoraConfig.from_pretrained(str(folder))
    assert isinstance(config, LoraConfig)
    config.base_model_name_or_path = None  # the path at saving time; another one here is no cause for a warning
    return config


def _initialise(parameters: Sequence[nn.Parameter], *, seed: int) -> None:
    """Kaiming-uniform for A and zero for B, peft's own start, from a generator of our own."""
    generator = torch.Generator().manual_seed(seed)
    for first, second in zip(parameters[::2], parameters[1::2], strict=True):
        assert first.shape[0] == second.shape[1]  # A [r, in] and B [out, r]
        bound = math.sqrt(1 / first.shape[1])
        start = torch.empty(first.shape).uniform_(-bound, bound, generator=generator)
        first.data.copy_(start)
        second.data.zero_()
