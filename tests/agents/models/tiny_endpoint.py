"""A server for tests that speaks OpenAI's chat completions, and misbehaves as it is told.

    python tests/agents/models/tiny_endpoint.py [POCKET]

It prints its address and ends when its standard input is closed. Under the model "pocket" a pocket backbone answers
under constraint. Under "script" the first line of the last message is a list of steps in JSON, one for each time that
this line comes, the last for all later times; a step is a dict with some of

    text, finish, tokens    the reply, in which $KEY is the caller's key, why it ends, and its tokens [read, written]
    status, headers         refuses
    body                    these bytes, as Latin-1, instead of a chat completion
    wait                    seconds of silence before it
    cut, drip               breaks off in the body; sends a byte of it every tenth of a second, for ten seconds

The first part of an address may ask for /locked, which takes the key "open-sesame" only and sends wrong ones back, or
/plain, which refuses response_format. GET /seen tells what was asked since it was last told.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, pocket: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.seen: list[dict[str, Any]] = []
        self.times: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.pocket = Pocket(pocket) if pocket else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits 40 ms for the headers to be acknowledged
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            seen = {"most_at_once": self.server.most_at_once, "requests": self.server.seen}
            self.server.most_at_once, self.server.seen = 0, []
        self.send(200, seen)

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Authorization"].removeprefix("Bearer ")
        with server.lock:
            server.seen.append({"at": time.monotonic(), "key": key, "body": body})
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self.answer(body, key)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # who asked has gone
        finally:
            with server.lock:
                server.at_once -= 1

    def answer(self, body: dict[str, Any], key: str) -> None:
        if self.path.startswith("/locked") and key != "open-sesame":
            self.send(401, {"error": {"message": f"Incorrect API key provided: {key}."}})
        elif self.path.startswith("/plain") and "response_format" in body:
            self.send(400, {"error": {"message": "Unknown parameter: response_format."}})
        elif not self.path.endswith("/v1/chat/completions"):
            self.send(404, {"error": {"message": "Not Found"}})
        elif body["model"] == "pocket" and self.server.pocket:
            with self.server.lock:
                text, tokens = self.server.pocket.answer(body)
            self.send(200, completion(text, "stop", tokens))
        elif body["model"] == "script":
            script = body["messages"][-1]["content"].partition("\n")[0]
            with self.server.lock:
                steps = json.loads(script)
                step = steps[min(self.server.times[script], len(steps) - 1)]
                self.server.times[script] += 1
            self.play(step, key)
        else:
            self.send(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})

    def play(self, step: dict[str, Any], key: str) -> None:
        time.sleep(step.get("wait", 0))
        if "status" in step:
            self.send(step["status"], {"error": {"message": "refused"}}, step.get("headers", {}))
        elif "body" in step:
            self.send(200, step["body"].encode("latin-1"))
        elif "cut" in step or "drip" in step:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "100")
            self.end_headers()
            for _ in range(1 if "cut" in step else 100):
                self.wfile.write(b" ")
                time.sleep(0 if "cut" in step else 0.1)
            self.close_connection = True
        else:
            text = step["text"] and step["text"].replace("$KEY", key)
            self.send(200, completion(text, step.get("finish", "stop"), step.get("tokens", [10, 5])))

    def send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


def completion(text: str | None, finish: str, tokens: list[int] | None) -> dict[str, Any]:
    usage = {"usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}} if tokens else {}
    message = {"role": "assistant", "content": text}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        **usage,
    }


class Pocket:
    """A backbone under constraint. It writes no label into a free text, and is not told of the form."""

    def __init__(self, folder: Path) -> None:
        import torch  # here, so that a server of scripts starts in a moment

        from agents.models.backbones.pocket import open_pocket
        from agents.models.language_model import LocalModel

        torch.set_num_threads(1)
        backbone = open_pocket(folder)
        backbone.max_reason_tokens = 6
        backbone.free_mask[backbone.encode_all(("Reason:", "Item:", "Action:", "Score:"))] = False
        self.model = LocalModel(backbone, "pocket")

    def answer(self, body: dict[str, Any]) -> tuple[str, list[int]]:
        """A reply in the fields that the system message lists, and its tokens."""
        from agents.models.api import FORM, FORM_JSON
        from agents.models.fields import Field, Number, OneOf, Text
        from agents.models.language_model import Request

        system, *messages = [message["content"] for message in body["messages"]]
        structured = "response_format" in body
        told, form = system.split("\n\n" + (FORM_JSON if structured else FORM))
        fields = []
        for line in form.split("\n")[1:]:
            name, _, what = line.partition(":")
            if what.startswith(" <text"):
                fields.append(Field(name, Text()))
            elif what.startswith(" <a number"):
                fields.append(Field(name, Number(0, 1, 0.05)))
            else:
                fields.append(Field(name, OneOf(tuple(option.strip() for option in what.split(" |")))))
        (reply,) = self.model.answer(
            [Request(told, tuple((text,) for text in messages), tuple(fields), (body["seed"],))]
        )
        assert reply.values is not None
        text = reply.text
        if structured:
            text = json.dumps({field.label[:-1]: value for field, value in zip(fields, reply.values, strict=True)})
        return text, [reply.usage.tokens_read, reply.usage.tokens_written]


def main() -> None:
    server = Server(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # until it is closed: whoever started this need not live to end it
    os._exit(0)


if __name__ == "__main__":
    main()
