"""Stop strings by brute force: any text, any stops, any cut of its bytes into tokens."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt import Error, tokenizer
from minigpt.generation.stops import TextStream
from minigpt.tokenizer import Tokenizer

text_of = st.text("abc病é\n", max_size=16) | st.text(st.characters(codec="utf-8"), max_size=8)
stops_of = st.lists(st.text("abc病é\n", min_size=1, max_size=5), max_size=3).map(tuple)
cuts_of = st.lists(st.integers(0, 40), max_size=12)


class Cut:
    """A tokenizer whose tokens are the given pieces of a text's bytes, characters broken or not."""

    def __init__(self, text: str, cuts: list[int]):
        data = text.encode()
        borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        self.pieces = [data[a:b] for a, b in zip(borders, borders[1:], strict=False)]

    def decode_bytes(self, ids):
        return b"".join(self.pieces[i] for i in ids)

    def stream(self):
        return tokenizer.TextStream(self)


def first_stop(text: str, stops) -> int | None:
    return next((i for i in range(len(text)) if any(text[i:].startswith(stop) for stop in stops)), None)


def certain(text: str, stops) -> int:
    """Characters that are shown whatever comes: up to the first place where a stop stands or could still stand."""
    for i in range(len(text)):
        if any(text[i:].startswith(stop) or stop.startswith(text[i:]) for stop in stops):
            return i
    return len(text)


@settings(deadline=None, max_examples=500)
@given(text=text_of, stops=stops_of, cuts=cuts_of)
@example(text="aab", stops=("ab",), cuts=[1, 2])
@example(text="ababac", stops=("abac",), cuts=[1, 2, 3, 4, 5])
@example(text="abcd", stops=("abcd", "bc"), cuts=[1, 2, 3])
@example(text="abce", stops=("abcd", "bc"), cuts=[1, 2, 3])
@example(text="abc", stops=("abcd", "bc"), cuts=[1, 2])
@example(text="病病", stops=("病\n", "病"), cuts=[1, 2, 4])
def test_the_text_up_to_the_first_stop_and_nothing_held_back_in_vain(text, stops, cuts):
    pieces = Cut(text, cuts)
    stream, shown, data = TextStream(pieces, stops), "", b""
    for token, piece in enumerate(pieces.pieces):
        shown += stream.push(token)
        data += piece
        so_far = data.decode("utf-8", "ignore")  # the characters that are whole
        assert shown == so_far[: certain(so_far, stops)]
        assert stream.done == so_far[len(shown) :].startswith(stops or ("no stops",))  # at once, not later
    shown += stream.flush()
    stop = first_stop(text, stops)
    assert shown == text[:stop]
    assert stream.done == (stop is not None)


def test_every_cut_gives_the_same():
    text, stops = "aababcab病c", ("病c", "abcd", "bcab")
    for bits in range(2 ** (len(text.encode()) - 1)):
        cut = Cut(text, [i + 1 for i in range(len(text.encode()) - 1) if bits >> i & 1])
        stream = TextStream(cut, stops)
        assert "".join(stream.push(i) for i in range(len(cut.pieces))) + stream.flush() == "aaba" and stream.done


@pytest.fixture(scope="module")
def own():
    return Tokenizer.train(["Findings: clear lungs. Impression: 双肺清晰，未见异常。\n\n"] * 3, vocab_size=320)


@pytest.mark.parametrize(
    "stops, kept",
    [
        ((), None),
        (("Impression:",), "Findings: clear lungs. "),
        (("sion", "mpress"), "Findings: clear lungs. I"),
        (("\n\n",), "Findings: clear lungs. Impression: 双肺清晰，未见异常。"),
        (("清晰，x", "晰"), "Findings: clear lungs. Impression: 双肺清"),
        (("F",), ""),
    ],
)
def test_with_a_tokenizer(own, stops, kept):
    text = "Findings: clear lungs. Impression: 双肺清晰，未见异常。\n\n\n"
    stream, shown, read = TextStream(own, stops), "", 0
    for token in own.encode(text):
        shown, read = shown + stream.push(token), read + 1
        if stream.done:
            break
    assert shown + stream.flush() == (text if kept is None else kept)
    assert stream.done == (kept is not None)
    if stream.done:
        assert stream.push(own.encode("more")[0]) == stream.flush() == ""


def test_without_stops_it_is_the_tokenizers_stream(own):
    ids = own.encode("双肺🫁é")[:-1]  # ends in half a character
    ours, theirs = TextStream(own), own.stream()
    assert [ours.push(i) for i in ids] + [ours.flush()] == [theirs.push(i) for i in ids] + [theirs.flush()]


@pytest.mark.parametrize("stops, words", [("ab", "tuple"), (("ab", ""), "empty"), ((1,), "tuple")])
def test_bad_input_is_named(own, stops, words):
    with pytest.raises(Error, match=words):
        TextStream(own, stops)
