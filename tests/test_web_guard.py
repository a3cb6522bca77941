"""Who is let in, what is bounded, and how the server speaks of itself."""

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from web import ask, complete, make, served, studio_of, wait_for

from minigpt import Error
from minigpt.sample_options import Beams, Choosing, Input, Output, Serving, Talking
from minigpt.web import opening, server
from minigpt.web.limits import Limits

ROOT = Path(__file__).parents[1]
TOKEN = "a-long-secret"
QUICK = Limits(body=5000, upload=0.3, request=0.4, unread=0.3, idle=0.3, connections=12, choices=4)


@pytest.fixture(scope="module")
def port():
    with served(studio_of(make(), max_rows=2, queue=2)) as port:
        yield port


@pytest.fixture(scope="module")
def closed():
    """A server with a token."""
    with served(studio_of(make()), token=TOKEN) as port:
        yield port


@pytest.fixture(scope="module")
def hasty():
    """A server of little patience, and a model that writes for long."""
    studio = studio_of(make(context=4000), max_rows=2, queue=2)
    studio.limits = QUICK
    with served(studio) as port:
        yield port, studio


HOSTS = ("localhost", "localhost:8000", "127.0.0.1:9", "[::1]:9", "192.168.1.7")


@pytest.mark.parametrize(
    "host", [*HOSTS, "evil.example", "localhost.evil.example", "evil.example:8000", "", "[", "1.2.3"]
)
def test_a_name_that_is_not_ours_is_not_served(port, host):
    assert ask(port, "GET", "/v1/models", Host=host).status == (200 if host in HOSTS else 403)


def test_a_name_that_was_told_is_served():
    with served(studio_of(make()), names=("Clinic.example",)) as port:
        assert ask(port, "GET", "/v1/models", Host="clinic.example:80").status == 200


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1234", "http://127.0.0.1", "https://evil.example", "null", ""])
def test_a_page_from_elsewhere_may_not_ask(port, origin):
    ours = {"Host": "127.0.0.1:1234", "Origin": origin}
    found = ask(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}, **ours)
    assert found.status == (200 if origin == "http://127.0.0.1:1234" else 403)
    assert "access-control-allow-origin" not in found.headers
    assert ask(port, "OPTIONS", "/v1/completions", **ours).status == 405


def test_what_a_browser_is_told(port):
    headers = ask(port, "GET", "/healthz").headers
    assert headers["x-content-type-options"] == "nosniff" and "default-src 'self'" in headers["content-security-policy"]
    assert "server" not in headers


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/notes", "/metrics", "/nowhere", "/api/about", "/api/runs"])
def test_without_the_token_nothing_is_told(closed, path):
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN + "x"}, {"Authorization": "Bearer ä"}):
        found = ask(closed, "GET", path, **wrong)
        assert found.status == 401 and found.json["error"]["code"] == "invalid_api_key"
    assert ask(closed, "GET", path, Authorization=f"Bearer {TOKEN}").status in (200, 404)


def test_with_a_token(closed):
    assert ask(closed, "GET", "/healthz").json == {"status": "ok"}
    assert ask(closed, "GET", "/v1/models", Host="any.example", Authorization=f"Bearer {TOKEN}").status == 200
    asked = {"prompt": "a", "max_tokens": 1}
    assert ask(closed, "POST", "/v1/completions", asked).status == 401
    assert ask(closed, "POST", "/v1/completions", asked, Authorization=f"Bearer {TOKEN}").status == 200
    assert ask(closed, "GET", "/static/../../guard.py").status in (401, 404)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_TOKEN", "from-the-environment")
    assert server.read_token(None) == "from-the-environment"
    (tmp_path / "token").write_text("secret\n")
    assert server.read_token(tmp_path / "token") == "secret"
    for wrong in ("", "two words", "tab\there"):
        (tmp_path / "token").write_text(wrong)
        with pytest.raises(Error, match="holds no token"):
            server.read_token(tmp_path / "token")
    with pytest.raises(Error, match="cannot read the token"):
        server.read_token(tmp_path / "none")


def test_paths_and_methods(port):
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/completions", 405), ("DELETE", "/v1/models", 405)):
        found = ask(port, method, path)
        assert found.status == status and path in found.json["error"]["message"]
    assert ask(port, "HEAD", "/healthz").status == 200


def test_metrics_count(port):
    complete(port, prompt="abc", max_tokens=3, logit_bias={"256": -100})
    ask(port, "POST", "/v1/completions", {"prompt": "a", "n": 99})
    ask(port, "GET", "/some/where")
    lines = dict(line.rsplit(" ", 1) for line in ask(port, "GET", "/metrics").raw.decode().splitlines())
    assert float(lines['minigpt_requests_total{route="/v1/completions",status="200"}']) >= 1
    assert float(lines['minigpt_requests_total{route="/v1/completions",status="400"}']) >= 1
    assert float(lines['minigpt_requests_total{route="other",status="404"}']) >= 1
    assert float(lines['minigpt_tokens_total{kind="written"}']) >= 3
    assert float(lines["minigpt_first_token_seconds_count"]) >= 1 and float(lines["minigpt_rows"]) == 0


def test_the_queue_has_an_end(hasty):
    port, _ = hasty
    long = {"prompt": "a", "max_tokens": 3000, "logit_bias": {"256": -100}, "stream": True}
    open_streams = [_begin(port, long | {"n": 2}) for _ in range(2)]
    found = ask(port, "POST", "/v1/completions", {"prompt": "a"})
    assert found.status == 429 and found.headers["retry-after"] and found.json["error"]["code"] == "queue_full"
    for stream in open_streams:
        stream.close()
    wait_for(lambda: ask(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200)


def test_other_work_for_the_model_has_an_end_too():
    studio, held = studio_of(make(), max_rows=1, queue=2), threading.Event()

    async def crowd():
        studio.worker.start()
        jobs = [asyncio.create_task(studio.worker.run(held.wait, 10)) for _ in range(5)]
        await asyncio.sleep(0.05)
        jobs[1].cancel()
        held.set()
        found = await asyncio.gather(*jobs, return_exceptions=True)
        await studio.worker.stop()
        return found

    first, left, third, *refused = asyncio.run(crowd())
    assert first is third is True and isinstance(left, asyncio.CancelledError)
    assert [each.status for each in refused] == [429, 429] and studio.worker.running == 0


def _begin(port: int, fields: dict, reads: int = 1 << 16) -> socket.socket:
    """A stream whose first bytes have come; its client has a buffer for so many."""
    body, client = json.dumps(fields).encode(), socket.socket()
    client.settimeout(20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, reads)
    client.connect(("127.0.0.1", port))
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert b"200 OK" in client.recv(100)
    return client


def test_a_text_that_takes_too_long(hasty):
    port, studio = hasty
    asked = {"prompt": "a", "max_tokens": 3900, "logit_bias": {"256": -100}}
    found = ask(port, "POST", "/v1/completions", asked)
    assert found.status == 504 and found.json["error"]["code"] == "timeout"
    stream = ask(port, "POST", "/v1/completions", asked | {"stream": True}).raw.decode()
    assert '"code":"timeout"' in stream.split("\n\n")[-2] and "[DONE]" not in stream
    wait_for(lambda: studio.worker.asked == 0 and studio.worker.engine.idle)


def test_bodies_that_are_too_large_too_slow_or_no_json(hasty):
    port, _ = hasty
    assert ask(port, "POST", "/v1/completions", {"prompt": "a" * 6000}).status == 413
    parts = (b"%x\r\n%s\r\n" % (1000, b"a" * 1000) for _ in range(8))
    assert b" 413 " in _raw(port, b"".join(parts) + b"0\r\n\r\n", "Transfer-Encoding: chunked")
    assert b" 408 " in _raw(port, b'{"prompt": ', "Content-Length: 100")
    assert ask(port, "POST", "/v1/completions", "{}", Content_Type="text/plain").status == 415
    assert ask(port, "POST", "/v1/completions", "{}").status == 415


def _raw(port: int, body: bytes, header: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n\r\n"
        client.sendall(head.encode() + body)
        return client.recv(1000)


def test_connections_that_say_nothing_are_closed(hasty):
    port, _ = hasty
    for begin in (b"", b"GET /healthz HT"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(begin)
            assert b" 408 " in client.recv(1000) and client.recv(10) == b""
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    kept.request("GET", "/healthz")
    kept.getresponse().read()
    assert kept.sock.recv(10) == b""  # after `idle` seconds


def test_too_many_connections(hasty):
    port, studio = hasty
    clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(12)]
    found = [client.recv(20)[9:12] for client in [socket.create_connection(("127.0.0.1", port), timeout=10)]]
    assert found == [b"503"]
    for client in clients:
        client.close()
    wait_for(lambda: ask(port, "GET", "/healthz").status == 200)


def test_a_client_who_does_not_read_is_left(hasty):
    port, studio = hasty
    studio.limits = replace(QUICK, request=60)
    before = _written(studio)
    asked = {"prompt": "a", "max_tokens": 3900, "n": 2, "stream": True, "logprobs": 20, "details": True}
    with _begin(port, asked | {"logit_bias": {"256": -100}}, reads=2048):
        wait_for(lambda: studio.worker.asked == 0 and studio.worker.engine.idle, 60)
    studio.limits = QUICK
    assert 0 < _written(studio) - before < 4000


def _written(studio) -> float:
    return studio.meters.registry.get_sample_value("minigpt_tokens_total", {"kind": "written"}) or 0.0


OPTIONS = {
    "--temperature": (Input(Path("m")), Choosing(temperature=1.0)),
    "--prompt": (Input(Path("m"), prompt=("a",)),),
    "--merge": (Input(Path("m"), merge=True),),
    "--num-beams": (Input(Path("m")), Beams(num_beams=3)),
    "--chat": (Input(Path("m")), Talking(chat=True)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_each_request_says_for_itself(name):
    source, *others = OPTIONS[name]
    with pytest.raises(Error, match=f"leave out {name}"):
        Serving(serve=True).check(source, Output(), *others)
    Serving(serve=True, port=0).check(Input(Path("m"), adapter=("a", "b")), Output(threads=1, weights="int8"))
    with pytest.raises(Error, match="--port is of a server"):
        Serving(port=0)


def test_names_of_models_and_directories_of_runs(tmp_path):
    with pytest.raises(Error, match="would be called 'a/b'"):
        opening.ids_of(Path("x/c"), [Path("1/a/b"), Path("2/a/b")])
    assert opening.ids_of(Path("x/c"), [Path("x/y/c")]) == ["y/c"]
    (tmp_path / "one").mkdir()
    assert not opening.holds_runs(tmp_path)
    (tmp_path / "one/two").mkdir()
    (tmp_path / "one/two/metrics.jsonl").touch()
    assert opening.holds_runs(tmp_path) and opening.holds_runs(tmp_path / "one/two")
    assert not opening.holds_runs(tmp_path / "none")
    (tmp_path / "config.json").touch()
    assert not opening.holds_runs(tmp_path)


def test_without_a_model_only_runs_are_served(tmp_path):
    with served(opening.of_runs(tmp_path)) as port:
        assert ask(port, "GET", "/v1/models").json["data"] == []
        found = ask(port, "POST", "/v1/completions", {"prompt": "a"})
        assert found.status == 404 and "only runs" in found.json["error"]["message"]
        assert ask(port, "GET", "/").headers["location"] == "/runs"
        assert ask(port, "GET", "/healthz").status == 200


def test_a_port_that_is_taken():
    with server.listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(Error, match=r"cannot listen at 127.0.0.1, port \d+: .*give another --port"):
            server.listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(Error, match="cannot listen"):
        server.listen("no.such.host.invalid", 0)


def test_an_engine_that_breaks_answers_everyone(capsys):
    studio = studio_of(make())
    step, studio.worker.engine.step = studio.worker.engine.step, lambda: 1 / 0
    with served(studio) as port:
        found = ask(port, "POST", "/v1/completions", {"prompt": "a"})
        assert found.status == 500 and found.json["error"]["message"].startswith("something went wrong")
        assert "ZeroDivisionError" in capsys.readouterr().err
        studio.worker.engine.step = step
        assert complete(port, prompt="a", max_tokens=2)["usage"]["prompt_tokens"] == 2
        assert studio.worker.asked == 0


def test_without_the_extra_one_sentence_says_so(tmp_path):
    hidden = "import sys; sys.modules['uvicorn'] = None; sys.argv = ['sample.py', 'x', '--serve']; "
    run = "import runpy; runpy.run_path('sample.py', run_name='__main__')"
    found = subprocess.run([sys.executable, "-c", hidden + run], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2 and re.fullmatch(r"sample.py: .*pip install 'minigpt\[serve\]'\n", found.stderr)
