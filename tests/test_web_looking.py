"""/api over a real socket: what the page is told is what the functions say, and nonsense is refused in a sentence."""

import http.client
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from web import BYTES, SENTENCE, E, alone, ask, by_heart, complete, make, served, studio_of, text_of, tune, wait_for

import lora
from minigpt.insight.attention import attention_weights
from minigpt.tuning import mixed
from minigpt.web import glances, looking


@pytest.fixture(scope="module")
def gpt():
    return make()


@pytest.fixture(scope="module")
def names(gpt):
    return tune(gpt)


@pytest.fixture(scope="module")
def port(gpt, names):
    with served(studio_of(gpt, names)) as port:
        yield port


def post(port, name: str, **fields):
    found = ask(port, "POST", f"/api/{name}", fields)
    assert found.status == 200, found.raw
    return found.json


def test_about_counts_the_base_and_what_is_beside_it(port, gpt):
    found = ask(port, "GET", "/api/about").json
    bare = sum(p.numel() for p in make().parameters())
    assert found["model"]["id"] == "notes" and found["model"]["parameters"] == bare
    told = {each["id"]: each for each in found["adapters"]}
    assert (told["letters"]["method"], told["letters"]["rank"], told["letters"]["alpha"]) == ("LORA", 2, 4)
    methods = {name: each["method"] for name, each in told.items() if name != "letters"}
    assert methods == {"dora": "LORA", "houlsby": "adapter", "prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING"}
    assert told["prompt"]["parameters"] == 3 * 32 and told["prefix"]["rank"] is None
    wanted = sum(p.numel() for module in lora.inventory.modules_of(gpt, "a1") for p in module.parameters())
    assert told["letters"]["parameters"] == wanted


@pytest.mark.parametrize("options", [{"bias": "all"}, {"modules_to_save": ["final_norm"]}, {}])
def test_what_is_shared_or_in_four_bits_is_counted_once(options):
    gpt = make()
    bare = sum(p.numel() for p in gpt.parameters())
    if not options:
        lora.quantize(gpt)
    lora.attach(gpt, lora.Config(r=2, **options), "a")
    with served(studio_of(gpt, {"runs/a": "a"})) as port:
        found = ask(port, "GET", "/api/about").json
    assert found["model"]["parameters"] == bare
    assert found["adapters"][0]["parameters"] == sum(p.numel() for p in lora.parameters(gpt, "a"))


def test_tokens_have_the_text_that_became_certain(port):
    found = post(port, "tokens", text="a痛!")["tokens"]
    assert [each["text"] for each in found] == ["a", "", "", "痛", "!"]
    assert [each["id"] for each in found] == BYTES.encode("a痛!")
    assert post(port, "tokens", text="") == {"tokens": []}


@pytest.mark.parametrize("model", ["notes", "letters", "dora", "houlsby", "prompt", "prefix"])
def test_next_is_the_model_with_its_adapter(port, gpt, names, model):
    found = post(port, "next", prompt="咳 a", model=model, top=7)["tokens"]
    name = names.get(f"runs/{model}")
    (whole,) = mixed.begin(gpt, [name], [[E, *BYTES.encode("咳 a")]])
    with mixed.alike(gpt, name, 1, lora), torch.no_grad():
        wanted = gpt(torch.tensor([whole]))[0, -1].softmax(-1).topk(7)
    assert [each["id"] for each in found] == wanted.indices.tolist()
    assert [each["probability"] for each in found] == pytest.approx(wanted.values.tolist(), abs=1e-5)
    assert alone(gpt, name, [E, *BYTES.encode("咳 a")], max_new_tokens=1, temperature=0) == [found[0]["id"]]


@pytest.fixture(scope="module")
def heart():
    with served(studio_of(by_heart())) as port:
        yield port


def branch(found: dict, spot: list[int]) -> list[dict]:
    """The candidates from the prompt to this one."""
    nodes, (step, place) = [], spot
    while step >= 0:
        nodes.append(found["steps"][step][place])
        step, place = step - 1, nodes[-1]["parent"]
    return nodes[::-1]


def test_beams_grow_from_the_prompt_to_the_best_text(heart):
    found = post(heart, "beams", prompt="", num_beams=3, max_tokens=40)
    nodes = branch(found, found["best"][0]["spot"])
    assert found["best"][0]["text"] == "".join(node["text"] for node in nodes) == SENTENCE
    assert [node["id"] for node in nodes] == [*BYTES.encode(SENTENCE), E]
    assert nodes[0]["text"] == nodes[1]["text"] == "" and nodes[2]["text"] == "患"
    assert {node["fate"] for nodes in found["steps"] for node in nodes} == {"running", "finished", "dropped"}
    assert found["prompt"] == [{"id": E, "text": ""}]


@pytest.mark.parametrize("cut", [1, 2, 4, 20])
def test_beams_go_on_from_half_a_character_and_end_before_one(heart, cut):
    ids = BYTES.encode(SENTENCE)
    found = post(heart, "beams", prompt=[E, *ids[:cut]], num_beams=2, max_tokens=40)
    rest = SENTENCE.removeprefix(bytes(BYTES.decode_bytes(ids[:cut])).decode(errors="ignore"))
    assert found["best"][0]["text"] == rest
    ended = post(heart, "beams", prompt="", num_beams=2, max_tokens=cut)
    nodes = branch(ended, ended["best"][0]["spot"])
    wanted = bytes(BYTES.decode_bytes(ids[:cut])).decode(errors="ignore")
    assert ended["best"][0]["text"] == "".join(node["text"] for node in nodes) == wanted


def test_attention_is_that_of_the_function_and_a_prefix_stands_in_front(port, gpt, names):
    found = post(port, "attention", text="ab c", layer=1)
    with mixed.alike(gpt, None, 1, lora):
        wanted = attention_weights(gpt, torch.tensor([[E, *BYTES.encode("ab c")]]))[1, 0]
    assert found["front"] == 0 and len(found["tokens"]) == 5
    assert torch.allclose(torch.tensor(found["weights"]), wanted, atol=6e-4)
    found = post(port, "attention", text="ab c", layer=0, model="prefix")
    assert found["front"] == 4 and len(found["weights"][0]) == 5 and len(found["weights"][0][0]) == 9
    found = post(port, "attention", text="ab c", layer=0, model="prompt")
    assert found["front"] == 3 and len(found["weights"][0]) == 5 and len(found["weights"][0][0]) == 8


def test_the_dial_goes_from_the_base_to_the_adapter(port, gpt):
    found = post(port, "dial", prompt="ab", adapter="letters", scales=[0, 1, 2], top=5)
    assert (found["alpha"], found["rank"], found["scales"], found["kl"][0]) == (4, 2, [0, 1, 2], 0)
    for place, model in ((0, "notes"), (1, "letters")):
        told = {each["id"]: each["probability"] for each in post(port, "next", prompt="ab", model=model)["tokens"]}
        for each in found["tokens"]:
            if each["id"] in told:
                assert each["probabilities"][place] == pytest.approx(told[each["id"]], abs=2e-5)
    assert len(found["tokens"]) == 5 and all(0 <= p <= 1 for p in found["rest"])


def test_a_spectrum_has_every_layer_of_the_adapter(port, gpt):
    found = ask(port, "GET", "/api/spectrum?adapter=letters").json["layers"]
    assert {each["name"] for each in found} == {p for p, one in lora.layers_of(gpt).items() if "a1" in one.adapters}
    one, layer = found[0], lora.layers_of(gpt)[found[0]["name"]]
    update = layer.adapters["a1"].scale * layer.adapters["a1"].B @ layer.adapters["a1"].A
    assert one["share"] == pytest.approx((update.norm() / layer.base.weight.norm()).item(), rel=1e-4)
    assert one["values"] == pytest.approx(torch.linalg.svdvals(update)[:2].tolist(), abs=1e-5)


REFUSED = [
    ("next", {"prompt": "a", "model": "leters"}, 404, "did you mean 'letters'"),
    ("next", {"prompt": 3}, 400, "expected a text, or a list of token ids"),
    ("next", {"prompt": [999]}, 400, "ids from 0 to 256"),
    ("next", {"prompt": "a", "top": 0}, 400, "from 1 to 50"),
    ("next", {"promt": "a"}, 400, "did you mean 'prompt'"),
    ("beams", {"prompt": "a", "num_beams": 13}, 400, "from 1 to 12"),
    ("beams", {"prompt": "a" * 200}, 400, "shorten it"),
    ("attention", {"text": "a", "layer": 2}, 400, "from 0 to 1"),
    ("attention", {"text": [1, "a"]}, 400, "text is a list: expected a text, or a list of token ids"),
    ("attention", {"text": []}, 400, "text is empty"),
    ("tokens", {"text": "a", "model": "leters"}, 404, "did you mean 'letters'"),
    ("dial", {"prompt": "a"}, 400, "adapter is missing"),
    ("dial", {"prompt": "a", "adapter": "prompt"}, 400, "is no LoRA adapter"),
    ("dial", {"prompt": "a", "adapter": "letters", "scales": [-1]}, 400, "numbers from 0 to 4"),
    ("dial", {"prompt": "a", "adapter": "letters", "scales": []}, 400, "up to 41 numbers"),
]


@pytest.mark.parametrize(("name", "fields", "status", "words"), REFUSED, ids=[str(row[1])[:40] for row in REFUSED])
def test_nonsense_is_refused_in_a_sentence(port, name, fields, status, words):
    found = ask(port, "POST", f"/api/{name}", fields)
    assert found.status == status and words in found.json["error"]["message"]


def test_a_long_text_is_not_shown():
    with served(studio_of(make(context=300))) as port:
        found = ask(port, "POST", "/api/attention", {"text": "a" * 128})
        assert found.status == 400 and "at most 128" in found.json["error"]["message"]
        assert ask(port, "POST", "/api/attention", {"text": "a" * 127}).status == 200


def test_a_model_that_computes_nan_is_called_so():
    gpt = make()
    gpt.position_embedding.weight.data.fill_(math.nan)
    lora.attach(gpt, lora.Config(r=2), "a")
    with served(studio_of(gpt, {"runs/a": "a"})) as port:
        for name, fields in {
            "next": {"prompt": "a"}, "beams": {"prompt": "a"}, "attention": {"text": "a"},
            "dial": {"prompt": "a", "adapter": "a"},
        }.items():  # fmt: skip
            found = ask(port, "POST", f"/api/{name}", fields)
            assert found.status == 400 and "NaN" in found.json["error"]["message"], name


def test_what_has_no_end_is_cut_somewhere(monkeypatch):
    monkeypatch.setattr(looking, "LONGEST", 20)
    gpt = make("llama", window=4, banded_layers=(0, 1), sinks=2, context=6)
    with served(studio_of(gpt)) as port:
        for name, field in {"next": "prompt", "beams": "prompt", "attention": "text", "tokens": "text"}.items():
            found = ask(port, "POST", f"/api/{name}", {field: "a" * 21})
            assert found.status == 400 and f"{field} has 2" in found.json["error"]["message"]
            assert ask(port, "POST", f"/api/{name}", {field: "a" * 19}).status == 200


def test_texts_are_what_they_were_while_others_look(port, gpt, names):
    questions = [
        ("dial", {"prompt": "ab", "adapter": "letters"}), ("beams", {"prompt": "c", "model": "prefix"}),
        ("attention", {"text": "abc", "model": "dora"}), ("next", {"prompt": "x", "model": "prompt"}),
    ]  # fmt: skip
    models = ["notes", "letters", "houlsby", "prefix"]
    with ThreadPoolExecutor(12) as pool:
        texts = [pool.submit(complete, port, model=m, prompt="ab", max_tokens=40, seed=i) for i, m in enumerate(models)]
        asked = [pool.submit(post, port, name, **fields) for name, fields in questions * 3]
        found = [each.result() for each in asked]
        written = [each.result()["choices"][0]["text"] for each in texts]
    for seed, (model, text) in enumerate(zip(models, written, strict=True)):
        ids = alone(gpt, names.get(f"runs/{model}"), [E, *BYTES.encode("ab")], max_new_tokens=40, seed=seed)
        assert text == text_of(ids)
    assert found == [post(port, name, **fields) for name, fields in questions] * 3


def held(monkeypatch, at: int, until) -> list[float]:
    """From now on reading number `at` of a dial waits until `until()` holds; the scales that were read."""
    read, real = [], looking._at

    def watched(*args):
        read.append(args[-1])
        if len(read) == at:
            wait_for(until, 100)
        return real(*args)

    monkeypatch.setattr(looking, "_at", watched)
    return read


def test_dials_are_read_one_reading_at_a_time_between_the_steps_of_others(gpt, names, monkeypatch):
    studio = studio_of(gpt, names)
    worker, engine, begun, most, steps = studio.worker, studio.worker.engine, [], [], []
    read = held(monkeypatch, 3, lambda: worker.asked)  # until somebody wants a text
    run, step, beside = worker.run, engine.step, glances._beside

    async def counted(function, *args):
        begun.extend([function] * (function is beside))
        most.append(len(begun))
        try:
            return await run(function, *args)
        finally:
            begun[:1] = [] if function is beside else begun[:1]

    monkeypatch.setattr(worker, "run", counted)
    monkeypatch.setattr(engine, "step", lambda: steps.append(len(read)) or step())
    with served(studio) as port, ThreadPoolExecutor(3) as pool:
        for model in ("notes", "letters"):  # from now on it is known how much they read
            post(port, "next", prompt="a", model=model)
        asked = [pool.submit(post, port, "dial", prompt="ab", adapter="letters") for _ in range(3)]
        wait_for(lambda: len(read) >= 3, 100)
        complete(port, prompt="a", max_tokens=11, logit_bias={str(E): -100})
        assert [each.result()["scales"] for each in asked] == [list(looking.SCALES)] * 3
    assert sorted(read) == sorted([*looking.SCALES] * 3) and max(most) == 1
    assert len(steps) == 10 and steps[-1] - steps[0] <= 2 * len(steps)  # no more than a few readings before each


def test_one_question_too_many_and_one_that_nobody_waits_for(port, monkeypatch):
    monkeypatch.setattr(glances, "MOST", 1)
    gone = threading.Event()
    read, fields = held(monkeypatch, 2, gone.is_set), {"prompt": "ab", "adapter": "letters"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    try:
        connection.request("POST", "/api/dial", json.dumps(fields), {"Content-Type": "application/json"})
        wait_for(lambda: len(read) == 2, 100)
        found = ask(port, "POST", "/api/next", {"prompt": "a"})
        assert found.status == 429 and found.headers["Retry-After"] == "2"
        assert "ask again" in found.json["error"]["message"]
        connection.sock.close()
        connection.close()
        wait_for(lambda: ask(port, "POST", "/api/tokens", {"text": "a"}).status == 200, 100)
    finally:
        gone.set()
    assert ask(port, "POST", "/api/next", {"prompt": "a"}).status == 200
    assert len(read) == 2
