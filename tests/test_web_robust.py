"""Many clients, broken clients and clients that vanish: every one is answered, and the others do not notice."""

import asyncio
import gc
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from web import BYTES, ask, complete, make, running, served, studio_of, tune, wait_for

from minigpt import GPT, Error
from minigpt.web.answering import Session
from minigpt.web.asking import Bias
from minigpt.web.worker import Channel

ROOT = Path(__file__).parents[1]
ENDLESS = {"logit_bias": {"256": -100}}  # the end-of-text token is never written


@pytest.fixture(scope="module")
def studio():
    gpt = make(context=3000)
    return studio_of(gpt, tune(gpt), max_rows=16, queue=200)


@pytest.fixture(scope="module")
def port(studio):
    with served(studio) as port:
        yield port


def written(studio) -> float:
    return studio.meters.registry.get_sample_value("minigpt_tokens_total", {"kind": "written"}) or 0.0


def request_of(fields: dict) -> bytes:
    body = json.dumps(fields).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_hundred_slow_clients_at_once(port):
    models = ["notes", "letters", "houlsby", "prompt", "prefix"]
    asked = [{"model": models[i % 5], "prompt": "a", "max_tokens": 6, "seed": i} | ENDLESS for i in range(100)]

    async def slow(fields: dict) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64)
        whole = request_of(fields | {"stream": True})
        for start in range(0, len(whole), 60):
            writer.write(whole[start : start + 60])
            await asyncio.sleep(0.05)
        found = b""
        while part := await reader.read(200):
            found += part
            await asyncio.sleep(0.01)
        writer.close()
        return found.decode()

    async def all_of_them():
        slowly = [asyncio.create_task(slow(fields)) for fields in asked]
        await asyncio.sleep(0.3)
        other = await asyncio.to_thread(complete, port, prompt="b", max_tokens=4, seed=1)
        return await asyncio.gather(*slowly), other

    found, other = asyncio.run(all_of_them())
    assert other["choices"][0]["text"] == complete(port, prompt="b", max_tokens=4, seed=1)["choices"][0]["text"]
    for fields, raw in zip(asked, found, strict=True):
        assert raw.startswith("HTTP/1.1 200") and raw.count("[DONE]") == 1
        chunks = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        if fields["seed"] % 10 == 0:
            assert text == complete(port, **fields)["choices"][0]["text"]


NUMBERS = (10**400, -1, 0, 1e308, -1e308, 2**64, 0.5, 1e-9, True, None, "1", [], {}, [[]], "\ud800", "x" * 3000)
FIELDS = ("model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "n", "seed",
          "presence_penalty", "frequency_penalty", "logit_bias", "stop", "stream", "stream_options", "details", "echo",
          "logprobs", "add_eot", "messages", "best_of", "suffix", "tools", "nonsense", "top_logprobs")  # fmt: skip


def broken_bodies(count: int) -> list[tuple[str, bytes]]:
    """Paths and bodies that are wrong in every way we know; some happen to be right."""
    draw, found = random.Random(0), []
    valid = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    deep = b"[" * 100_000
    fixed = [b"", b"{", b"null", b"[]", b'"a"', b"1", b'{"prompt": NaN}', b'{"n": Infinity}', b"\xff\xfe", deep,
             b'{"prompt":' * 5000, b'{"prompt": "\xe6\x82"}', b'{"n": 1' + b"0" * 5000 + b"}", b'{"a":1}{"b":2}',
             b'{"prompt": "\\ud800"}', b'{"\\ud800": 1}', b'{"prompt": ["a", ["b"]]}', b'{"prompt": [1, "a"]}',
             b'{"prompt": [[]]}', b'{"prompt": [-1]}', b'{"prompt": [1e9]}', b'{"prompt": [99999999999999999]}',
             b"\x00" * 10]  # fmt: skip
    for number in range(count):
        path = draw.choice(("/v1/completions", "/v1/chat/completions"))
        kind = number % 4
        if kind == 0:
            body = fixed[number // 4 % len(fixed)]
        elif kind == 1:  # bytes gone wrong
            body = bytearray(valid)
            for _ in range(draw.randint(1, 4)):
                body[draw.randrange(len(body))] = draw.randrange(256)
            body = bytes(body[: draw.randint(1, len(body))])
        else:  # fields gone wrong
            values = {draw.choice(FIELDS): draw.choice(NUMBERS) for _ in range(draw.randint(1, 3))}
            body = json.dumps({"prompt": "a", "max_tokens": 1} | values if kind == 2 else values).encode()
        found.append((path, body))
    return found


def test_a_thousand_malformed_requests(port, studio, capfd):
    refused, connection = 0, http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for path, body in broken_bodies(1000):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read()
        assert answer.status in (200, 400, 404), (path, body[:200], raw)
        if answer.status != 200:
            refused += 1
            message = json.loads(raw)["error"]["message"]
            assert message and "\n" not in message and len(message) < 600, (body[:200], message)
    connection.close()
    assert refused > 900
    assert complete(port, prompt="a", max_tokens=1)["usage"]["completion_tokens"] == 1
    assert studio.worker.asked == 0 and "Traceback" not in capfd.readouterr().err


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
NONSENSE = {
    b"GET\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": 400,  # somebody speaks TLS
    b"GET / HTTP/9.9\r\n\r\n": 403,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400,
    b"GET /v1/models HTTP/1.1\r\n\r\n": 400,
    HEAD + b"Content-Length: -5\r\n\r\n": 400,
    HEAD + b"Content-Length: 99999999999999999999\r\n\r\n": 413,
    HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n": 400,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n": 400,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n-1\r\n\r\n": 400,
    HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}": 400,
    HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n": 400,
    b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /%00%ff/../.. HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
}


@pytest.mark.parametrize("nonsense", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_on_the_wire(port, nonsense):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(nonsense)
        client.shutdown(socket.SHUT_WR)
        found = _all_of(client)
    assert found.startswith(b"HTTP/1.1 %d" % NONSENSE[nonsense]), found[:300]
    assert json.loads(found[found.index(b"\r\n\r\n") + 4 :])["error"]["message"]
    assert ask(port, "GET", "/healthz").status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_costs_a_few_tokens(port, studio, stream):
    before = written(studio)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request_of({"prompt": "a", "max_tokens": 2900, "n": 2, "stream": stream} | ENDLESS))
        wait_for(lambda: written(studio) > before + 10)
    wait_for(lambda: studio.worker.asked == 0 and studio.worker.engine.idle)
    assert written(studio) - before < 2900


def test_a_text_is_not_written_on_after_its_stop_string(port, studio):
    before = written(studio)
    asked = {"prompt": "a", "max_tokens": 2900, "stop": "b", "logit_bias": {BYTES.encode("b")[0]: 100}}
    assert complete(port, **asked)["usage"]["completion_tokens"] == 1
    wait_for(lambda: studio.worker.engine.idle)
    assert written(studio) - before < 50


def test_a_megabyte_is_refused_at_once(port, studio):
    other = complete(port, prompt="a", max_tokens=5, seed=1)["choices"][0]["text"]
    for text in ("a" * 1_000_000, "患者" * 150_000, " " * 1_000_000):
        found = ask(port, "POST", "/v1/completions", json.dumps({"prompt": text}, ensure_ascii=False).encode(),
                    Content_Type="application/json")  # fmt: skip
        assert found.status == 400 and found.json["error"]["code"] == "context_length_exceeded"
        assert f"{len(text.encode()) + 1:,} tokens" in found.json["error"]["message"]
    assert ask(port, "POST", "/v1/completions", {"prompt": "a" * 1_100_000}).status == 413
    assert complete(port, prompt="a", max_tokens=5, seed=1)["choices"][0]["text"] == other


def test_nothing_is_kept(port, studio):
    """Memory after many requests of every kind: no session, no row, and not a megabyte more in every hundred."""

    def many(count: int):
        for i in range(count):
            complete(port, model=("notes", "letters", "prefix")[i % 3], prompt="a" * (i % 40), max_tokens=3, n=2)
            ask(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2, "stream": True})
            ask(port, "POST", "/v1/completions", {"prompt": "a", "n": 0})
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(
                    request_of({"prompt": "a", "max_tokens": 500, "stream": True} | ENDLESS)[: 60 + 7 * (i % 60)]
                )
        wait_for(lambda: studio.worker.asked == 0 and studio.worker.engine.idle)

    many(30)
    before = resident()
    many(60)
    assert resident() - before < 8 << 20
    wait_for(lambda: not (studio.worker._channels or studio.worker.asked))
    wait_for(lambda: gc.collect() >= 0 and not [x for x in gc.get_objects() if type(x) in (Channel, Session)])


def resident() -> int:
    """Bytes of this process that are in memory."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("memory is read from /proc")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_text_that_fails_does_so_alone(port, studio, monkeypatch):
    def fail(bias, scores, histories):
        raise Error("the scores became NaN") if len(histories[0].tokens) > 4 else ZeroDivisionError

    monkeypatch.setattr(Bias, "__call__", fail)
    other = complete(port, prompt="abc", max_tokens=40, seed=1)["choices"][0]["text"]
    asked = {"prompt": "abcd", "logit_bias": {"1": 1}}
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request_of({"prompt": "abc", "max_tokens": 40, "seed": 1}))
        failed = ask(port, "POST", "/v1/completions", asked)
        assert (failed.status, failed.json["error"]["message"]) == (400, "the scores became NaN")
        assert ask(port, "POST", "/v1/completions", {"prompt": "a", "logit_bias": {"1": 1}}).status == 500
        strange = ask(port, "POST", "/v1/completions", {"prompt": "a", "logit_bias": {"1": 1}, "stream": True})
        assert '"server_error"' in strange.raw.decode() and "[DONE]" not in strange.raw.decode()
        stream = ask(port, "POST", "/v1/completions", asked | {"stream": True})
        assert stream.status == 200 and "the scores became NaN" in stream.raw.decode()
        body = _all_of(client).partition(b"\r\n\r\n")[2]
    assert json.loads(body)["choices"][0]["text"] == other


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "notes"
    GPT.save_pretrained(make(context=3000), directory)
    BYTES.save(directory)
    return directory


def start(run: Path) -> tuple[subprocess.Popen, int]:
    command = [sys.executable, ROOT / "sample.py", run, "--serve", "--port", "0", "--threads", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, preexec_fn=_hear_sigint, **pipes)
    line = process.stdout.readline()
    assert line.startswith("open http://127.0.0.1:"), process.stderr.read()
    return process, int(line.split(":")[2].split("/")[0])


def _hear_sigint():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_end_cuts_nobody_off(run):
    process, port = start(run)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(request_of({"prompt": "a", "max_tokens": 400, "stream": True, "seed": 1} | ENDLESS))
            found = client.recv(2000)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: ask(port, "GET", "/healthz").json == {"status": "closing"})
            refused = ask(port, "POST", "/v1/completions", {"prompt": "b"})
            assert refused.status == 503 and refused.headers["retry-after"]
            found += _all_of(client)
        assert found.count(b"[DONE]") == 1 and b'"finish_reason":"length"' in found and b"error" not in found
        assert process.wait(20) == 0
        log = process.stderr.read()
        assert "Traceback" not in log and "POST '/v1/completions' 200" in log and "stopped" in log
    finally:
        process.kill()


def test_a_second_signal_ends_it_at_once():
    studio = studio_of(make(context=3000))
    with running(studio) as (port, server), socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request_of({"prompt": "a", "max_tokens": 2900, "stream": True} | ENDLESS))
        found = client.recv(2000)
        server.handle_exit(signal.SIGINT, None)
        assert ask(port, "GET", "/healthz").status == 503
        server.handle_exit(signal.SIGINT, None)
        found += _all_of(client)
    assert b"[DONE]" not in found and b"shutting down" in found
    assert written(studio) < 2900


def _all_of(client: socket.socket) -> bytes:
    found = b""
    while part := client.recv(10_000):
        found += part
    return found
