"""A conversation: what the model reads by hand, the same tokens as from scratch, and each token read once."""

import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import KINDS, randomize

from minigpt import GPT, Error, GPTConfig
from minigpt.chat import Chat, converse
from minigpt.generation import Memory, beam_search, generate
from minigpt.tokenizer import Tokenizer
from minigpt.tuning import extended, prefix, prompt

BYTES = Tokenizer.train([""], 257)  # a token is a byte, and 256 is the end of text
E = BYTES.eot
SCRIPT = ("a cough", "咳嗽三天", "no", "since when, and how often?", "好", "thanks")


def b(text: str) -> list[int]:
    return [BYTES.vocabulary.ranks[bytes([byte])] for byte in text.encode()]


def make(kind="gpt2", std=0.3, context=80, **changes) -> GPT:
    sizes = {"vocab_size": 257, "context": context, "n_layers": 2, "n_heads": 4, "d_model": 32}
    return randomize(GPT(GPTConfig(**sizes | KINDS[kind] | changes)).eval(), std)


def ends_soon(scores, histories):
    """Some answers end by themselves: at random weights hardly one in 257 tokens would."""
    scores = scores.clone()
    scores[:, E] += 4 * torch.tensor([float(sum(history.tokens) % 3 == 0) for history in histories])
    return scores


def read_by(chat: Chat) -> list[int]:
    """The prompt of the last answer, as it lies in the model's memory."""
    return chat.memory.text[: chat.last.prompt_tokens]


def test_what_the_model_reads_in_four_turns_by_hand():
    chat = Chat(make(), BYTES, system="S", max_new_tokens=3, temperature=0, banned=[E])
    one = chat.answer("a")
    assert read_by(chat) == [E, *b("S"), E, *b("a"), E]
    two = chat.answer("咳")
    assert read_by(chat) == [E, *b("S"), E, *b("a"), E, *one.tokens, E, *b("咳"), E]
    three, four = chat.answer("cd"), chat.answer("e")
    assert len(one.tokens) == len(four.tokens) == 3 and one.finish == "length"
    said = [b("S"), b("a"), one.tokens, b("咳"), two.tokens, b("cd"), three.tokens, b("e")]
    assert read_by(chat) == [E] + [token for each in said for token in (*each, E)]
    assert chat.last is four and four.forgotten == 0


CHOICES = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 1.5, "top_k": 30, "seed": 7, "repetition_penalty": 1.2},
    "beams": {"beams": {"num_beams": 3, "length_penalty": 0.5}, "no_repeat_ngram": 2},
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("history", [None, 3])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt3", "mixture"])
def test_the_same_tokens_as_from_scratch(kind, history, choice):
    model, options = make(kind, std=0.2), CHOICES[choice] | {"max_new_tokens": 9, "extra": (ends_soon,)}
    chat, plain = (Chat(model, BYTES, "Be kind.", history, use_cache=cache, **options) for cache in (True, False))
    said, forgot = [], False
    for turn, text in enumerate(SCRIPT):
        ours = chat.answer(text)
        said.append(b(text))
        kept = said[ours.forgotten :]
        read = [E, *b("Be kind."), E] + [token for each in kept for token in (*each, E)]
        if choice == "beams":
            processing = {name: value for name, value in options.items() if name != "beams"} | options["beams"]
            wanted = beam_search(model, [read], use_cache=False, eos=E, **processing)[0][0].tokens
        else:
            wanted = generate(model, [read], use_cache=False, row=turn, eos=E, **options)[0]
        assert ours.tokens == wanted == plain.answer(text).tokens
        assert read_by(chat) == read and plain.last.read_tokens == plain.last.prompt_tokens == len(read)
        assert history is None or len(kept) <= history
        said.append([token for token in wanted if token != E])
        forgot |= ours.forgotten > 0
    assert forgot  # the cache was rebuilt at least once
    assert chat.said == said


def test_a_turn_reads_its_own_tokens_only():
    model, counted = make(context=200), []
    whole = model.hidden
    model.hidden = lambda tokens, **openings: counted.append(tokens.shape[1]) or whole(tokens, **openings)
    chat = Chat(model, BYTES, "S", max_new_tokens=8, temperature=1.0, extra=(ends_soon,))
    answers = []
    for text in SCRIPT:
        counted.clear()
        answers.append(chat.answer(text))
        # The reading of the prompt, then a token a step; the last one written is not read.
        assert counted == [answers[-1].read_tokens] + [1] * (len(answers[-1].tokens) - 1)
    assert {answer.finish for answer in answers} == {"end", "length"}
    assert answers[0].read_tokens == answers[0].prompt_tokens == 3 + len(b(SCRIPT[0])) + 1
    for before, text, answer in zip(answers, SCRIPT[1:], answers[1:], strict=False):
        # Of the answer before: the E that closes it, and its last token unless that was the E.
        assert answer.read_tokens == (2 if before.finish == "length" else 1) + len(b(text)) + 1


def test_beams_read_the_prompt_once_and_their_answer_again():
    two = torch.full((257,), -torch.inf).index_fill(0, torch.tensor(b("xy")), 0.0)  # so that all beams look alike
    options = {"beams": {"num_beams": 4}, "max_new_tokens": 8, "extra": (lambda scores, histories: scores + two,)}
    model = make(context=200)
    chat, plain = (Chat(model, BYTES, use_cache=cache, **options) for cache in (True, False))
    first = chat.answer("a cough")
    assert first.read_tokens == 9 and first.tokens == plain.answer("a cough").tokens
    for text in SCRIPT[1:]:
        before, found = chat.last, chat.answer(text)
        assert found.read_tokens == 8 + 1 + len(b(text)) + 1
        assert found.prompt_tokens == before.prompt_tokens + found.read_tokens
        assert found.tokens == plain.answer(text).tokens


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_virtual_tokens_and_prefixes_come_first_in_every_turn(method, choice):
    model, options = make("gpt2", std=0.2, context=60), CHOICES[choice] | {"max_new_tokens": 7, "extra": (ends_soon,)}
    if method == "prompt":
        prompt.attach(model, prompt.PromptConfig(length=4, start="uniform", scale=2.0))
        before = extended.ids(model)
    else:
        prefix.attach(model, prefix.PrefixConfig(length=4))
        randomize(model, 0.2)
        before = []
    chat, plain = (Chat(model, BYTES, "S", before=before, use_cache=cache, **options) for cache in (True, False))
    for text in SCRIPT[:4]:
        ours, wanted = chat.answer(text), plain.answer(text)
        assert ours.tokens == wanted.tokens and read_by(chat)[: len(before) + 2] == [*before, E, *b("S")]
        assert ours.prompt_tokens + (4 if method == "prefix" else 0) <= 60
    assert chat.last.forgotten > 0


def test_a_memory_is_for_one_prompt():
    with pytest.raises(Error, match="a memory is of one prompt that goes on, found 2"):
        beam_search(make(), [[1], [2]], num_beams=2, memory=Memory(make()))


def test_utterances_go_whole_oldest_first_and_only_when_there_is_no_room():
    chat = Chat(make(context=40), BYTES, max_new_tokens=4, temperature=0, banned=[E])
    found = [chat.answer("x" * 5) for _ in range(5)]
    # E, then 6 tokens a question and 5 an answer; 4 are to be written and 3 of them read: a prompt has 37 at most.
    assert [answer.prompt_tokens for answer in found] == [7, 18, 29, 34, 34]
    assert [answer.forgotten for answer in found] == [0, 0, 0, 1, 3]
    assert read_by(chat)[1:] == [
        *chat.said[3],
        E,
        *b("xxxxx"),
        E,
        *chat.said[5],
        E,
        *b("xxxxx"),
        E,
        *chat.said[7],
        E,
        *b("xxxxx"),
        E,
    ]


@pytest.mark.parametrize("length, forgotten, prompt", [(2, 0, 37), (3, 1, 32), (8, 1, 37), (9, 2, 33)])
def test_the_last_token_of_room_is_used(length, forgotten, prompt):
    chat = Chat(make(context=40), BYTES, max_new_tokens=4, temperature=0, banned=[E])
    for _ in range(3):
        chat.answer("x" * 5)
    last = chat.answer("x" * length)
    assert (last.forgotten, last.prompt_tokens, len(last.tokens)) == (forgotten, prompt, 4)


def test_what_is_said_last_always_stays():
    chat = Chat(make(context=40), BYTES, "S" * 9, history=1, max_new_tokens=50, temperature=0, banned=[E])
    assert len(chat.answer("x" * 27).tokens) == 2 and chat.last.prompt_tokens == 39
    assert len(chat.answer("y" * 28).tokens) == 1 and chat.last.prompt_tokens == 40 and chat.last.forgotten == 2
    with pytest.raises(Error, match="this has 30 tokens after 11 of the system's, the model's context holds 40"):
        chat.say("z" * 29)
    assert len(chat.said) == 4  # what could not be said was not


@pytest.fixture(scope="module")
def doctor():
    """A model that knows one short dialogue by heart, in two languages."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=257, context=96, n_layers=1, n_heads=4, d_model=96))
    row = [E, *b("咳嗽"), E, *b("多久了？😀"), E, *b("三天"), E, *b("Drink. Rest."), E]
    tokens = torch.tensor([row])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1])[0, 6:], tokens[0, 7:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    return model.eval()


def test_text_comes_in_whole_characters(doctor):
    chat = Chat(doctor, BYTES, temperature=0)
    pieces = list(chat.say("咳嗽"))
    assert "".join(pieces) == chat.last.text == "多久了？😀" and chat.last.finish == "end"
    assert [piece for piece in pieces if piece] == list("多久了？😀")
    assert chat.answer("三天").text == "Drink. Rest."


def test_a_stop_string_ends_the_answer_and_the_utterance(doctor):
    chat = Chat(doctor, BYTES, temperature=0, stop=("了",))
    assert chat.answer("咳嗽").text == "多久" and chat.last.finish == "stop"
    chat.answer("x")
    assert read_by(chat) == [E, *b("咳嗽"), E, *b("多久"), E, *b("x"), E]


def test_an_answer_that_is_broken_off_is_remembered_as_far_as_it_came(doctor):
    chat = Chat(doctor, BYTES, temperature=0)
    pieces = chat.say("咳嗽")
    while next(pieces) == "":
        pass
    pieces.close()
    assert chat.last.finish == "broken" and chat.last.text == "多" and chat.said == [b("咳嗽"), b("多")]
    assert Chat(doctor, BYTES).say("咳嗽").close() is None


def test_a_new_conversation_knows_nothing_of_the_old(doctor):
    chat = Chat(doctor, BYTES, temperature=0)
    chat.answer("hello")
    chat.begin()
    assert chat.answer("咳嗽").text == "多久了？😀" and chat.last.read_tokens == 8


def test_bad_requests(doctor):
    with pytest.raises(Error, match="history is 0: give at least 1"):
        Chat(doctor, BYTES, history=0)
    with pytest.raises(Error, match="nothing was said"):
        Chat(doctor, BYTES).say(" \n")
    with pytest.raises(Error, match="no option 'temprature'"):
        Chat(doctor, BYTES, temprature=1).say("x")
    with pytest.raises(Error, match="a stop string is empty"):
        Chat(doctor, BYTES, stop=("",)).say("x")


def test_lines_in_answers_out(doctor, capsys):
    converse(Chat(doctor, BYTES, temperature=0), ["咳嗽", "z" * 200, "三天", "", "咳嗽"])
    out, err = capsys.readouterr()
    assert out == "多久了？😀\nDrink. Rest.\n多久了？😀\n"
    assert "this has 201 tokens, the model's context holds 96" in err and "a new conversation" in err


def test_records_for_scripts(doctor, capsys):
    converse(Chat(doctor, BYTES, temperature=0), ['{"content": "咳嗽"}', '{"text": "x"}', "{", "三天"], as_json=True)
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert first["prompt"] == "咳嗽" and first["text"] == "多久了？😀" and first["finish"] == "end"
    assert first["tokens"] == [*b("多久了？😀"), E] and first["read_tokens"] == first["prompt_tokens"] == 8
    assert second["text"] == "Drink. Rest." and second["read_tokens"] == 8 and second["forgotten"] == 0
    assert err.count('with the text field "content"') == 2


@pytest.fixture
def talk(doctor, tmp_path, monkeypatch, capsys):
    """sample.py RUN --chat in this process: what it prints for these lines."""
    doctor.save_pretrained(tmp_path)
    BYTES.save(tmp_path)
    spec = importlib.util.spec_from_file_location("sample", Path(__file__).parents[1] / "sample.py")
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)

    def call(*args, lines=()):
        monkeypatch.setattr(sys, "argv", ["sample.py", str(tmp_path), "--chat", *args])
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
        sample.main()
        return capsys.readouterr().out

    return call


def test_a_conversation_on_the_command_line(talk):
    assert talk("--greedy", lines=["咳嗽", "三天", "", "咳嗽"]) == "多久了？😀\nDrink. Rest.\n多久了？😀\n"
    assert talk("--greedy", "--stop", "Re", lines=["咳嗽", "三天"]) == "多久了？😀\nDrink. \n"
    found = [
        json.loads(line) for line in talk("--greedy", "--json", "--history", "1", lines=["咳嗽", "咳嗽"]).splitlines()
    ]
    assert [each["text"] for each in found] == ["多久了？😀"] * 2 and found[1]["forgotten"] == 2
    found = json.loads(talk("--num-beams", "3", "--json", "--system", "S", lines=["咳嗽"]))
    assert found["prompt_tokens"] == 10


def test_sampling_on_the_command_line_is_that_of_the_library(talk, doctor):
    options = {"temperature": 1.7, "top_k": 60, "seed": 3, "max_new_tokens": 20}
    chat = Chat(doctor, BYTES, **options)
    wanted = [chat.answer(text).tokens for text in ("a", "b")]
    words = ["--temperature", "1.7", "--top-k", "60", "--seed", "3", "--max-new-tokens", "20", "--json"]
    assert [json.loads(line)["tokens"] for line in talk(*words, lines=["a", "b"]).splitlines()] == wanted


def test_what_a_conversation_cannot_have(talk, monkeypatch):
    for words in (
        ["--prompt", "x"],
        ["--score"],
        ["--best-of", "2"],
        ["--slide"],
        ["--no-eot"],
        ["--num-samples", "2"],
    ):
        with pytest.raises(Error, match=f"leave out --chat or {words[0]}"):
            talk(*words)
    with pytest.raises(Error, match="--history is 0"):
        talk("--history", "0")
    with pytest.raises(Error, match="give --chat"):
        talk("--no-chat", "--system", "x")
