"""Options from dataclasses: what is accepted, what is refused, and what the messages say."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from minigpt import Error, GPTConfig, cli
from minigpt.options import collect


@dataclass(frozen=True)
class Data:
    """What is read.

    Words about it.

    >>> 1 + 1
    2
    """

    model: Path = field(metadata={"positional": True})  # a run
    out: Path | None = None  # 100% of it goes here
    seed: int = 0  # of everything
    prompt: tuple[str, ...] = ()  # repeat me
    betas: tuple[float, float] = (0.9, 0.95)
    layers: tuple[int, ...] = ()
    kind: Literal["dense", "banded"] = "dense"
    rate: float = 3e-4
    name: str = "a: b # c"
    limit: int | None = None
    fast: bool = False
    tied: bool = True


@dataclass(frozen=True)
class More:
    seed: int = 0
    steps: int = 10

    def __post_init__(self):
        if self.steps < 1:
            raise Error(f"steps is {self.steps}")


def read(*args, records=(Data,)):
    return cli.parse(*records, prog="x", args=args)[0]


def message(*args, records=(Data, More)):
    with pytest.raises(Error) as caught:
        cli.parse(*records, prog="x", args=args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults():
    assert read("runs") == Data(Path("runs"))


@pytest.mark.parametrize(
    "args, expected",
    [
        (["--seed", "5"], {"seed": 5}),
        (["--seed=5"], {"seed": 5}),
        (["--rate", "1e-3"], {"rate": 1e-3}),
        (["--rate", "1"], {"rate": 1.0}),
        (["--betas", "0.8,0.9"], {"betas": (0.8, 0.9)}),
        (["--betas", "[0.8, 0.9]"], {"betas": (0.8, 0.9)}),
        (["--layers", "1"], {"layers": (1,)}),
        (["--layers", "1,3"], {"layers": (1, 3)}),
        (["--kind", "banded"], {"kind": "banded"}),
        (["--fast", "--no-tied"], {"fast": True, "tied": False}),
        (["--limit", "3"], {"limit": 3}),
        (["--limit", "null"], {"limit": None}),
        (["--out", "a b"], {"out": Path("a b")}),
        (["--name", "--seed"], {"name": "--seed"}),
        (["--name", "-1"], {"name": "-1"}),
        (["--prompt", "a", "--prompt", "null", "--prompt", "[1, 2"], {"prompt": ("a", "null", "[1, 2")}),
        (["--prompt", "- cough: yes\n患者", "--prompt", ""], {"prompt": ("- cough: yes\n患者", "")}),
        (["--prompt", "a=b", "--prompt=c=d"], {"prompt": ("a=b", "c=d")}),
    ],
)
def test_values(args, expected):
    assert read("runs", *args) == Data(Path("runs"), **expected)
    assert read(*args, "runs") == Data(Path("runs"), **expected)


def test_dashes_and_underscores_are_the_same():
    for name in ("--n_layers", "--n-layers"):
        assert read(name, "3", records=(GPTConfig,)).n_layers == 3
    for name in ("--no_tied", "--no-tied"):
        assert not read(name, records=(GPTConfig,)).tied


def test_several_records_share_a_field():
    data, more = cli.parse(Data, More, prog="x", args=["runs", "--seed", "4", "--steps", "2"])
    assert (data.seed, more) == (4, More(4, 2))


def test_a_shared_field_must_mean_the_same():
    @dataclass(frozen=True)
    class Other:
        seed: int = 1

    with pytest.raises(TypeError, match="seed"):
        cli.parse(Data, Other, prog="x", args=[])


@pytest.mark.parametrize(
    "args, words",
    [
        ([], ["MODEL is missing", "a run"]),
        (["m", "--sed", "1"], ["--sed", "did you mean '--seed'"]),
        (["m", "--prmpt=1"], ["--prmpt", "did you mean '--prompt'"]),
        (["m", "--see", "1"], ["--see"]),  # no abbreviations: a new option would change what they mean
        (["m", "--seed"], ["--seed needs a value"]),
        (["m", "--seed", "1.5"], ["--seed is 1.5", "whole number"]),
        (["m", "--seed", "x"], ["--seed is x", "whole number"]),
        (["m", "--limit", "x"], ["--limit is x", "a whole number or null"]),
        (["m", "--kind", "dens"], ["--kind is dens", "'dense', 'banded'"]),
        (["m", "--betas", "1"], ["--betas", "a list of 2"]),
        (["m", "--layers", "1,x"], ["--layers", "each a whole number"]),
        (["m", "--fast=yes"], ["--fast"]),
        (["m", "n"], ["unrecognized", "n"]),
        (["m", "-q"], ["-q"]),
        (["m", "--steps", "0"], ["steps is 0"]),
    ],
)
def test_bad_words_are_named(args, words):
    found = message(*args)
    assert all(word in found for word in words), found


YAML = "seed: 7\nrate: 3e-4\nkind: banded\nprompt: [a, b]\nlayers: [1, 2]\nout: null\nmodel: runs\ntied: false\n"
TOML = 'seed = 7\nrate = 3e-4\nkind = "banded"\nprompt = ["a", "b"]\nlayers = [1, 2]\nmodel = "runs"\ntied = false\n'


@pytest.mark.parametrize("name, text", [("c.yaml", YAML), ("c.toml", TOML), ("c", YAML)])
def test_config_files(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    expected = {"seed": 7, "rate": 3e-4, "kind": "banded", "prompt": ("a", "b"), "layers": (1, 2), "tied": False}
    assert read("--config", str(file)) == Data(Path("runs"), **expected)
    # The command line wins, wherever --config stands.
    changed = expected | {"seed": 8, "prompt": ("c",), "tied": True}
    assert read("--seed", "8", "--config", str(file), "--prompt", "c", "--tied") == Data(Path("runs"), **changed)


def test_a_later_file_wins(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\nname: a\nmodel: m")
    (tmp_path / "b.yaml").write_text("seed: 2\n")
    found = read("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
    assert (found.seed, found.name) == (2, "a")


@pytest.mark.parametrize(
    "text, words",
    [
        ("sede: 1", ["'sede'", "did you mean 'seed'"]),
        ("seed: 1.5", ["seed is 1.5", "whole number"]),
        ("seed: true", ["seed is True", "whole number"]),
        ("kind: no", ["kind is False", "'dense', 'banded'"]),
        ("fast: 'yes'", ["fast is 'yes'", "true or false"]),
        ("name: 5", ["name is 5", "text"]),
        ("prompt: a", ["prompt is 'a'", "a list"]),
        ("data:\n  seed: 1", ["'data'"]),
        ("seed: {a: 1}", ["seed is"]),
        ("- seed", ["key: value", "list"]),
        ("seed: [", ["not valid YAML"]),
    ],
)
def test_bad_files_are_named(tmp_path, text, words):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    found = message("m", "--config", str(file))
    assert all(word in found for word in [str(file), *words]), found


def test_a_missing_file_and_a_file_of_bytes(tmp_path):
    assert "No such file" in message("m", "--config", str(tmp_path / "none.yaml"))
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    assert "c.yaml: cannot read" in message("m", "--config", str(tmp_path / "c.yaml"))


def test_print_config_is_read_back(tmp_path, capsys):
    args = ["runs", "--prompt", "患者: #\n- x", "--rate", "1e-5", "--layers", "1,2", "--name", "no", "--fast"]
    with pytest.raises(SystemExit) as left:
        read(*args, "--print-config")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "# of everything\nseed: 0\n" in text
    assert "患者" in text
    (tmp_path / "c.yaml").write_text(text)
    assert read("--config", str(tmp_path / "c.yaml")) == read(*args)


def test_dump_is_read_back(tmp_path):
    data, more = Data(Path("m"), prompt=("null", "1", "~"), limit=3), More(steps=3)
    (tmp_path / "c.yaml").write_text(cli.dump(data, more))
    assert cli.parse(Data, More, prog="x", args=["--config", str(tmp_path / "c.yaml")]) == [data, more]


def test_help(capsys):
    with pytest.raises(SystemExit) as left:
        cli.parse(Data, More, prog="x", description="A tool.", epilog="examples:\n  x runs", args=["--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0
    for words in ("usage: x MODEL [options]", "A tool.", "What is read:", "Words about it.", "100% of it goes here"):
        assert words in text
    assert "(default: 0.9,0.95)" in text
    assert "examples:\n  x runs" in text
    assert text.count("--seed") == 1
    assert ">>>" not in text
    assert "More:" in text


SCRIPT = """
from minigpt import Error, cli
def main():
    {body}
if __name__ == "__main__":
    cli.run(main, "tool")
"""


@pytest.mark.parametrize(
    "body, code, stderr",
    [
        ("print('x')", 0, ""),
        ("return 1", 1, ""),
        ("raise Error('a: b, do c')", 2, "tool: a: b, do c\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise BrokenPipeError", 141, ""),
    ],
)
def test_exit_codes(tmp_path, body, code, stderr):
    (tmp_path / "tool.py").write_text(SCRIPT.format(body=body))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, tmp_path / "tool.py"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (code, stderr)


def test_every_option_of_the_scripts_says_what_it_is():
    """The help is the comment behind a field: a line broken by a formatter loses it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import sample
    import train
    from minigpt.memory import Job

    kinds = train.Options.__annotations__.values()
    records = [train.LoraConfig if kind is object else kind for kind in kinds]
    records += [sample.Input, sample.Choosing, sample.Steering, sample.Beams, sample.Drafting, sample.Talking, Job]
    assert [(record, name) for record in records for name, option in collect([record]).items() if not option.help] == []
