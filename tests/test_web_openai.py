"""The server and OpenAI's own client: what goes through both is what `generate` writes."""

import asyncio
import json
import math

import openai
import pytest
import torch
from web import BYTES, SENTENCE, E, alone, ask, base_of, by_heart, complete, make, served, studio_of, text_of, tune

from minigpt.chat import Chat
from minigpt.generation import generate, score


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


@pytest.fixture(scope="module")
def client(port):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def chinese():
    with served(studio_of(by_heart())) as port:
        yield port


def test_models(client):
    assert [model.id for model in client.models.list()] == ["notes", "letters", "dora", "houlsby", "prompt", "prefix"]
    assert client.models.retrieve("letters").owned_by == "minigpt"
    with pytest.raises(openai.NotFoundError, match="did you mean 'letters'"):
        client.models.retrieve("leters")


@pytest.mark.parametrize("model", ["notes", "letters", "dora", "houlsby", "prompt", "prefix"])
def test_a_completion_is_what_generate_writes(client, gpt, names, model):
    options = {"temperature": 0.8, "top_p": 0.9, "frequency_penalty": 0.5, "seed": 11}
    found = client.completions.create(model=model, prompt="咳 ab", max_tokens=20, **options)
    name = {"notes": None}.get(model, names.get(f"runs/{model}"))
    wanted = alone(gpt, name, [E, *BYTES.encode("咳 ab")], max_new_tokens=20, **options)
    (choice,) = found.choices
    assert choice.text == text_of(wanted)
    assert choice.finish_reason == ("stop" if wanted[-1] == E else "length")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, len(wanted))
    assert found.object == "text_completion" and found.model == model


def test_all_adapters_at_once_write_what_each_writes_alone(port, gpt, names):
    models = ["notes", "letters", "dora", "houlsby", "prompt", "prefix"] * 2
    prompts = ["a", "病人 b", "cd ef", "x", "yes?", "0"] * 2

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:
            asks = [
                client.completions.create(model=model, prompt=prompt, max_tokens=30, seed=seed, stream=True)
                for seed, (model, prompt) in enumerate(zip(models, prompts, strict=True))
            ]
            streams = await asyncio.gather(*asks)
            return await asyncio.gather(*map(_text_of_stream, streams))

    found = asyncio.run(all_of_them())
    for seed, (model, prompt) in enumerate(zip(models, prompts, strict=True)):
        name = {"notes": None}.get(model, names.get(f"runs/{model}"))
        wanted = alone(gpt, name, [E, *BYTES.encode(prompt)], max_new_tokens=30, seed=seed)
        assert found[seed] == text_of(wanted)


async def _text_of_stream(stream) -> str:
    return "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])


def test_several_prompts_and_texts_are_the_rows_of_generate(client, gpt):
    prompts = [[E, 97], [E, 98, 99]]
    found = client.completions.create(model="notes", prompt=prompts, n=2, max_tokens=6, seed=3)
    with base_of(gpt):
        wanted = generate(gpt, [ids for ids in prompts for _ in range(2)], max_new_tokens=6, seed=3, eos=E)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    for choice, tokens in zip(found.choices, wanted, strict=True):
        assert choice.text == text_of(tokens)
    assert found.usage.prompt_tokens == 5 and found.usage.completion_tokens == sum(map(len, wanted))


def test_a_stream_is_the_whole_answer_in_pieces(client):
    options = {"model": "letters", "prompt": "a", "n": 3, "max_tokens": 25, "seed": 5, "logprobs": 2}
    whole = client.completions.create(**options)
    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1]) and len({chunk.id for chunk in chunks}) == 1
    for index, choice in enumerate(whole.choices):
        parts = [chunk.choices[0] for chunk in chunks[:-1] if chunk.choices[0].index == index]
        assert "".join(part.text for part in parts) == choice.text and len(parts) > 3
        assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + [choice.finish_reason]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            joined = [value for part in parts for value in getattr(part.logprobs, name)]
            assert joined == getattr(choice.logprobs, name)


def test_logprobs_of_completions_are_the_models_own(client, gpt):
    found = client.completions.create(
        model="notes", prompt=[E, 97], max_tokens=9, seed=2, logprobs=3, temperature=0.3, presence_penalty=1
    )
    told = found.choices[0].logprobs
    tokens = alone(gpt, None, [E, 97], max_new_tokens=9, seed=2, temperature=0.3, presence_penalty=1.0)
    tokens = [token for token in tokens if token != E]
    with base_of(gpt), torch.no_grad():
        logits = gpt(torch.tensor([[E, 97, *tokens]]))[0, 1:-1].log_softmax(-1)
    for place, token in enumerate(tokens):
        assert math.isclose(told.token_logprobs[place], logits[place, token], abs_tol=1e-4)
        best = logits[place].topk(3).values.tolist()
        assert sorted(told.top_logprobs[place].values(), reverse=True) == pytest.approx(best, abs=1e-4)
    assert told.text_offset[0] == 0 and len(told.tokens) == len(tokens)


def test_an_echo_scores_the_prompt(client, gpt):
    ids = [E, *BYTES.encode("咳嗽 a")]
    found = client.completions.create(model="notes", prompt=ids, max_tokens=0, echo=True, logprobs=1)
    (choice,) = found.choices
    assert choice.text == "咳嗽 a" and choice.finish_reason == "length"
    with base_of(gpt):
        wanted = score(gpt, [ids])[0].logprobs
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(list(wanted), abs=1e-4)
    options = {"model": "prefix", "prompt": ids, "max_tokens": 4, "seed": 1, "logprobs": 0, "logit_bias": {E: -100}}
    both, rest = (client.completions.create(**options, echo=echo) for echo in (True, False))
    assert both.choices[0].text == "咳嗽 a" + rest.choices[0].text
    assert both.choices[0].logprobs.token_logprobs[-4:] == rest.choices[0].logprobs.token_logprobs
    assert both.choices[0].logprobs.text_offset[len(ids)] == len("咳嗽 a")


MESSAGES = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "a cough"},
    {"role": "assistant", "content": "好"},
    {"role": "user", "content": "since"},
    {"role": "user", "content": [{"type": "text", "text": "when?"}]},
]


def test_a_chat_is_the_layout_of_training(client, gpt):
    found = client.chat.completions.create(model="notes", messages=MESSAGES, max_completion_tokens=9, seed=4, n=2)
    said = [BYTES.encode(text) for text in ("S", "a cough", "好", "since\nwhen?")]
    ids = [E] + [token for each in said for token in (*each, E)]
    for row, choice in enumerate(found.choices):
        assert choice.message.content == text_of(alone(gpt, None, ids, row=row, max_new_tokens=9, seed=4))
        assert choice.message.role == "assistant"
    assert found.usage.prompt_tokens == len(ids) and found.object == "chat.completion"


def test_a_long_chat_forgets_as_the_command_line_does(client, gpt):
    talk = Chat(gpt, BYTES, "S", max_new_tokens=20, temperature=0)
    messages = [{"role": "system", "content": "S"}]
    for turn in range(5):
        messages.append({"role": "user", "content": f"what about {turn}?"})
        found = client.chat.completions.create(model="notes", messages=messages, max_tokens=20, temperature=0)
        with base_of(gpt):
            ours = talk.answer(f"what about {turn}?")
        assert found.usage.prompt_tokens == ours.prompt_tokens
        # An answer that is no UTF-8 cannot be said again: both go on with what a client can write.
        text = found.choices[0].message.content or "-"
        messages.append({"role": "assistant", "content": text})
        talk.said[-1] = BYTES.encode(text)
        talk.memory = type(talk.memory)(gpt)
    assert ours.forgotten > 0


def test_a_chat_streams(client):
    options = {"model": "houlsby", "messages": MESSAGES, "max_tokens": 12}
    for options["seed"] in range(99):  # one whose answer is not at its end at once
        whole = client.chat.completions.create(**options, logprobs=True, top_logprobs=2)
        if len(whole.choices[0].logprobs.content) > 3:
            break
    chunks = list(client.chat.completions.create(**options, stream=True, logprobs=True, top_logprobs=2))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].object == "chat.completion.chunk"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    joined = [one for chunk in chunks if (told := chunk.choices[0].logprobs) for one in told.content]
    assert joined == whole.choices[0].logprobs.content and len(joined[0].top_logprobs) == 2
    assert (
        bytes(byte for one in joined for byte in one.bytes)
        .decode("utf-8", "replace")
        .startswith(whole.choices[0].message.content)
    )


def test_a_seed_that_was_drawn_is_told(client):
    first = client.completions.create(model="notes", prompt="a", max_tokens=12)
    other = client.completions.create(model="notes", prompt="a", max_tokens=12)
    assert first.system_fingerprint != other.system_fingerprint
    seed = int(first.system_fingerprint.removeprefix("seed-"))
    again = client.completions.create(model="notes", prompt="a", max_tokens=12, seed=seed)
    assert again.choices[0].text == first.choices[0].text != other.choices[0].text


def test_logit_bias_and_stop(client):
    options = {"model": "notes", "prompt": "a", "max_tokens": 9, "logit_bias": {BYTES.encode("b")[0]: 100}}
    found = client.completions.create(**options, stop=["x", "bbb"])
    assert (found.choices[0].text, found.choices[0].finish_reason) == ("", "stop")
    assert found.usage.completion_tokens == 3
    found = client.completions.create(**options, stop="bx")
    assert (found.choices[0].text, found.choices[0].finish_reason) == ("b" * 9, "length")


def test_chinese_is_never_cut_inside_a_character(chinese):
    fields = {"prompt": "", "temperature": 0, "stream": True, "details": True, "logprobs": 3}
    for length in range(1, 29):
        raw = ask(chinese, "POST", "/v1/completions", fields | {"max_tokens": length}).raw.decode()
        assert "\ufffd" not in raw and "\\ufffd" not in raw
        chunks = [json.loads(line[6:]) for line in raw.split("\n\n") if line.startswith("data: {")]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        told = [token for choice in choices for token in choice["tokens"]]
        whole = BYTES.encode(SENTENCE)[:length]
        text = "".join(choice["text"] for choice in choices)
        assert text == text_of(whole) == "".join(token["text"] for token in told)
        assert [token["id"] for token in told] == whole
        assert all(token["logprob"] == token["top"][0]["logprob"] for token in told)


def test_a_stop_string_of_half_characters_and_details(chinese):
    found = complete(chinese, prompt="", temperature=0, stop=["三天"], details=True, logprobs=1)["choices"][0]
    assert (found["text"], found["finish_reason"]) == ("患者咳嗽", "stop")
    assert "".join(token["text"] for token in found["tokens"]) == "患者咳嗽" and len(found["tokens"]) == 12
    assert found["prompt_tokens"] == [{"id": E, "text": ""}]
    assert complete(chinese, prompt="患者", temperature=0)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("model", "room"), [("notes", 80), ("prompt", 77), ("prefix", 76)])
def test_a_prompt_has_the_room_that_its_adapter_leaves(client, model, room):
    assert client.completions.create(model=model, prompt=[97] * room, max_tokens=1).usage.prompt_tokens == room
    with pytest.raises(openai.BadRequestError, match=f"has {room + 1} tokens, the model reads {room} at most"):
        client.completions.create(model=model, prompt=[97] * (room + 1), max_tokens=1)


ERRORS = {
    "model": (openai.NotFoundError, {"model": "nobody"}),
    "temperature": (openai.BadRequestError, {"temperature": 3}),
    "n": (openai.BadRequestError, {"n": 1000}),
    "stop": (openai.BadRequestError, {"stop": list("abcde")}),
    "max_tokens": (openai.BadRequestError, {"max_tokens": -1}),
    "prompt": (openai.BadRequestError, {"prompt": "a" * 200}),
    "suffix": (openai.BadRequestError, {"suffix": "b"}),
    "best_of": (openai.BadRequestError, {"best_of": 2}),
    "logit_bias": (openai.BadRequestError, {"logit_bias": {"999": 1}}),
    "temprature": (openai.BadRequestError, {"extra_body": {"temprature": 1}}),
}


@pytest.mark.parametrize("param", ERRORS)
def test_what_is_refused(client, param):
    kind, fields = ERRORS[param]
    with pytest.raises(kind) as found:
        client.completions.create(**{"model": "notes", "prompt": "a"} | fields)
    assert found.value.body["param"] == param and found.value.body["message"].count("\n") == 0
    if param == "prompt":
        assert found.value.body["code"] == "context_length_exceeded" and "201 tokens" in found.value.body["message"]
    if param == "temprature":
        assert "did you mean 'temperature'" in found.value.body["message"]


CHATS = {
    "tools": {"tools": [{"type": "function", "function": {"name": "x"}}]},
    "response_format": {"response_format": {"type": "json_object"}},
    "top_logprobs": {"top_logprobs": 2},
    "messages": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
}
BROKEN = ([], [{"role": "assistant", "content": "a"}], [{"role": "tool", "content": "a"}], [{"role": "user"}], ["a"])


@pytest.mark.parametrize("param", CHATS)
def test_what_a_chat_refuses(client, param):
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(**{"model": "notes", "messages": MESSAGES} | CHATS[param])
    assert found.value.body["param"] == param


@pytest.mark.parametrize("messages", [*BROKEN, [*MESSAGES, {"role": "system", "content": "late"}]])
def test_messages_that_are_no_conversation(client, messages):
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(model="notes", messages=messages)
    assert found.value.body["param"] == "messages"
