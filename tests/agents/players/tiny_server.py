"""A server for tests that speaks as much of vLLM's protocol as `agents.players.served` asks for: tiny, slow and exact.

    python tests/agents/players/tiny_server.py BASE [--other BASE] [--mortal N]

It prints its address, and with --mortal that of a second process, which dies when it is asked for more than N replies.
Both end when their standard input is closed.

It serves a transformers model with peft adapters that are loaded and unloaded while it runs. Every token is sampled
by a plain forward pass of transformers. The first part of an address may ask for a server with a fault:
/raw (log-probabilities before the constraint), /no-ids (no token ids), /other (the other base), /refuses (loads no
adapters); and, where a token may be one of several, /disobedient (takes no notice of that) and /slow (answers after a
second). GET /seen tells how much it has done.
"""

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

FAULTS = ("raw", "no-ids", "other", "disobedient", "refuses", "slow")


class Refused(Exception):
    """A request that cannot be answered: status, message."""


class Served:
    """One base and its adapters."""

    def __init__(self, base: Path) -> None:
        self.base = AutoModelForCausalLM.from_pretrained(base).eval()
        self.adapters: dict[str, str] = {}
        self.lock = threading.Lock()

    def load(self, name: str, path: str) -> None:
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        if not (Path(path) / "adapter_config.json").is_file():
            raise Refused(404, f"No adapter found for {path}.")
        self.adapters[name] = path
        if isinstance(self.base, PeftModel):
            self.base.load_adapter(path, adapter_name=name)
        else:
            self.base = PeftModel.from_pretrained(self.base, path, adapter_name=name)
        self.base.eval()

    def unload(self, name: str) -> None:
        if name not in self.adapters:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        if self.adapters:
            self.base.delete_adapter(name)
        else:
            self.base = self.base.unload()

    @torch.no_grad()
    def complete(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        if body["model"] not in self.adapters:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        self.base.set_adapter(body["model"])
        generator = torch.Generator().manual_seed(body["seed"])
        allowed = body.get("allowed_token_ids")
        if fault == "disobedient" and allowed is not None and len(allowed) > 1:
            allowed = None
        tokens: list[int] = []
        logprobs: list[float] = []
        unread, cache = body["prompt"], None
        for _ in range(body["max_tokens"]):
            out = self.base(input_ids=torch.tensor([unread]), cache=cache, use_cache=True, logits_to_keep=1)
            raw, cache = out.logits[0, -1].float(), out.past_key_values
            logits = raw.clone()
            for token, bias in body.get("logit_bias", {}).items():
                logits[int(token)] += bias
            if len(tokens) < body.get("min_tokens", 0):
                logits[body["stop_token_ids"]] = -torch.inf
            if allowed is not None:
                outside = torch.ones_like(logits, dtype=torch.bool)
                outside[allowed] = False
                logits[outside] = -torch.inf
            processed = (logits / (body["temperature"] or 1.0)).log_softmax(-1)
            greedy = body["temperature"] == 0
            token = int(processed.argmax() if greedy else torch.multinomial(processed.exp(), 1, generator=generator))
            unread = [token]
            tokens.append(token)
            logprobs.append(float((raw.log_softmax(-1) if fault == "raw" else processed)[token]))
            if token in body.get("stop_token_ids", ()):
                break
        choice: dict[str, Any] = {"index": 0, "text": "", "logprobs": {"token_logprobs": logprobs}}
        if body["return_token_ids"] and fault != "no-ids":
            choice["token_ids"] = tokens
        return {"object": "text_completion", "model": body["model"], "choices": [choice]}


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, base: Path, other: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.main = Served(base)
        self.other = Served(other) if other else None
        self.left: int | None = None  # replies before it dies
        self.counting = threading.Lock()
        self.seen = {"completions": 0, "at_once": 0, "most_at_once": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits 40 ms for the headers to be acknowledged
    server: Server

    def do_GET(self) -> None:
        self.answer(200, self.server.seen)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        first, _, rest = self.path.lstrip("/").partition("/")
        fault, path = (first, rest) if first in FAULTS else (None, f"{first}/{rest}")
        served = self.server.other if fault == "other" else self.server.main
        assert served is not None
        try:
            if path == "v1/completions":
                self.answer(200, self.complete(served, body, fault))
            elif path == "v1/load_lora_adapter" and fault != "refuses":
                with served.lock:
                    served.load(body["lora_name"], body["lora_path"])
                self.answer(200, "Success: added.")
            elif path == "v1/unload_lora_adapter":
                with served.lock:
                    served.unload(body["lora_name"])
                self.answer(200, "Success: removed.")
            else:
                raise Refused(404, "Not Found")
        except Refused as refused:
            status, message = refused.args
            self.answer(status, {"error": {"message": message, "code": status}})

    def complete(self, served: Served, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        server, seen = self.server, self.server.seen
        with server.counting:
            if server.left == 0:
                os._exit(1)
            server.left = None if server.left is None else server.left - 1
            seen["completions"] += 1
            seen["at_once"] += 1
            seen["most_at_once"] = max(seen["most_at_once"], seen["at_once"])
        try:
            if fault == "slow" and len(body.get("allowed_token_ids", ())) > 1:
                time.sleep(1)
            with served.lock:
                return served.complete(body, fault)
        finally:
            with server.counting:
                seen["at_once"] -= 1

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--mortal", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    server = Server(options.base, options.other)
    addresses = [f"http://127.0.0.1:{server.server_port}"]
    if options.mortal is not None:
        second = Server(options.base, None)
        second.left = options.mortal
        addresses.append(f"http://127.0.0.1:{second.server_port}")
        if os.fork():
            second.server_close()
        else:
            server.server_close()
            serve(second)
    print(*addresses, flush=True)
    serve(server)


def serve(server: Server) -> None:
    """Until the standard input is closed: whoever started it need not live to end it."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
