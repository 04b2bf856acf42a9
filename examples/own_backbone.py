"""A backbone of one's own in one file: any transformers causal language model with a chat template.

    python examples/own_backbone.py     # two updates in an invented world, some seconds
    PYTHONPATH=examples coars train --backbone own_backbone:small_llama

The model here is a Llama with random weights over pocket's tokenizer, in which every title is one token. It knows
nothing; a real one would come from a folder or a hub, by `agents.models.backbones.causal_lm.load_causal_lm`.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agents.models.backbones import Backbone, load
from agents.models.backbones.pocket import train_tokenizer
from agents.models.policy import Policy
from agents.training.coars import Coars
from agents.training.recipe import Setting, run_recipe
from coars_env import Split, builder, load_split


def small_llama(split: Split) -> Backbone:
    """Make a small Llama for the titles of a split; equal splits give equal weights."""
    tokenizer = train_tokenizer(split)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return Backbone(model, tokenizer, list_separator="", max_reason_tokens=8)


def main() -> None:
    split = load_split("synthetic", users=60, items=80, interactions=1500)
    policy = Policy(load("own_backbone:small_llama", split), rank=4, alpha=8)
    run_recipe(
        Coars(steps=2, episodes_per_step=16, max_turns=2),
        Setting(policy=policy, split=split),
        builder(split, num_candidates=8),
        on_step=lambda step, metrics, _: print(
            f"update {step + 1}: Hit@1 {metrics['hit_first']:.2f}, entropy {metrics['rec_surprise']:.2f} nats a token"
        ),
    )


if __name__ == "__main__":
    main()
