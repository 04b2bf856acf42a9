"""coars export: the adapters of a run, or its base with one of them merged in, for use elsewhere."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from huggingface_hub import HfApi, get_token
from rich.console import Console

from agents.models.policy import ADAPTERS, Policy
from agents.runs.card import adapter_cards, model_card
from agents.runs.checkpoint import ADAPTERS_FOLDER, Checkpoint, Origin, is_finished, put_adapters
from agents.runs.config import as_json, open_split, run_config
from agents.runs.record import read_metrics
from agents.runs.run import new_policy, open_backbone
from agents.training.update import new_optimizers
from coars_env import RECOMMENDER, USER, CoarsError, ConfigError, Role


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write the adapters of a run, each loadable by plain peft, or a model with one of them merged in."""

    run: tyro.conf.Positional[Path]
    """Folder that `coars train` wrote. Of a run that is not finished the last checkpoint is taken."""
    out: Path
    """New folder."""
    merge: Literal["recommender", "user"] | None = None
    """Side whose adapter is merged into the base, in fp32: the folder is then an ordinary transformers one."""
    push: str | None = None
    """Repository of the Hugging Face hub, "name/of-it", to upload the folder to. Made if there is none, and private."""


def main(argv: Sequence[str]) -> None:
    """`coars export RUN --out FOLDER`."""
    config = tyro.cli(ExportConfig, prog="coars export", args=list(argv))
    api = HfApi()
    if config.push is not None:
        check_token(api)
    export(config.run, config.out, merge={"recommender": RECOMMENDER, "user": USER, None: None}[config.merge])
    console = Console()
    console.print(f"written to {config.out}")
    if config.push is not None:
        console.print(f"uploaded to {push(config.out, config.push, api)}")


def export(run: Path, out: Path, *, merge: Role | None = None) -> None:
    """Write what a run has learnt, with model cards.

    Args:
        run: its folder.
        out: new folder: `recommender` and `user` in peft's format; or, with `merge`, one model in transformers'.
        merge: whose adapter is merged into the base.

    Raises:
        ConfigError: `out` is not empty; or a merge into a quantized base.
        CheckpointError: no run, a damaged one, or one of another base or other data.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"An export has a folder to itself. Expected an empty or new one, found {out}. Name another.")
    config = run_config(run, finished=False)
    if merge is not None and config.bits is not None:
        raise ConfigError(
            f"An adapter is merged into whole matrices. Expected a base of such, found {config.bits} bits. "
            "Export the adapters, and merge them into the whole base with peft if that is near enough."
        )
    split = open_split(config.data)
    if is_finished(run):
        step = config.recipe.steps
        policy = Policy.load(open_backbone(config, split), run / ADAPTERS_FOLDER)
        origin = Origin(as_json(config), split.dataset.provenance.sha256, policy.base)
    else:
        saved, policy = Checkpoint.read(run), new_policy(config, split)
        step, origin = saved.step, Origin(as_json(config), split.dataset.provenance.sha256, policy.base)
        saved.restore(policy, new_optimizers(policy), origin)
    rows = read_metrics(run, step)
    out.mkdir(parents=True, exist_ok=True)
    if merge is None:
        put_adapters(policy, out, adapter_cards(origin, split, rows))
    else:
        place = Path(str(policy.backbone.model.name_or_path))
        model = policy.peft.merge_and_unload(adapter_names=[ADAPTERS[merge]])
        model.save_pretrained(out)
        policy.backbone.tokenizer.save_pretrained(out)
        if (place / "pocket.json").is_file():  # so that it stays a pocket to `coars train --backbone`
            shutil.copy(place / "pocket.json", out)
        (out / "README.md").write_text(model_card(merge, origin, split, rows, merged=True), encoding="utf-8")


def check_token(api: HfApi) -> None:
    """Refuse to upload without a token.

    Raises:
        ConfigError: nobody is logged in to the hub.
    """
    if not (api.token or get_token()):
        raise ConfigError(
            "Uploading needs a token of the Hugging Face hub. Expected one in HF_TOKEN or from `hf auth login`, found "
            "none. Log in, or leave --push out."
        )


def push(folder: Path, repo: str, api: HfApi) -> str:
    """Upload a folder in one commit.

    Returns:
        The address of the repository.

    Raises:
        CoarsError: the hub refused, or could not be reached.
    """
    try:
        made = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Written by coars export")
    except Exception as error:  # the hub, its client and the network each have errors of their own
        raise CoarsError(
            f"An upload needs the hub. Expected it to take {folder} as {repo}, found {error!r}. The folder is whole: "
            f"hf upload {repo} {folder}"
        ) from error
    return str(made)
