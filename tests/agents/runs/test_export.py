"""What leaves a run: adapters for plain peft, a merged model for plain transformers, cards, an upload."""

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from agents.models.backbones.pocket import PocketConfig, load_pocket, open_pocket
from agents.models.policy import ADAPTERS, Policy
from agents.runs.card import model_card
from agents.runs.checkpoint import ADAPTERS_FOLDER, CHECKPOINT, Origin
from agents.runs.config import DataConfig, TrainConfig, as_json, open_split, run_config
from agents.runs.export import check_token, export, main, push
from agents.runs.run import train_once
from agents.training.coars import Coars
from coars_env import RECOMMENDER, ROLES, USER, CheckpointError, CoarsError, ConfigError, load_split

IDS = torch.arange(5, 17)[None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that `coars train` could have made: its world has a name."""
    folder = tmp_path_factory.mktemp("export")
    data = DataConfig(dataset="synthetic", source="synthetic")
    split = load_split("synthetic", source="synthetic")
    load_pocket(split, PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8), cache_dir=folder / "pocket")
    (backbone,) = (folder / "pocket").iterdir()
    recipe = Coars(steps=1, episodes_per_step=4, max_turns=1, learning_rate_user=0.5)
    config = TrainConfig(out=folder / "run", backbone=str(backbone), lora_rank=2, data=data, recipe=recipe, log="none")
    return train_once(config, split)


def backbone_of(run: Path) -> Path:
    return Path(json.loads((run / "config.json").read_text())["config"]["backbone"])


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found = model.eval()(input_ids=IDS).logits
    assert isinstance(found, Tensor)
    return found


def trained_logits(run: Path, role: str) -> Tensor:
    policy = Policy.load(open_pocket(backbone_of(run)), run / ADAPTERS_FOLDER)
    with policy.use_adapter(role) as model:
        return logits(model)


@pytest.mark.parametrize("role", ROLES)
def test_adapters_load_in_plain_peft(run: Path, tmp_path: Path, role: str) -> None:
    export(run, tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(backbone_of(run))
    bare = logits(base)
    found = logits(PeftModel.from_pretrained(base, str(tmp_path / "out" / ADAPTERS[role])))
    assert torch.allclose(found, trained_logits(run, role), atol=1e-5)
    assert not torch.allclose(found, bare, atol=1e-4)


@pytest.mark.parametrize("role", ROLES)
def test_a_merged_model_is_the_base_with_its_adapter(run: Path, tmp_path: Path, role: str) -> None:
    export(run, tmp_path / "out", merge=role)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(plain), trained_logits(run, role), atol=1e-4)
    again = open_pocket(tmp_path / "out")  # still a base to train on
    assert torch.equal(logits(again.model), logits(plain))
    assert "library_name: transformers" in (tmp_path / "out" / "README.md").read_text()


def test_an_unfinished_run_gives_what_its_checkpoint_holds(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / ADAPTERS_FOLDER)
    export(tmp_path / "run", tmp_path / "out")
    for role in ROLES:
        name = f"{ADAPTERS[role]}/adapter_model.safetensors"
        assert (tmp_path / "out" / name).read_bytes() == (run / ADAPTERS_FOLDER / name).read_bytes()
    (tmp_path / "run" / CHECKPOINT).unlink()
    with pytest.raises(CheckpointError, match="A run goes on from a whole checkpoint"):
        export(tmp_path / "run", tmp_path / "more")


def test_a_card_says_what_the_run_wrote_down(run: Path) -> None:
    recorded = json.loads((run / "metrics.jsonl").read_text())
    written = json.loads((run / "config.json").read_text())
    for role in (RECOMMENDER, USER):
        card = (run / ADAPTERS_FOLDER / ADAPTERS[role] / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: peft\n")
        assert "base_model" not in card.partition("\n---\n")[0]  # a local base has no name on the hub
        assert f"- synthetic data `{written['data']['origin']}`, SHA-256 `{written['data']['sha256']}`" in card
        assert "- split `leave_last`: " in card
        assert "- licence of the data: Invented data, free to use." in card
        assert "1 of 1 updates, seed 0." in card
        assert f"| Hit@1 of the last proposal | {recorded['hit_final']:.3f} |" in card
        assert f"| entropy of the user, nats a token | {recorded['user_surprise']:.3f} |" in card
        settings = json.loads(card.partition("```json\n")[2].partition("```")[0])
        assert settings["recipe"] == written["config"]["recipe"]
        code = card.partition("```python\n")[2].partition("```")[0]
        compile(code, "card", "exec")
        assert f'"{ADAPTERS[role]}"' in code
        assert str(run.parent) not in card  # nothing of this machine
    both = (run / ADAPTERS_FOLDER / "README.md").read_text()
    assert "[user](user/README.md)" in both
    assert "More Information Needed" not in both


def test_a_card_says_who_learnt(run: Path) -> None:
    config = run_config(run)
    split = open_split(config.data)
    origin = Origin(as_json(config), "0" * 64, "0" * 64)
    rows = [{"user_gradient": 1.0}]
    assert "It learnt from a partner that did not; recipe `agents." in model_card(USER, origin, split, rows)
    assert "It is as it began; its partner was trained; recipe" in model_card(RECOMMENDER, origin, split, rows)
    assert "It is as it began; recipe" in model_card(USER, origin, split, [])


def test_the_command_exports_into_a_new_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run), "--out", str(tmp_path / "out"), "--merge", "user"])
    assert (tmp_path / "out" / "config.json").is_file()
    assert "written to" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"An export has a folder to itself\. Expected an empty or new one, found "):
        main([str(run), "--out", str(tmp_path / "out")])


# The hub --------------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """The four addresses of the hub that an upload of small files asks for. What it was told is in `received`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        received: dict[str, Any] = self.server.received  # type: ignore[attr-defined]
        received[self.path] = body
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            answer = {"url": f"http://{self.headers['Host']}/me/adapters", "name": "me/adapters"}
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            answer = {"files": files}
        elif "/commit/" in self.path:
            answer = {"commitUrl": f"http://{self.headers['Host']}/me/adapters/commit/1", "commitOid": "1"}
        self._answer(answer)

    def do_GET(self) -> None:
        self._answer({"sha": "0", "id": "me/adapters", "siblings": []})

    def _answer(self, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hub() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    server.received = {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_upload_carries_every_file(
    run: Path, tmp_path: Path, hub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    export(run, tmp_path / "out")
    api = HfApi(endpoint=f"http://127.0.0.1:{hub.server_port}", token="hf_test")
    push(tmp_path / "out", "me/adapters", api)
    received: dict[str, bytes] = hub.received  # type: ignore[attr-defined]
    assert json.loads(received["/api/repos/create"])["visibility"] == "private"
    (commit,) = (body for path, body in received.items() if "/commit/" in path)
    added = [line["value"] for line in map(json.loads, commit.splitlines()) if line["key"] == "file"]
    sent = {file["path"]: base64.b64decode(file["content"]) for file in added}
    files = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert sent == files
    assert "user/adapter_model.safetensors" in sent
    with pytest.raises(CoarsError, match=r"An upload needs the hub\. Expected it to take .* The folder is whole: hf "):
        push(tmp_path / "out", "no/name/at/all", api)


def test_an_upload_needs_a_token(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for before anything is written."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"Uploading needs a token of the Hugging Face hub\."):
        main([str(run), "--out", str(tmp_path / "out"), "--push", "me/adapters"])
    assert not (tmp_path / "out").exists()
    check_token(HfApi(token="hf_test"))
