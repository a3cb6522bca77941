"""Instructions and dialogues: every id and every target by hand, losses as transformers', nothing lost unsaid."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import model as make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import GPT, GPTConfig
from minigpt.cli import parse
from minigpt.corpus.examples import open_records, texts
from minigpt.corpus.records import Dialogues, RecordConfig
from minigpt.corpus.rows import RecordBatches, pack_lengths
from minigpt.corpus.talk import Dialogue, Instruction, Layout, Part, Template
from minigpt.errors import Error
from minigpt.loss import IGNORE, cross_entropy
from minigpt.tokenizer import Tokenizer
from minigpt.training.blame import describe_rows

CLINICAL = Path(__file__).parents[2] / "shared" / "clinical"
BYTES = Tokenizer.train([""], 257)  # a token is a byte, and 256 is the end of text
E = BYTES.eot
SECRET = "Mrs Doe has a cough"


def write(path: Path, *records) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def chat(*contents, roles=("user", "assistant")) -> dict:
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]}


def opened(file, kind, tokenizer=BYTES, context=64, batch_size=4, **options):
    return open_records(file, kind, RecordConfig(**options), tokenizer, context, batch_size, seed=0, progress=False)


def examples(batches: RecordBatches) -> list[tuple[list[int], list[int]]]:
    """(ids, targets) of every record as they lie in the batches, without padding."""
    found = []
    for i in range(len(batches)):
        batch = batches[i]
        for tokens, targets, record in zip(batch.tokens, batch.targets, batches.rows(i), strict=True):
            n = int(batches.starts[record + 1] - batches.starts[record]) - 1
            assert (targets[n:] == IGNORE).all() and (tokens[n:] == E).all()
            found.append((tokens[:n].tolist(), targets[:n].tolist()))
    return found


def both(file, kind, **options):
    training, validation, counts = opened(file, kind, **options)
    return sorted(examples(training) + examples(validation)), counts


def b(text: str) -> list[int]:
    """The ids of a text, by the vocabulary alone."""
    return [BYTES.vocabulary.ranks[bytes([byte])] for byte in text.encode()]


X = IGNORE


def test_a_dialogue_of_four_turns_by_hand(tmp_path):
    file = write(tmp_path / "c.jsonl", chat("ab", "c", "d", "ef"), chat("z", "z"))
    a, bb, c, d, e, f = b("abcdef")
    ids = [E, a, bb, E, c, E, d, E, e, f]
    found, _ = both(file, "chat")
    assert (ids, [X, X, X, c, E, X, X, e, f, E]) in found
    found, _ = both(file, "chat", mask="off")
    assert (ids, [a, bb, E, c, E, d, E, e, f, E]) in found


def test_chinese_turns_and_a_system_by_hand(tmp_path):
    with_system = {"messages": [{"role": "system", "content": "答"}, *chat("咳", "好")["messages"]]}
    found, _ = both(write(tmp_path / "c.jsonl", with_system, {"turns": ["z", "z"]}), "chat")
    ids = [E, *b("答"), E, *b("咳"), E, *b("好")]
    assert (ids, [X] * 8 + [*b("好"), E]) in found


def test_the_ids_of_the_bert_like_layout():
    layout = Layout(begin=101, end=102)
    example = layout.example([Part("x", True)], lambda text: [122, 123, 435, 634])
    assert example.ids == [101, 122, 123, 435, 634, 102]
    batch = RecordBatches([example.ids], [example.learned], 8, 1, 0, pad=0)[0]
    assert batch.tokens.tolist() == [[101, 122, 123, 435, 634, 0, 0, 0]]
    assert batch.targets.tolist() == [[122, 123, 435, 634, 102, X, X, X]]  # logits[:-1] are asked for labels[1:]


def test_an_instruction_by_hand(tmp_path):
    records = {"instruction": "do", "input": "it", "output": "ok"}, {"instruction": "do", "output": "no"}
    found, _ = both(write(tmp_path / "i.jsonl", *records), "instruct")
    assert found == sorted(
        [
            ([E, *b("do\n\nit"), E, *b("ok")], [X] * 7 + [*b("ok"), E]),
            ([E, *b("do"), E, *b("no")], [X] * 3 + [*b("no"), E]),
        ]
    )


def test_two_templates_for_the_same_data(tmp_path):
    names = {"instruction": "ask", "input": "word", "output": "english"}
    file = write(
        tmp_path / "i.jsonl",
        {"ask": "Translate to English.", "word": "chien", "english": "dog"},
        {"ask": "Translate to English.", "word": "狗", "english": "dog"},
    )
    told, _ = both(file, "instruct", template="{instruction}\nInput: {input}\nOutput:", **names)
    ids = b("Translate to English.\nInput: chien\nOutput:")
    assert ([E, *ids, E, *b("dog")], [X] * (len(ids) + 1) + [*b("dog"), E]) in told
    completed, _ = both(file, "instruct", template='"{input}" in English is {output}', **names)
    ids = b('"狗" in English is')
    assert ([E, *ids, *b(" dog")], [X] * len(ids) + [*b(" dog"), E]) in completed
    everything, _ = both(file, "instruct", template="{input}：{output}", mask="off", **names)
    assert ([E, *b("chien：dog")], [*b("chien：dog"), E]) in everything


def test_braces_in_a_text_are_text():
    before, after = Template("{instruction} {input}").parts("{input}", "{output} {x}", "y")
    assert before.text == "{input} {output} {x}" and after.text == "y"


def test_messages_of_one_side_are_one_utterance(tmp_path):
    messages = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "never learned from")]
    file = write(tmp_path / "c.jsonl", {"messages": [{"role": r, "content": t} for r, t in messages]}, chat("z", "z"))
    found, _ = both(file, "chat")
    assert ([E, *b("a\nb"), E, *b("c\nd")], [X] * 4 + [*b("c\nd"), E]) in found
    found, _ = both(file, "chat", mask="off")
    assert ([E, *b("a\nb"), E, *b("c\nd"), E, *b("never learned from")]) in [ids for ids, _ in found]


def test_the_oldest_utterances_are_dropped_whole(tmp_path):
    said = ["a" * 9, "b" * 9, "c" * 9, "d" * 9, "e" * 9, "f" * 9]
    file = write(tmp_path / "c.jsonl", chat(*said), chat("z", "z"))

    def kept(context):
        found, counts = both(file, "chat", context=context)
        ((ids, targets),) = [each for each in found if b("f")[0] in each[0]]
        return ids, targets, counts

    ids, targets, counts = kept(60)  # 1 + 6 * 10 tokens: all of it, the last one only asked for
    assert len(ids) == 60 and counts.shortened == counts.dropped == 0
    assert sum(t != X for t in targets) == 30
    ids, targets, counts = kept(59)  # an answer whose question is gone is read, not learned
    assert ids == [E, *b("b" * 9), E, *b("c" * 9), E, *b("d" * 9), E, *b("e" * 9), E, *b("f" * 9)]
    assert [t for t in targets if t != X] == [*b("d" * 9), E, *b("f" * 9), E]
    assert (counts.shortened, counts.dropped) == (1, 1) and "1 of their oldest utterances" in str(counts)
    ids, targets, counts = kept(20)
    assert ids == [E, *b("e" * 9), E, *b("f" * 9)] and counts.dropped == 4
    write(file, chat(*said), chat("z", "z"), chat("y", "y"))
    found, counts = both(file, "chat", context=19)  # a pair does not fit: nothing is cut, the record is left out
    assert len(found) == 2 and counts.bad.total == 1


def test_a_system_stays_when_utterances_go(tmp_path):
    record = {"messages": [{"role": "system", "content": "S"}, *chat("a" * 9, "b" * 9, "c" * 9, "d" * 9)["messages"]]}
    found, counts = both(write(tmp_path / "c.jsonl", record, chat("z", "z")), "chat", context=25)
    assert [E, *b("S"), E, *b("c" * 9), E, *b("d" * 9)] in [ids for ids, _ in found] and counts.dropped == 2


@settings(deadline=None, max_examples=150)
@given(input=st.text("ab é咳", max_size=30), output=st.text("xy好", min_size=1, max_size=8), context=st.integers(4, 40))
def test_the_input_is_cut_and_never_the_output(input, output, context):
    input = input if input.strip() else ""
    template = Template("{instruction}:{input}.")
    example = Instruction("do", input, output, template).fitted(Layout.of(BYTES), BYTES.encode, context + 1)

    def by_hand(n):
        question = f"do:{input[:n].rstrip()}."
        return [E, *b(question), E, *b(output), E], question

    fitting = [n for n in range(len(input) + 1) if len(by_hand(n)[0]) <= context + 1]
    if not fitting:
        assert example is None
        return
    ids, question = by_hand(fitting[-1])
    assert example.ids == ids
    assert example.learned == [False] * (len(b(question)) + 2) + [True] * (len(b(output)) + 1)
    assert example.lost == (fitting[-1] < len(input))


def test_what_cannot_fit_is_left_out_and_said(tmp_path):
    long = {"instruction": SECRET, "output": "x" * 50}
    file = write(tmp_path / "i.jsonl", *({"instruction": "do", "output": str(i)} for i in range(4)), long)
    training, validation, counts = opened(file, "instruct", context=40)
    assert counts.training.records + counts.validation.records == 4 and counts.bad.total == 1
    assert f"{file}:5: an answer and its question do not fit the context of 40 tokens" in str(counts)
    assert SECRET not in str(counts)
    with pytest.raises(Error, match="do not fit the context of 40 tokens: mend it"):
        opened(file, "instruct", context=40, on_bad="refuse")


BAD = {
    "chat": [
        ({"text": SECRET}, "no field 'messages'"),
        ({"messages": SECRET}, "'messages' is str, expected a list"),
        ({"messages": []}, "no message of the assistant"),
        ({"messages": [{"role": "user", "content": SECRET}]}, "no message of the assistant"),
        ({"messages": [{"role": "doctor", "content": SECRET}]}, "message 1 is of the role 'doctor', expected one of"),
        ({"messages": [{"content": SECRET}]}, "message 1 is of the role None"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1 is NoneType, expected a string"),
        (chat(SECRET, "  "), "message 2 is empty"),
        (chat(SECRET, "\ud800"), "lone surrogate"),
        (chat("a", "b", "c", roles=("user", "system")), "message 2 is the system's, expected it before"),
        ({"turns": [SECRET, 7]}, "message 2 is int, expected a string"),
        ('{"messages": [', "not valid JSON"),
        ("[1]", "not a JSON object"),
    ],
    "instruct": [
        ({"instruction": SECRET}, "no field 'output'"),
        ({"output": SECRET}, "no field 'instruction'"),
        ({"instruction": SECRET, "output": " "}, "'output' is empty"),
        ({"instruction": SECRET, "output": None}, "'output' is NoneType, expected a string"),
        ({"instruction": SECRET, "input": ["x"], "output": "y"}, "'input' is list, expected a string"),
    ],
}


@pytest.mark.parametrize("kind, line, reason", [(kind, *each) for kind, lines in BAD.items() for each in lines])
def test_bad_lines_are_named_not_shown(tmp_path, kind, line, reason):
    good = {"chat": [chat("a", "b"), chat("c", "d")], "instruct": [{"instruction": c, "output": c} for c in "ab"]}[kind]
    file = tmp_path / "r.jsonl"
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in (good[0], line, good[1])))
    _, _, counts = opened(file, kind)
    (report,) = counts.bad.first
    assert report.startswith(f"{file}:2: ") and reason in report and SECRET not in report
    with pytest.raises(Error, match="mend it") as problem:
        opened(file, kind, on_bad="refuse")
    assert reason in str(problem.value) and SECRET not in str(problem.value)


def test_requests_that_cannot_be_met(tmp_path):
    one = write(tmp_path / "one.jsonl", chat("a", "b"))
    many = write(tmp_path / "many.jsonl", *({"ask": c, "output": c, "task": c} for c in "abc"))
    asked = {"instruction": "ask"}
    for file, kind, options, reason in [
        (one, "chat", {}, "one record cannot be trained on and validate too"),
        (one, "chat", {"validation": 0.0}, "no record here"),
        (one, "chat", {"messages": "mesages"}, "no line has the field 'mesages'; found: 'messages'; did you mean"),
        (one, "talk", {}, "records are 'talk': known: 'chat', 'instruct'"),
        (many, "instruct", {}, "no line has the field 'instruction'; found: 'ask'"),
        (many, "instruct", asked | {"input": "text"}, "no line has the field 'text'"),
        (many, "instruct", asked | {"held_out": ("d",)}, "no record has task=d"),
        (many, "instruct", asked | {"held_out": ("a",), "held_out_by": "kind"}, "no line has the field 'kind'"),
        (many, "instruct", asked | {"held_out": ("a", "b", "c")}, "every record is of a held-out task"),
        (many, "instruct", asked | {"where": ("task=d",)}, "no usable record"),
        (tmp_path, "chat", {}, "dialogues are read from .jsonl"),
        (write(tmp_path / "n.txt", "x"), "instruct", {}, "instructions are read from .jsonl or .csv"),
    ]:
        with pytest.raises(Error, match=reason):
            opened(file, kind, **options)
    for options, reason in [
        ({"mask": "yes"}, "mask is 'yes'"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"template": "{question}"}, "the template has {question}: known: "),
        ({"template": "{output}"}, "give {instruction} or {input}"),
        ({"template": "{input} {output} {instruction}"}, "and {output} last"),
    ]:
        with pytest.raises(Error, match=reason):
            RecordConfig(**options)


def test_options_of_the_command_line():
    (options,) = parse(RecordConfig, prog="x", args=["--held-out", "a", "--held-out", "b", "--mask", "off", "--pack"])
    assert options == RecordConfig(held_out=("a", "b"), mask="off", pack=True)


def test_csv_and_jsonl_give_the_same_records(tmp_path):
    records = [{"q": f'问 {i}, "x"\nline', "in": "" if i % 2 else "y", "a": "答" * i} for i in range(1, 9)]
    with (tmp_path / "i.csv").open("w", newline="", encoding="utf-8-sig") as handle:
        rows = csv.DictWriter(handle, ["a", "q", "in"])
        rows.writeheader()
        rows.writerows(records)
    names = {"instruction": "q", "input": "in", "output": "a"}
    found, _ = both(tmp_path / "i.csv", "instruct", context=100, **names)
    assert found == both(write(tmp_path / "i.jsonl", *records), "instruct", context=100, **names)[0] and len(found) == 8


def test_sides_go_by_the_record_alone(tmp_path):
    records = [{"instruction": f"do {i}", "output": "ok"} for i in range(300)]
    ids = {}
    for name, chosen in {"all": records, "half": records[::-2], "twice": records * 2}.items():
        training, validation, counts = opened(write(tmp_path / f"{name}.jsonl", *chosen), "instruct", validation=0.2)
        ids[name] = [{tuple(i) for i, _ in examples(side)} for side in (training, validation)]
        assert counts.duplicates == (300 if name == "twice" else 0)
        assert counts.training.records + counts.validation.records == len(ids[name][0] | ids[name][1])
    assert ids["all"] == ids["twice"] and not ids["all"][0] & ids["all"][1]
    assert ids["half"][0] <= ids["all"][0] and ids["half"][1] <= ids["all"][1]
    assert 35 < len(ids["all"][1]) < 85


def test_held_out_tasks_validate_and_are_not_trained_on(tmp_path):
    records = [{"instruction": f"{task} {i}", "output": "ok", "task": task} for task in "abc" for i in range(10)]
    file = write(tmp_path / "i.jsonl", *records)
    training, validation, counts = opened(file, "instruct", held_out=("b",))
    assert counts.training.records == 20 and counts.validation.records == 10
    assert {ids[1] for ids, _ in examples(validation)} == set(b("b"))
    assert {ids[1] for ids, _ in examples(training)} == set(b("ac"))


def test_texts_for_a_tokenizer(tmp_path):
    file = write(tmp_path / "c.jsonl", {"messages": [{"role": "system", "content": "s"}, *chat("a", "b")["messages"]]})
    assert list(texts(file, "chat", RecordConfig())) == ["s", "a", "b"]


def random_records(rng, count, context):
    """Records of 2 to context + 1 ids below 60, targets anywhere but first."""
    ids = [rng.integers(1, 60, rng.integers(2, context + 2)) for _ in range(count)]
    learned = [np.r_[False, rng.random(len(each) - 1) < 0.5] for each in ids]
    return ids, learned


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixture"])
def test_packed_and_padded_rows_have_the_same_loss(kind):
    rng = np.random.default_rng(3)
    ids, learned = random_records(rng, 40, 24)
    model = make_model(kind, std=0.2, dtype=torch.float64)
    sums, rows = {}, {}
    for pack in (False, True):
        batches = RecordBatches(ids, learned, 24, 4, seed=1, pad=0, pack=pack)
        total, targets = 0.0, 0
        for i in range(len(batches)):
            batch = batches[i]
            hidden = model.hidden(batch.tokens, positions=batch.positions, documents=batch.documents)
            total += cross_entropy(hidden, model.head, batch.targets, "sum").item()
            targets += batch.n_targets
        sums[pack], rows[pack] = total, batches.windows
        assert targets == batches.n_targets == sum(each[1:].sum() for each in learned)
    one_by_one = sum(
        torch.nn.functional.cross_entropy(
            model(torch.tensor(i[None, :-1]))[0][torch.tensor(m[1:])], torch.tensor(i[1:][m[1:]]), reduction="sum"
        ).item()
        for i, m in zip(ids, learned, strict=True)
        if m[1:].any()
    )
    assert sums[False] == pytest.approx(one_by_one, abs=1e-9) and sums[True] == pytest.approx(one_by_one, abs=1e-9)
    assert rows[True] < 0.75 * rows[False]


def test_packing_takes_each_record_once_and_fits():
    for longest, waste in ((30, 1.06), (10, 1.01)):
        lengths = np.random.default_rng(0).integers(1, longest + 1, 500)
        bins = pack_lengths(lengths, 30)
        assert sorted(sum(bins, [])) == list(range(500))
        assert max(sum(lengths[row]) for row in bins) <= 30
        assert len(bins) <= waste * lengths.sum() / 30 + 1


def test_batches_by_number_alone_and_every_record_once_an_epoch():
    ids, learned = random_records(np.random.default_rng(1), 23, 12)
    for pack in (False, True):
        one, other = (RecordBatches(ids, learned, 12, 4, seed=5, pad=0, pack=pack) for _ in range(2))
        for i in (7, 0, 100, 3, 7):
            assert torch.equal(one[i].tokens, other[i].tokens) and torch.equal(one[i].targets, other[i].targets)
        for epoch in (0, 3):
            seen = [row for i in range(epoch * len(one), (epoch + 1) * len(one)) for row in one.rows(i)]
            assert sorted(record for row in seen for record in one.bins[row]) == list(range(23))
        assert one.rows(0).tolist() != one.rows(len(one)).tolist()
    assert describe_rows(one, 0, [1]) == f"batch 0, row 1 ({one.describe(int(one.rows(0)[1]))})"
    assert one.describe(0) == "records " + ", ".join(map(str, one.bins[0]))


@pytest.mark.parametrize("pack", [False, True])
def test_loss_on_three_rows_is_that_of_transformers(tmp_path, pack):
    import transformers

    file = write(
        tmp_path / "i.jsonl",
        {"instruction": "Translate to English.", "input": "咳嗽", "output": "cough"},
        {"instruction": "Spell it.", "output": "c o u g h"},
        {"instruction": "Say no.", "input": "y", "output": "n"},
        {"instruction": "Apart.", "output": "v"},
    )
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=257, context=48, n_layers=2, n_heads=2, d_model=32, positions="learned")).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    model.save_pretrained(tmp_path / "run")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "run", attn_implementation="eager").eval()
    training, _, counts = opened(file, "instruct", context=48, validation=0.01, pack=pack)
    assert counts.training.records == 3
    rows = [
        ("Translate to English.\n\n咳嗽", "cough"),
        ("Spell it.", "c o u g h"),
        ("Say no.\n\ny", "n"),
        ("Apart.", "v"),
    ]
    trained = {tuple(training.ids[training.starts[i] : training.starts[i + 1]].tolist()) for i in range(3)}
    by_hand = [([E, *b(q), E, *b(a), E], [X] * (len(b(q)) + 2) + [*b(a), E]) for q, a in rows]
    by_hand = [row for row in by_hand if tuple(row[0]) in trained]
    assert len(by_hand) == 3
    longest = max(len(ids) for ids, _ in by_hand)
    ids = torch.tensor([i + [0] * (longest - len(i)) for i, _ in by_hand])
    keep = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i, _ in by_hand])
    labels = torch.tensor([t + [X] * (longest - len(t)) for _, t in by_hand])
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=keep, labels=labels).loss.item()
        nats = targets = 0
        for i in range(len(training)):
            batch = training[i]
            hidden = model.hidden(batch.tokens, positions=batch.positions, documents=batch.documents)
            nats += cross_entropy(hidden, model.head, batch.targets, "sum").item()
            targets += batch.n_targets
    assert nats / targets == pytest.approx(wanted, rel=1e-6)


def test_real_dialogues(tmp_path):
    source = CLINICAL / "dialmed_zh" / "dialmed_zh.jsonl"
    if not source.is_file():
        pytest.skip(f"{source} is not here")
    sides = {"患者": "user", "医生": "assistant"}
    records = []
    for line in source.read_text(encoding="utf-8").splitlines()[:60]:
        said = [each.partition("：") for each in json.loads(line)["dialogue"].split("\n")]
        records.append(
            {
                "messages": [
                    {"role": sides[who], "content": text} for who, _, text in said if who in sides and text.strip()
                ]
            }
        )
    training, validation, counts = opened(write(tmp_path / "c.jsonl", *records), "chat", context=400)
    assert (
        counts.dropped > 0
        and counts.training.records + counts.validation.records + counts.bad.total >= 60 - counts.duplicates
    )
    for ids, targets in examples(training):
        learned = BYTES.decode([t for t in targets if t not in (X, E)])
        assert learned and "\ufffd" not in learned + BYTES.decode([i for i in ids if i != E])


def test_readers_are_documents(tmp_path):
    file = write(tmp_path / "c.jsonl", chat("a", "b"), {"turns": ["c", "d"]})
    reader = Dialogues(file, RecordConfig())
    found = [document.text for document in reader]
    assert found == [Dialogue("", (Part(x, False), Part(y, True))) for x, y in ("ab", "cd")]
    assert reader.position == reader.size
