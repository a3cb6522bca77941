"""Write text with a trained model: a run directory of train.py, or any Hugging Face directory minigpt can represent.
The directory of an adapter, of a prompt or of a prefix will do: it names the model it belongs to.

A prompt is read as the beginning of a document; without one the model begins the document itself. Text appears as
it is made and ends where the model ends the document, at --stop, after --max-new-tokens, or when the context is full.
"""

import sys
from contextlib import nullcontext

import lora
from minigpt import cli
from minigpt.errors import Error
from minigpt.sample_options import Beams, Choosing, Drafting, Input, Output, Serving, Steering, Talking

EXAMPLES = """
examples:
  python sample.py runs/notes                                           a document from nothing
  python sample.py runs/notes --prompt "Chief complaint:"               continue a prompt
  python sample.py runs/notes --prompt "患者，女，" --num-samples 3        three ways to go on
  python sample.py runs/notes --prompt "Dx:" --greedy                   the most likely text; no randomness
  python sample.py runs/notes --prompt "Dx:" --num-beams 4 --show-beams  the likeliest of many, and how it was found
  python sample.py runs/notes --prompt "Dx:" --one-of " gout" --one-of " sepsis" --num-beams 2 --num-return 2
  python sample.py runs/notes --prompts prompts.jsonl --top-p 0.95 --json   many prompts, a record a line
  python sample.py runs/notes --draft runs/small --draft-tokens 4       the law of runs/notes, a small model guessing
  python sample.py runs/notes --prompts notes.txt --score               how likely is each text
  python sample.py runs/notes --endless --max-new-tokens 5000           longer than it was trained to read
  python sample.py runs/notes --interactive                             a line in, its continuation out; Ctrl-D ends
  python sample.py runs/nurse --chat --system "Answer briefly." --history 3  a conversation, line by line
  python sample.py runs/letters                                         an adapter, beside the model it names
  python sample.py runs/notes --adapter runs/letters                    the same, of any kind: LoRA, prompt, prefix
  python sample.py runs/notes --prompt A --prompt B --adapter base --adapter runs/letters    one for each prompt
  python sample.py runs/triage --prompt "fever for three days" --json   a head of train.py --task: its answer
  python sample.py runs/entail --prompt "a text" --pair "another"       a head for two texts
  python sample.py runs/notes --serve --adapter runs/letters            for programs (OpenAI's API) and a browser
  python sample.py runs --serve                                         watch the runs in a directory

The same seed, prompts and options give the same text on the same kind of machine.
Exit codes: 0 done, 2 bad input (one line on stderr says which), 130 stopped by Ctrl-C.
"""


def main():
    records = (Input, Talking, Choosing, Steering, Beams, Drafting, Output, Serving)
    options = cli.parse(*records, prog="sample.py", description=__doc__, epilog=EXAMPLES)
    source, talking, choosing, steering, beams, drafting, output, server = options
    if server.serve:
        server.check(source, output, talking, choosing, steering, beams, drafting)
        return serve(source, output, server)
    prompts = source.read()
    talking.check(source, choosing, steering, beams, drafting, output)
    drafting.check(choosing, steering, beams, output)
    import torch  # only now: --help and a mistyped option should not wait for it

    from minigpt import answers
    from minigpt.generation.session import Session, lines_of_stdin
    from minigpt.generation.writer import Writer
    from minigpt.serving import serving

    if output.threads:
        torch.set_num_threads(output.threads)
    model, tokenizer, adapters = load(source)
    if answers.has_head(source.model):
        return answers.answer(source, output, model, tokenizer, adapters, lines_of_stdin())
    draft = load_draft(drafting, tokenizer) if drafting.draft else None
    writer = Writer(model, tokenizer, choosing, steering, beams, draft, drafting.draft_tokens)
    session = Session(writer, adapters, choosing, beams, output, source.eot)
    drafted = serving(draft, output.weights) if draft else nullcontext()
    with serving(model, output.weights), lora.serving(model), drafted:
        if talking.chat:
            session.chat(lines_of_stdin(), talking)
        elif source.interactive:
            session.answer_lines(lines_of_stdin())
        else:
            session.write_all(prompts)
    if writer.tally.readings:
        print(writer.tally, file=sys.stderr)


def serve(source: Input, output: Output, options: Serving):
    """Answer programs and browsers until told to stop."""
    from minigpt import web

    web.check_installed()
    import torch

    from minigpt import answers
    from minigpt.serving import serving
    from minigpt.tuning import composed
    from minigpt.web import opening, server

    if output.threads:
        torch.set_num_threads(output.threads)
    token = server.read_token(options.token_file)
    given = {"token": token, "names": options.host_name, "quiet": options.quiet}
    listener = server.listen(options.host, options.port)  # before the seconds that a model takes to load
    if opening.holds_runs(source.model):
        return server.serve(opening.of_runs(source.model), listener, **given)
    if answers.has_head(source.model):
        raise Error(f"{source.model}: holds a task's head, which answers about texts and writes none: serve its base")
    model, tokenizer, adapters = load(source)
    directory, _ = composed.find(source.model, source.base)
    studio = opening.of_model(directory, model, tokenizer, adapters, lora, options.max_rows, options.queue)
    if warning := opening.crowded(model, options.max_rows):
        print(f"sample.py: {warning}", file=sys.stderr)
    with serving(model, output.weights), lora.serving(model):
        server.serve(studio, listener, **given)


def load(source: Input):
    """The model, its tokenizer, and what the prompts have beside it."""
    from minigpt.model import GPT
    from minigpt.tokenizer import Tokenizer
    from minigpt.tuning import composed

    directory, itself = composed.find(source.model, source.base)
    if itself and source.adapter:
        raise Error(f"{source.model}: is an adapter itself: to choose among several, give {directory} in its place")
    model, tokenizer = GPT.from_pretrained(directory), Tokenizer.load(directory)
    if (theirs := tokenizer.vocab_size) > (ours := model.config.vocab_size):
        raise Error(f"{directory}: the tokenizer has {theirs} tokens, the model {ours}: they do not belong together")
    if source.endless:
        from minigpt.context.extend import endless

        model = endless(model)
    adapters = composed.Adapters(model, itself or source.adapter, {"LORA": lora})
    for each in adapters.rounded:
        print(f"{each} learned beside weights in four bits: the model's are rounded so", file=sys.stderr)
    if source.merge:
        if not lora.names(model):
            raise Error("--merge puts one LoRA adapter into the weights: give --adapter once")
        lora.merge(model)
    return model, tokenizer, adapters


def load_draft(drafting: Drafting, tokenizer):
    """The small model that proposes; `Error` if it reads other tokens."""
    from minigpt.model import GPT
    from minigpt.tokenizer import Tokenizer

    draft = GPT.from_pretrained(drafting.draft)
    if Tokenizer.load(drafting.draft).vocabulary.ranks != tokenizer.vocabulary.ranks:
        raise Error(f"{drafting.draft}: this draft has another tokenizer than the model: give one with the same")
    return draft


if __name__ == "__main__":
    cli.run(main, "sample.py", lora.Error)
