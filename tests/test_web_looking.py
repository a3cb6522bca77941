"""/api over a real socket: what the page is told is what the functions say, and nonsense is refused in a sentence."""

import pytest
import torch
from web import BYTES, E, alone, ask, by_heart, make, served, studio_of, tune

import lora
from minigpt.insight.attention import attention_weights
from minigpt.tuning import mixed


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
    assert (told["letters"]["method"], told["letters"]["rank"], told["letters"]["alpha"]) == ("lora", 2, 4)
    assert told["prompt"]["parameters"] == 3 * 32 and told["prefix"]["rank"] is None
    wanted = sum(p.numel() for module in lora.inventory.modules_of(gpt, "a1") for p in module.parameters())
    assert told["letters"]["parameters"] == wanted


def test_tokens_have_the_text_that_became_certain(port):
    found = post(port, "tokens", text="a痛!")["tokens"]
    assert [each["text"] for each in found] == ["a", "", "", "痛", "!"]
    assert [each["id"] for each in found] == BYTES.encode("a痛!")


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


def test_beams_grow_from_the_prompt_to_the_best_text():
    with served(studio_of(by_heart())) as port:
        found = post(port, "beams", prompt="", num_beams=3, max_tokens=40)
    assert found["best"][0]["text"] == "患者咳嗽三天😀。"
    step, place = found["best"][0]["spot"]
    words = []
    while step >= 0:
        node = found["steps"][step][place]
        words.append(node["text"])
        step, place = step - 1, node["parent"]
    assert "�" not in "".join(words)
    assert {node["fate"] for nodes in found["steps"] for node in nodes} == {"running", "finished", "dropped"}


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
    ("attention", {"text": [1, "a"]}, 400, "token ids"),
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
