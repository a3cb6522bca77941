"""A conversation: what the model reads by hand, the same tokens as from scratch, and each token read once."""

import json

import pytest
import torch
from helpers import KINDS, randomize

from minigpt import GPT, Error, GPTConfig
from minigpt.chat import Chat, converse
from minigpt.generation import Memory, beam_search, generate
from minigpt.tokenizer import Tokenizer

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
    "beams": {"num_beams": 3, "no_repeat_ngram": 2},
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
        prompt = [E, *b("Be kind."), E] + [token for each in kept for token in (*each, E)]
        if choice == "beams":
            wanted = beam_search(model, [prompt], use_cache=False, eos=E, **options)[0][0].tokens
        else:
            wanted = generate(model, [prompt], use_cache=False, row=turn, eos=E, **options)[0]
        assert ours.tokens == wanted == plain.answer(text).tokens
        assert read_by(chat) == prompt and plain.last.read_tokens == plain.last.prompt_tokens == len(prompt)
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
    chat = Chat(make(context=200), BYTES, num_beams=4, max_new_tokens=8)
    first, second = chat.answer("a cough"), chat.answer("no")
    answer = [token for token in first.tokens if token != E]
    assert first.read_tokens == 9 and second.read_tokens == len(answer) + 1 + 2 + 1
    assert second.prompt_tokens == 9 + second.read_tokens


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
