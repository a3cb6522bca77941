"""What a client gets back of its own prompt: the text, and how likely the model finds it."""

import torch

from minigpt.generation.reader import evaluating
from minigpt.tuning import mixed
from minigpt.web.asking import Asking
from minigpt.web.studio import Studio
from minigpt.web.telling import Piece, Told, likely, texts_of

AT_ONCE = 128  # places whose logits exist at the same time


async def echo_of(studio: Studio, asking: Asking, ids: list[int], goes_on: bool = True) -> Piece:
    """A prompt as a piece of text, with log-probabilities where they are asked for; the first token has none."""
    told = texts_of(studio.tokenizer, ids, studio.tokenizer.eot)
    if asking.top is not None and len(ids) > 1:
        found = await studio.worker.run(prompt_logprobs, studio, studio.attached(asking.model), ids, asking.top)
        characters, told = studio.tokenizer.stream(), told[:1]
        for token, (logprob, top) in zip(ids[1:], found, strict=True):
            alternatives = likely(studio.tokenizer, characters, top)
            told.append(Told(token, characters.push(token), logprob, alternatives))
    return Piece("".join(each.text for each in told), tuple(told), None if goes_on else "length")


def prompt_logprobs(studio: Studio, attached: str | None, ids: list[int], top: int) -> list[tuple]:
    """(log p(x_t | x_<t), the `top` likeliest in its place) of each token but the first. On the worker's thread."""
    model, found = studio.model, []
    with studio.beside(attached), evaluating(model):
        (whole,) = mixed.begin(model, [attached], [ids])
        tokens = torch.tensor(whole, device=next(model.parameters()).device)
        hidden, own = model.hidden(tokens[None])[0, len(whole) - len(ids) : -1], tokens[1 - len(ids) :]
        for places, targets in zip(hidden.split(AT_ONCE), own.split(AT_ONCE), strict=True):
            logprobs = model.head(places[None])[0].float().log_softmax(-1)
            best = logprobs.topk(min(top, logprobs.shape[-1]))
            theirs = logprobs.gather(-1, targets[:, None])[:, 0].tolist()
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found += zip(theirs, (list(zip(*pair, strict=True)) for pair in pairs), strict=True)
    return found
