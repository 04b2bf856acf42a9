"""The diagnosis of a turn, the last part of d_t, in the model's own words."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agents.models.decoding import Form, Free, decode, open_cache
from agents.models.policy import Policy
from agents.models.prompts import ASK_DIAGNOSIS
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.samples import TrainingSample
from agents.training.sharding import in_step

ROWS_AT_ONCE = 256
"""Diagnoses written side by side: a limit to memory; ours."""


def with_written_diagnoses(
    policy: Policy,
    samples: Sequence[TrainingSample],
    rng: np.random.Generator,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> list[TrainingSample]:
    """The samples with d_t made whole: the bare base is told x_t and the verdict and writes one sentence.

    The paper has a diagnosis written and publishes neither prompt nor writer; base, prompt and temperature 1 are ours.
    The writer sees nothing of the reply it speaks of, so a teacher has nothing to copy from it.

    Args:
        policy: whose base writes; adapters are off.
        samples: of one side, made with `diagnosed=False`.
        rng: all chance.
        processes: each process writes its share; all have the same samples and the same chance.

    Returns:
        The samples in the same order.
    """
    backbone = policy.backbone
    ask = backbone.encode(ASK_DIAGNOSIS)
    turns = [(n, place) for n, sample in enumerate(samples) for place in range(len(sample.turns))]
    seeds = rng.integers(2**63, size=len(turns))
    asked = [
        [*samples[n].token_ids[: turn.context_end], *turn.hindsight, *ask, *backbone.header]
        for n, place in turns
        for turn in (samples[n].turns[place],)
    ]
    own: dict[int, tuple[int, ...]] = {}
    mine = sorted(range(len(turns)), key=lambda t: len(asked[t]))[processes.rank :: processes.world_size]
    with in_step(policy, processes):
        for first in range(0, len(mine), ROWS_AT_ONCE):
            part = mine[first : first + ROWS_AT_ONCE]
            forms = [Form([Free(2 * backbone.max_reason_tokens)], backbone.newline_ids, backbone.newline) for _ in part]
            with policy.use_adapter(None) as model:
                cache, starts = open_cache(model, [() for _ in part])
                decode(
                    model,
                    cache,
                    starts,
                    [asked[t] for t in part],
                    forms,
                    [np.random.default_rng(int(seeds[t])) for t in part],
                    backbone.free_mask,
                    temperature=1.0,
                )
            for t, form in zip(part, forms, strict=True):
                own[t] = form.written[0]
    whole = {place: text for place, text in zip(turns, processes.merge(own), strict=True)}
    return [
        replace(
            sample,
            turns=tuple(
                replace(turn, hindsight=(*turn.hindsight, *whole[n, place])) for place, turn in enumerate(sample.turns)
            ),
        )
        for n, sample in enumerate(samples)
    ]
