"""Every tuning method on one frozen base: same text, same steps, three seeds; what it learns, costs and achieves.

    python -m bench methods                                  what is not yet in --out, then the tables and the picture
    python -m bench methods --sets headers --methods lora,full --seeds 0
    python -m bench methods --choose --sets headers          the learning rates, tried on a part of the training texts
    python -m bench methods --choose --sets abstracts --methods full --options=--dropout=0.1    something else, so tried

First a base is trained on unlabelled text, the training texts of all sets among it, no validation text (clinical.py);
then `train.py --task classify` tunes it by each method. A run is its command: OUT/runs/SET/METHOD-SEED holds what it
left and result.json. Quality is that of the last step on the validation tenth, which nothing was chosen by: rates come
from --choose, whose validation is a fifth of the training texts, as does alpha of naive Bayes (bayes.py).

Times are the processor's, one thread; memory is the most that the process held, PyTorch's own included.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import minigpt
import train
from bench import bayes, clinical, methods_report
from bench.methods_plan import BUDGETS, OPTIONS, RATES, TRIED, rate
from minigpt.files import write_atomic
from minigpt.metrics import Scores, confusion
from minigpt.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]

INNER = 0.28  # of the hashes: the lowest tenth is validation, the next eighteen hundredths are a fifth of the rest
SHAPE = ["--vocab-size=8192", "--n-layers=4", "--n-heads=4", "--d-model=192", "--context=512", "--batch-size=4"]
BASE_STEPS = 9000  # four times through the text
TIMED = "headers"  # the set whose steps are timed
# What a run loads when it gets there, loaded before the first is forked: a sixth of its time.
LIBRARIES = ("torch._dynamo", "matplotlib.figure", "minigpt.training.launch", "minigpt.training.building")


def run(arguments: list[str], out: Path, threads: int = 1) -> dict:
    """`python train.py arguments`, in a process that has its libraries from this one: processor seconds, peak MiB."""
    words = [*arguments, f"--out={out}", f"--threads={threads}", "--overwrite"]
    out.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    if not (child := os.fork()):
        with (out / "log.txt").open("w") as log:
            os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
            sys.argv, status = ["train.py", *words], 1
            try:
                status = train.main()
            except minigpt.Error as problem:
                print(problem)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(status)
    _, status, used = os.wait4(child, 0)
    if status:
        sys.exit(f"python train.py {' '.join(words)}\n{(out / 'log.txt').read_text()[-2000:]}")
    return {"seconds": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}


def make_sets(sets: list[str], out: Path) -> dict[str, clinical.Split]:
    """The sets as files, and their sides; beside them the training texts alone, for --choose."""
    splits = {}
    for name in sets:
        path = out / "sets" / f"{name}.jsonl"
        if not path.is_file():
            clinical.write(path, clinical.derive(name))
        splits[name] = clinical.split(path)
        clinical.write(out / "inner" / f"{name}.jsonl", dict(splits[name].train))
    return splits


def make_base(splits: dict[str, clinical.Split], out: Path, steps: int) -> Path:
    """The base: trained once."""
    base = out / "base"
    if not (base / "model.safetensors").is_file():
        lines = (json.dumps({"text": text}, ensure_ascii=False) for text in clinical.base_texts(splits))
        write_atomic(out / "base.jsonl", "".join(line + "\n" for line in lines))
        data = [f"--data={out / 'base.jsonl'}", "--field=text", "--validation=0.005", f"--steps={steps}"]
        run([*data, *SHAPE, "--eval-every=1500", "--sample-every=0", "--save-every=0"], base, threads=2)
    return base


def baselines(name: str, split: clinical.Split, out: Path) -> dict:
    """Naive Bayes on whole texts and on the tokens a model sees, and the commonest class, on the validation side."""
    inner = clinical.split(out / "inner" / f"{name}.jsonl", INNER)
    tokenizer, room = Tokenizer.load(out / "base"), BUDGETS[name].context - 2  # beside start and extract
    sides = {"bayes": (split.train, inner.train, inner.validation, split.validation)}
    sides["bayes_cut"] = tuple(cut(side, tokenizer, room) for side in sides["bayes"])
    truth = [label for _, label in split.validation]
    classes = sorted({label for _, label in (*split.train, *split.validation)})
    answers = {who: naive_bayes(*given) for who, given in sides.items()}
    answers["commonest"] = [Counter(label for _, label in split.train).most_common(1)[0][0]] * len(truth)
    found = {"train": len(split.train), "validation": len(truth), "classes": len(classes)}
    for who, given in answers.items():
        scores = Scores(confusion(*([classes.index(c) for c in side] for side in (truth, given)), len(classes)))
        found[who] = {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1}
    return found


def cut(side: list[tuple[str, str]], tokenizer: Tokenizer, room: int) -> list[tuple[str, str]]:
    """Every text up to its `room`-th token."""
    ids = tokenizer.encode_batch([text for text, _ in side])
    return [(tokenizer.decode(kept[:room]), label) for kept, (_, label) in zip(ids, side, strict=True)]


def naive_bayes(train, inner_train, inner_validation, asked) -> list[str]:
    """Its answers, with the alpha that is best on a part of the training texts."""
    alpha = bayes.best_alpha(inner_train, inner_validation)
    return bayes.NaiveBayes(*zip(*train, strict=True), alpha).answers([text for text, _ in asked])


def tune(name: str, method: str, seed: int, out: Path, kind: str = "runs", **other) -> dict:
    """One run, or what is left of it: accuracy, macro-F1, parameters, bytes, processor seconds, peak.

    `other` are rate, steps or options other than planned; of kind "choose" a part of the training texts judges.
    """
    plan = {"rate": rate(name, method), "seed": seed, **asdict(BUDGETS[name]), "options": OPTIONS.get(method, ())}
    asked = plan | other
    asked["options"] = [*plan["options"], *other.get("options", ())]
    at = f"-{other['rate']:g}" if "rate" in other else ""
    folder = out / kind / name / f"{method}{at}{''.join(other.get('options', ()))}-{seed}"
    record, chosen = folder / "result.json", kind == "choose"
    if record.is_file() and (known := json.loads(record.read_text()))["asked"] == asked:
        return known
    data = out / ("inner" if chosen else "sets") / f"{name}.jsonl"
    used = run(
        [
            f"--init={out / 'base'}", f"--method={method}", "--task=classify", f"--data={data}", "--field=text",
            "--label=label", f"--validation={INNER if chosen else clinical.VALIDATION}", f"--steps={asked['steps']}",
            f"--context={asked['context']}", "--batch-size=8", f"--lr={asked['rate']:g}", f"--seed={seed}",
            "--lm-weight=0", "--eval-every=0", "--sample-every=0", "--save-every=0", *asked["options"],
        ],
        folder,
    )  # fmt: skip
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {kind: next(r for r in records[::-1] if r["kind"] == kind) for kind in ("method", "final")}
    result = {"asked": asked, **used}
    result |= {key: found["final"][key] for key in ("accuracy", "macro_f1", "task_loss")}
    result |= {key: found["method"][key] for key in ("trains", "stored")}
    write_atomic(record, json.dumps(result) + "\n")
    return result


def choose(sets: list[str], methods: list[str], seeds: list[int], rates: list[float], options: list[str], out: Path):
    """Each method at the rates to try: accuracy and loss on a part of the training texts."""
    for name in sets:
        for method in methods:
            for at in rates or TRIED[method]:
                found = [tune(name, method, seed, out, "choose", rate=at, options=options) for seed in seeds]
                right, loss = (statistics.mean(each[key] for each in found) for key in ("accuracy", "task_loss"))
                print(f"{name} {method} {at:g}: {100 * right:.1f} %, loss {loss:.3f}", *options, flush=True)


def names(text: str) -> list[str]:
    return text.split(",")


def whole(text: str) -> list[int]:
    return [int(word) for word in names(text)]


def numbers(text: str) -> list[float]:
    return [float(word) for word in names(text)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=names, default=clinical.available(), help="abstracts,headers,... (default all)")
    parser.add_argument("--methods", type=names, default=list(RATES), help="lora,full,... (default all)")
    parser.add_argument("--seeds", type=whole, default=[0, 1, 2], help="default 0,1,2")
    parser.add_argument("--choose", action="store_true", help="try learning rates instead")
    parser.add_argument("--rates", type=numbers, help="with --choose: these (default: three a method)")
    parser.add_argument("--options", type=str.split, default=[], help="with --choose: more options of train.py")
    parser.add_argument("--base-steps", type=int, default=BASE_STEPS, help=f"of the base (default {BASE_STEPS})")
    parser.add_argument("--report", action="store_true", help="tables and picture of what is there; runs nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    options = parser.parse_args()
    for name in LIBRARIES:
        importlib.import_module(name)
    splits = make_sets(clinical.available(), options.out)
    make_base(splits, options.out, options.base_steps)
    if options.choose:
        return choose(options.sets, options.methods, options.seeds, options.rates, options.options, options.out)
    for seed in [] if options.report else options.seeds:
        for name in options.sets:
            for method in options.methods:
                found = tune(name, method, seed, options.out)
                print(f"{time.strftime('%H:%M')} {name} {method} {seed}: {found['accuracy']:.4f}", flush=True)
    for method in options.methods if TIMED in options.sets and not options.report else []:
        tune(TIMED, method, 0, options.out, "start", steps=1)  # what a run takes beside its steps
    given = {name: baselines(name, splits[name], options.out) for name in options.sets}
    methods_report.write(options.out, given, options.methods)
