"""Prompts by hand, candidates one text at a time in float64, retrieval by brute force, trials by a plain loop."""

import copy
import json
import math

import pytest
import torch

from minigpt import GPT, Error, GPTConfig
from minigpt.generation.scoring import score
from minigpt.metrics import Scores
from minigpt.prompting import Builder, Example, Template, answers, retrieval, show, trial
from minigpt.prompting.__main__ import main
from minigpt.prompting.answers import Candidates
from minigpt.prompting.template import TEMPLATES, read_templates
from minigpt.tokenizer import Tokenizer
from minigpt.tuning import prefix, prompt
from tests import helpers

TOKENIZER = Tokenizer.train(["no cough, no fever, cough", "咳嗽 咳嗽 发热 发热", "Answer: Answer:"], 300)
NAMES = ["heart", "lung", "skin and hair"]
NOTES = [
    Example("a rash on both arms", "skin and hair"),
    Example("cough and fever", "lung"),
    Example("palpitations at night", "heart"),
    Example("咳嗽三天，发热", "lung"),
    Example("hair falls out", "skin and hair"),
    Example("chest pain on stairs", "heart"),
    Example("dry cough at night", "lung"),
]


def a_model(kind: str = "gpt2", **changes) -> GPT:
    return helpers.model(kind, std=0.2, **{"vocab_size": TOKENIZER.vocab_size, "context": 160} | changes)


def one_by_one(model, text: list[int], prompt: int) -> list[float]:
    """log p of each token after the prompt, every one read alone in float64."""
    wide, found = copy.deepcopy(model).double(), []
    for t in range(prompt, len(text)):
        with torch.no_grad():
            found.append(wide(torch.tensor([text[:t]]))[0, -1].log_softmax(-1)[text[t]].item())
    return found


class TestTemplate:
    TEMPLATE = Template(task="Sort: {answers}.", question="Note: {text}\nOrgan:", between="\n--\n")

    @pytest.mark.parametrize(
        "shots, words",
        [
            (0, "Sort: heart, lung, skin and hair.\n--\nNote: 咳嗽\nOrgan:"),
            (1, "Sort: heart, lung, skin and hair.\n--\nNote: itch\nOrgan: skin and hair\n--\nNote: 咳嗽\nOrgan:"),
        ],
    )
    def test_prompts_are_these_words(self, shots, words):
        found = Builder(TOKENIZER, self.TEMPLATE, NAMES).build("咳嗽", [Example("itch", "skin and hair")][:shots])
        assert found.text == words and found.examples == shots
        assert found.ids[0] == TOKENIZER.eot and TOKENIZER.decode(found.ids[1:]) == words

    def test_completion_and_instruction_are_two_wordings_of_one_task(self):
        """The same data asked as an unfinished sentence and as an order."""
        completion = Template(question='"{text}" in Chinese is')
        instruction = Template(task="Translate.", question="Input: {text}\nOutput:")
        pair = [Example("fever", "发热")]
        texts = [Builder(TOKENIZER, t, ["发热", "咳嗽"]).build("cough", pair).text for t in (completion, instruction)]
        assert texts[0] == '"fever" in Chinese is 发热\n\n"cough" in Chinese is'
        assert texts[1] == "Translate.\n\nInput: fever\nOutput: 发热\n\nInput: cough\nOutput:"

    def test_an_answer_has_the_same_ids_as_example_and_as_candidate(self):
        builder = Builder(TOKENIZER, Template(question="{text}：", answer="{answer}"), ["咳嗽", "发热"], eot=False)
        ids = builder.build("b", [Example("a", "发热")]).ids
        start = len(TOKENIZER.encode("a：")) - 1  # what follows "a" and ":" of the question
        assert builder.answers[1] in [ids[i : i + len(builder.answers[1])] for i in range(start, start + 3)]
        assert builder.prior == TOKENIZER.encode("：")

    @pytest.mark.parametrize("task", ["", "Sort."])
    def test_whole_examples_are_dropped_from_the_front_as_few_as_possible(self, task):
        builder = Builder(TOKENIZER, Template(task=task), NAMES)
        sizes = {k: len(builder.build("itch", NOTES[len(NOTES) - k :]).ids) for k in range(len(NOTES) + 1)}
        for room in range(sizes[0], sizes[len(NOTES)] + 3):
            found = builder.build("itch", NOTES, room)
            k = max(k for k, size in sizes.items() if size <= room)
            assert found == builder.build("itch", NOTES[len(NOTES) - k :]) and found.examples == k
        with pytest.raises(Error, match=f"{sizes[0]} tokens, the prompt may have {sizes[0] - 1}"):
            builder.build("itch", NOTES, sizes[0] - 1)

    def test_text_that_looks_like_a_template_is_text(self):
        found = Builder(TOKENIZER, Template(), NAMES).build("{text} {answer}", [Example("{answers}", "lung")])
        assert found.text == "{answers}\nAnswer: lung\n\n{text} {answer}\nAnswer:"

    def test_templates_from_a_file(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text('- name: 一\n  question: "病历：{text}\\n科室："\n- answer: "{answer}."\n', encoding="utf-8")
        first, second = read_templates(file)
        assert (first.name, first.asked("咳"), second.name) == ("一", "病历：咳\n科室：", "template 2")
        assert second.answered("x") == "x."

    @pytest.mark.parametrize(
        "content, words",
        [
            ("- questoin: x", "did you mean 'question'"),
            ("name: x", "expected a list"),
            ("[]", "expected a list"),
            ("- question: no place", "{text}"),
            ("- answer: '{answer}{answer}'", "{answer}"),
            ("- task: 3", "give text"),
            ("- name: a\n- name: a", "same name"),
            ("- [", "not valid YAML"),
        ],
    )
    def test_templates_that_cannot_be(self, tmp_path, content, words):
        (tmp_path / "t.yaml").write_text(content)
        with pytest.raises(Error) as caught:
            read_templates(tmp_path / "t.yaml")
        assert words in str(caught.value)

    @pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", ""], []])
    def test_candidates_that_are_no_choice(self, names):
        with pytest.raises(Error, match="at least two different"):
            Builder(TOKENIZER, Template(), names)


class TestCandidates:
    ANSWERS = [[5], [7, 9, 5], [7], [1, 2, 3, 4, 5, 6]]
    PROMPTS = [[3, 4, 8, 9, 1], [3, 4, 8, 2, 2, 2, 60], [3, 4], [3, 4, 8, 9, 1, 0], [50]]  # shared and parted

    @pytest.mark.parametrize("kind", helpers.KINDS)
    def test_scores_equal_one_text_at_a_time(self, kind):
        model = helpers.model(kind, std=0.2)
        candidates = Candidates(model, self.ANSWERS)
        for given in self.PROMPTS:
            found, alone = candidates.score(given), answers.plain(model, given, self.ANSWERS)
            for answer, one, other in zip(self.ANSWERS, found, alone, strict=True):
                assert one.logprobs == pytest.approx(one_by_one(model, given + answer, len(given)), abs=1e-5)
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)

    def test_banded_layers_that_have_no_way_back(self):
        """An answer longer than what a banded layer can take back: the prompt is read anew."""
        model = helpers.model("gpt3", std=0.2, context=300)
        long = [torch.randint(61, (n,)).tolist() for n in (150, 3, 120, 1)]
        given = torch.randint(61, (100,)).tolist()
        found = Candidates(model, long).score(given)
        for one, other in zip(found, answers.plain(model, given, long), strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)

    def test_behind_a_soft_prompt_and_a_prefix(self):
        soft, pre = helpers.model(std=0.3), helpers.model(std=0.3)
        prompt.attach(soft, prompt.PromptConfig(length=3, start="uniform"))
        prefix.attach(pre, prefix.PrefixConfig(length=4))
        helpers.randomize(pre, 0.3)
        for model, front in ((soft, prompt.ids(soft)), (pre, [])):
            candidates = Candidates(model, self.ANSWERS)
            for given in self.PROMPTS:
                whole = [*front, *given]
                for one, other in zip(candidates.score(whole), answers.plain(model, whole, self.ANSWERS), strict=True):
                    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)

    def test_each_token_of_the_prompt_is_read_once_and_common_beginnings_once_for_all(self):
        model, read = helpers.model(std=0.2), []
        candidates = Candidates(model, [[5], [7, 9, 5]])
        model.token_embedding.register_forward_hook(lambda _, inputs, out: read.append(inputs[0].numel()))
        candidates.score(list(range(12)))
        assert sum(read) == 12 + 2
        read.clear()
        candidates.score([*range(10), 30, 31, 32])  # ten in common
        assert sum(read) == 3 + 2

    def test_nothing_changes_by_asking(self):
        model = helpers.model(std=0.2, resid_dropout=0.5).train()
        before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        found = Candidates(model, self.ANSWERS, prior=[2]).values([1, 2, 3], by="prior")
        assert found == Candidates(model, self.ANSWERS, prior=[2]).values([1, 2, 3], by="prior")
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
        assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
        assert model.training and torch.equal(torch.get_rng_state(), state)

    def test_sum_mean_and_prior_are_these(self):
        model, given, bare = helpers.model(std=0.3), [9, 8, 7], [4, 4]
        candidates = Candidates(model, self.ANSWERS, prior=bare)
        after = [one_by_one(model, given + answer, 3) for answer in self.ANSWERS]
        neutral = [one_by_one(model, bare + answer, 2) for answer in self.ANSWERS]
        expected = {
            "sum": [sum(each) for each in after],
            "mean": [sum(each) / len(each) for each in after],
            "prior": [math.log(math.exp(sum(a)) / math.exp(sum(n))) for a, n in zip(after, neutral, strict=True)],
        }
        choices = set()
        for by, values in expected.items():
            assert candidates.values(given, by) == pytest.approx(values, abs=1e-4)
            assert candidates.choose(given, by) == values.index(max(values))
            choices.add(candidates.choose(given, by))
        assert len(choices) > 1  # the three do differ

    def test_the_context_may_be_full(self):
        model = helpers.model(std=0.2)  # a context of 24; the last token of an answer is never read
        found = Candidates(model, [[1, 2, 3], [4]]).score(list(range(22)))
        assert [len(each.logprobs) for each in found] == [3, 1]
        assert answers.room_of(model, [[1, 2, 3], [4]]) == 22

    @pytest.mark.parametrize(
        "call, words",
        [
            (lambda m: Candidates(m, [[1], []]), "answer 1"),
            (lambda m: Candidates(m, [[61]]), "answer 0"),
            (lambda m: Candidates(m, []), "no answers"),
            (lambda m: Candidates(m, [[1, 2]]).score([1] * 24), "24 tokens, 23"),
            (lambda m: Candidates(m, [[1]]).values([1], "prior"), "needs the prompt without a text"),
            (lambda m: Candidates(m, [[1]]).values([1], "men"), "did you mean 'mean'"),
            (lambda m: Candidates(m, [[1]]).score([]), "is empty"),
        ],
    )
    def test_bad_input_is_named(self, call, words):
        with pytest.raises(Error) as caught:
            call(helpers.model())
        assert words in str(caught.value)

    def test_a_broken_model_answers_nothing(self):
        model = helpers.model()
        with torch.no_grad():
            model.final_norm.bias.fill_(math.nan)
        with pytest.raises(Error, match="NaN or infinite"):
            Candidates(model, [[1], [2]]).score([3])


class TestRetrieval:
    TEXTS = [note.text for note in NOTES] + ["dry cough at night ", "发热咳嗽"]

    @pytest.mark.parametrize("query", [*TEXTS, "night rash and night cough", "咳嗽不止", "nothing in common, zzz", ""])
    def test_tfidf_by_the_formula(self, query):
        found = retrieval.TfIdf(self.TEXTS)
        texts = [retrieval.terms(text) for text in self.TEXTS]
        vocabulary = sorted({term for text in texts for term in text})
        idf = {t: math.log((1 + len(texts)) / (1 + sum(t in text for text in texts))) + 1 for t in vocabulary}

        def vector(words):
            return torch.tensor([words.count(term) * idf[term] for term in vocabulary], dtype=torch.float64)

        expected = [torch.cosine_similarity(vector(retrieval.terms(query)), vector(t), dim=0).item() for t in texts]
        assert found.similarity(query).tolist() == pytest.approx(expected, abs=1e-12)
        order = sorted(range(len(texts)), key=lambda place: -round(expected[place], 12))
        order = [place for place in order if self.TEXTS[place].strip() != query.strip()]
        assert found.nearest(query, 4) == order[:4]

    @pytest.mark.parametrize("query", ["cough and fever", "咳嗽", ""])
    def test_embedding_by_a_loop(self, query):
        model = a_model()
        table = model.token_embedding.weight.detach().double()

        def vector(text):
            rows = [table[token] for token in TOKENIZER.encode(text)]
            return sum(rows) / len(rows) if rows else table[0] * 0

        expected = [torch.cosine_similarity(vector(query), vector(text), dim=0).item() for text in self.TEXTS]
        found = retrieval.Embedding(self.TEXTS, model, TOKENIZER)
        assert found.similarity(query).tolist() == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("name", retrieval.RETRIEVERS)
    def test_never_the_query_itself_nor_a_copy(self, name):
        found = retrieval.make_retriever(name, self.TEXTS, a_model(), TOKENIZER, seed=3)
        for place, query in enumerate(self.TEXTS):
            shown = found.nearest(query, 99)
            assert place not in shown and not any(self.TEXTS[i].strip() == query.strip() for i in shown)
            twins = sum(text.strip() == query.strip() for text in self.TEXTS)
            assert sorted(shown) == [i for i in range(len(self.TEXTS)) if self.TEXTS[i].strip() != query.strip()]
            assert len(found.nearest(query, 2)) == 2 and len(shown) == len(self.TEXTS) - twins

    def test_random_is_drawn_from_the_seed_alone_and_fixed_is_the_same_for_all(self):
        one, two, other = (retrieval.Random(self.TEXTS, seed) for seed in (1, 1, 2))
        queries = [f"query {i}" for i in range(20)]
        assert [one.nearest(q, 3) for q in queries] == [two.nearest(q, 3) for q in reversed(queries)][::-1]
        assert [one.nearest(q, 3) for q in queries] != [other.nearest(q, 3) for q in queries]
        assert {place for q in queries for place in one.nearest(q, 2)} == set(range(len(self.TEXTS)))
        fixed = retrieval.Fixed(self.TEXTS, 1)
        assert len({tuple(fixed.nearest(q, 3)) for q in queries}) == 1

    def test_chinese_finds_chinese(self):
        assert retrieval.TfIdf(self.TEXTS).nearest("咳嗽发热三天", 2) == [3, 8]

    def test_an_unknown_kind(self):
        with pytest.raises(Error, match="did you mean 'tfidf'"):
            retrieval.make_retriever("tfid", [], a_model(), TOKENIZER)


class TestTrial:
    @pytest.mark.parametrize("by", answers.BY)
    @pytest.mark.parametrize("shots, name", [(0, "fixed"), (2, "tfidf"), (3, "random")])
    def test_a_trial_is_this_loop(self, by, shots, name):
        model, template = a_model(context=110), Template(task="Organ?", question="{text} -", answer=" {answer}.")
        queries, pool = NOTES[:4], NOTES[2:]  # two texts are in both: they must not be shown to themselves
        retriever = retrieval.make_retriever(name, [note.text for note in pool], model, TOKENIZER)
        found = trial.run_trial(model, TOKENIZER, template, shots, queries, pool, retriever, NAMES, by)
        matrix, fitted = [[0] * 3 for _ in NAMES], 0
        candidates = [TOKENIZER.encode(f" {name}.") for name in NAMES]
        bare = [TOKENIZER.eot] + TOKENIZER.encode("-")
        for query in queries:
            shown = [pool[i] for i in reversed(retriever.nearest(query.text, shots))]
            assert query.text not in [note.text for note in shown]
            while True:
                parts = ["Organ?", "\n\n"]
                for note in shown:
                    parts += [f"{note.text} -", f" {note.answer}.", "\n\n"]
                ids = [TOKENIZER.eot] + [i for part in [*parts, f"{query.text} -"] for i in TOKENIZER.encode(part)]
                if len(ids) + max(map(len, candidates)) - 1 <= model.config.context:
                    break
                shown = shown[1:]
            fitted += len(shown)
            after = [s.total for s in score(model, [ids + c for c in candidates], [len(ids)] * 3)]
            neutral = [s.total for s in score(model, [bare + c for c in candidates], [len(bare)] * 3)]
            values = {
                "sum": after,
                "mean": [total / len(c) for total, c in zip(after, candidates, strict=True)],
                "prior": [total - prior for total, prior in zip(after, neutral, strict=True)],
            }[by]
            matrix[NAMES.index(query.answer)][values.index(max(values))] += 1
        assert found.scores.matrix.tolist() == matrix
        assert found.fitted == fitted / 4 and (shots < 3 or found.fitted < 3)

    def test_ids_in_front_take_room_of_the_examples(self):
        model, retriever = a_model(context=100), retrieval.Fixed([note.text for note in NOTES[1:]])
        options = (Template(), 6, NOTES[:1], NOTES[1:], retriever, NAMES)
        alone = trial.run_trial(model, TOKENIZER, *options)
        behind = trial.run_trial(model, TOKENIZER, *options, front=[3] * 40)
        assert behind.fitted < alone.fitted < 6

    def test_spread_over_templates(self):
        def one(name, shots, right):
            return trial.Trial(name, shots, shots, 9, Scores(torch.tensor([[right, 10 - right], [0, 0]])))

        trials = [one(name, shots, right) for shots, rights in ((0, (1, 5, 2, 9)), (4, (7, 7, 7, 8)))
                  for name, right in zip("abcd", rights, strict=True)]  # fmt: skip
        assert [(s.shots, s.lowest, s.median, s.highest) for s in trial.spread(trials)] == [
            (0, 0.1, 0.35, 0.9),
            (4, 0.7, 0.7, 0.8),
        ]
        assert "| 0 | 0.100 / 0.350 / 0.900 |" in show.table(trials, 0.5)
        assert ">median<" in show.picture(trials, 0.5)

    def test_queries_and_pool_share_no_text(self):
        doubled = NOTES + [Example("cough and fever", "lung")]
        for seed in range(5):
            asked, pool = trial.split(doubled, 3, seed)
            assert len(asked) == 3 and not {e.text for e in asked} & {e.text for e in pool}
        assert trial.split(NOTES, 3, 0) == trial.split(NOTES, 3, 0) != trial.split(NOTES, 3, 1)
        assert trial.commonest(NOTES[:3], [*NOTES, NOTES[1]]) == pytest.approx(1 / 3)


@pytest.fixture
def run_dir(tmp_path):
    model = a_model()
    prompt.attach(model, prompt.PromptConfig(length=2, start="uniform"))
    prompt.save(model, tmp_path / "soft")
    prompt.detach(model)
    model.save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    lines = [{"text": n.text * 3, "label": n.answer, "language": "zh" if "咳" in n.text else "en"} for n in NOTES]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (tmp_path / "notes.jsonl").write_text(text + '{"text": "no label"}\n{"text": "one", "label": 3}\n', "utf-8")
    return tmp_path


def call(monkeypatch, folder, *options):
    words = ["prompting", str(folder), "--data", str(folder / "notes.jsonl"), *map(str, options)]
    monkeypatch.setattr("sys.argv", words)
    return main()


class TestCommand:
    def test_table_record_and_picture(self, run_dir, monkeypatch, capsys):
        options = ("--shots", "0,2", "--queries", 3, "--retrieve", "tfidf", "--cut", 20, "--score", "prior")
        assert call(monkeypatch, run_dir, *options) == 0
        found = json.loads((run_dir / "prompting.json").read_text("utf-8"))
        assert found["labels"] == ["heart", "lung", "skin and hair"]
        assert (found["settings"]["asked"], found["settings"]["pool"]) == (3, 4)
        assert [(t["template"], t["shots"]) for t in found["trials"]] == [
            (t.name, k) for t in TEMPLATES for k in (0, 2)
        ]
        assert all(sum(map(sum, t["confusion"])) == 3 for t in found["trials"])
        printed = capsys.readouterr().out
        first = found["trials"][0]
        assert f"| plain | 0 | 0.0 | {first['tokens']:.0f} | {first['accuracy']:.3f} |" in printed
        assert "lowest / median / highest" in printed and len(found["over_templates"]) == 2
        assert (run_dir / "prompting.svg").read_text("utf-8").startswith("<svg")

    def test_own_templates_and_a_soft_prompt(self, run_dir, monkeypatch):
        (run_dir / "t.yaml").write_text('- name: mine\n  question: "{text}\\n="\n')
        options = ("--templates", run_dir / "t.yaml", "--soft", run_dir / "soft", "--queries", 3, "--cut", 20)
        assert call(monkeypatch, run_dir, *options, "--shots", 0, "--out", run_dir / "out") == 0
        found = json.loads((run_dir / "out" / "prompting.json").read_text("utf-8"))
        assert [t["template"] for t in found["trials"]] == ["mine", "mine + soft prompt"]

    @pytest.mark.parametrize(
        "options, words",
        [
            (("--label", "organ"), "no line has the field 'organ'"),
            (("--where", "language=zh"), "1 different values"),
            (("--queries", 7), "none is left to show"),
            (("--queries", 0), "--queries 0"),
            (("--shots", "0,-1"), "--shots"),
            (("--shots", "1,1"), "each number once"),
            (("--score", "best"), "--score"),
            (("--templates", "nowhere.yaml"), "nowhere.yaml"),
            (("--retrieve", "bm25"), "--retrieve"),
        ],
    )
    def test_bad_input_is_named(self, run_dir, monkeypatch, options, words):
        with pytest.raises(Error) as caught:
            call(monkeypatch, run_dir, *options)
        assert words in str(caught.value) and not (run_dir / "prompting.json").exists()

    def test_a_text_that_does_not_fit_is_named_before_anything_is_written(self, run_dir, monkeypatch):
        model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=TOKENIZER.vocab_size, context=40))
        model.save_pretrained(run_dir)
        with pytest.raises(Error, match="the prompt may have"):
            call(monkeypatch, run_dir, "--queries", 3)
        assert not (run_dir / "prompting.json").exists()
