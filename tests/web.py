"""A tiny model behind a real socket, shared by the tests of the server."""

import http.client
import json
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from helpers import KINDS, randomize

import lora
from minigpt import GPT, GPTConfig
from minigpt.generation import generate
from minigpt.tokenizer import Tokenizer
from minigpt.tuning import adapter, mixed, prefix, prompt
from minigpt.web import opening
from minigpt.web.app import make_app
from minigpt.web.server import Server, listen

BYTES = Tokenizer.train([""], 257)  # a token is a byte, and 256 is the end of text
E = BYTES.eot
SENTENCE = "患者咳嗽三天😀。"


def make(kind="gpt2", std=0.3, context=80, **changes) -> GPT:
    sizes = {"vocab_size": 257, "context": context, "n_layers": 2, "n_heads": 4, "d_model": 32}
    torch.manual_seed(0)
    return randomize(GPT(GPTConfig(**sizes | KINDS[kind] | changes)).eval(), std)


def by_heart(text: str = SENTENCE) -> GPT:
    """A model that writes one sentence, whatever happens."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=257, context=64, n_layers=1, n_heads=2, d_model=64))
    row = torch.tensor([[E, *BYTES.encode(text), E]])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(model(row[:, :-1])[0], row[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def tune(gpt: GPT) -> dict[str, str]:
    """One adapter of each kind, far from the base: directory -> the name it is attached by."""
    lora.attach(gpt, lora.Config(r=2, alpha=4, targets="all-linear"), "a1")
    lora.attach(gpt, lora.Config(r=2, alpha=4, dora=True), "a2")
    adapter.attach(gpt, adapter.Config(bottleneck=5), "a3")
    prompt.attach(gpt, prompt.Config(length=3, start="uniform"), "a4")
    prefix.attach(gpt, prefix.Config(length=4, hidden=6), "a5")
    for module in gpt.modules():
        if isinstance(added := getattr(module, "learned_in", None), str):
            randomize(getattr(module, added), 0.3)
    return {"runs/letters": "a1", "runs/dora": "a2", "runs/houlsby": "a3", "runs/prompt": "a4", "runs/prefix": "a5"}


def studio_of(gpt: GPT, names: dict[str, str] | None = None, **more):
    adapters = SimpleNamespace(names={"base": None} | (names or {}))
    return opening.of_model(opening.Path("runs/notes"), gpt, BYTES, adapters, lora, **more)


@contextmanager
def served(studio, **options):
    """The port of a server that runs on a thread of its own."""
    with running(studio, **options) as (port, _):
        yield port


@contextmanager
def running(studio, **options):
    """The port, and the server that listens there."""
    listener = listen("127.0.0.1", 0)
    server = Server(make_app(studio, **options), studio)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        yield listener.getsockname()[1], server
    finally:
        server.handle_exit(2, None)
        thread.join(10)
        assert not thread.is_alive()


def wait_for(holds, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.005)


def ask(port: int, method: str, path: str, body=None, **headers) -> SimpleNamespace:
    """One request: status, headers, raw body, and the JSON in it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    try:
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"Content-Type": "application/json"} | headers
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        raw = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return SimpleNamespace(
            status=answer.status, headers=answer.headers, raw=raw, json=json.loads(raw) if is_json and raw else None
        )
    finally:
        connection.close()


def complete(port: int, **fields) -> dict:
    found = ask(port, "POST", "/v1/completions", fields)
    assert found.status == 200, found.raw
    return found.json


def alone(gpt: GPT, name: str | None, ids: list[int], row: int = 0, **options) -> list[int]:
    """The tokens of `generate` for one prompt with one adapter."""
    (whole,) = mixed.begin(gpt, [name], [ids])
    with mixed.alike(gpt, name, 1, lora):
        return generate(gpt, [whole], row=row, eos=E, **options)[0]


@contextmanager
def base_of(gpt: GPT):
    with mixed.alike(gpt, None, 1, lora):
        yield gpt


def text_of(tokens: list[int]) -> str:
    """Their text, without half a character at its end."""
    stream = BYTES.stream()
    return "".join(stream.push(token) for token in tokens if token != E)
