"""P-tuning (Liu et al. 2021, "GPT Understands, Too"): virtual tokens anywhere in a template, made by an encoder.

Shapes: P virtual tokens, C channels (d_model), H hidden units of the encoder.

    e = MLP(BiLSTM(E))        E (P, C), two layers, C -> 2H -> 2H -> C; with H = C/2 as in the authors' LAMA code:
                              P C + 14 C^2 + 18 C numbers learn
    e = MLP(E)                C -> H -> H -> C: P C + 2 C H + H^2 + 2 H + C
    h_0 = W_e x, with e_i at the place of virtual token i, + positions

The encoder makes the rows depend on each other while they learn; stored is only what it makes, (P, C). For GPT-2 small
and P = 9 8,278,272 numbers learn and 6,912 are stored, 0.0056 % of the model. Rows and ids as in extended.py:

    ptuning.attach(model, ptuning.PTuningConfig(length=6))
    tokens = ptuning.template(model, [3, head, 3])        three virtual tokens, the ids of `head`, three more

Traps. In a decoder a virtual token sees what stands before it, and the answer must come after all of them. PEFT can
put them in front only, and stores no encoder: after loading, its tuning cannot go on; `save(encoder=True)` is ours.
cuDNN runs an LSTM backward in training mode only: on a GPU do not tune in `model.eval()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.tuning import prompt_files
from minigpt.tuning.extended import check_name, detach, evaluated, hold, ids, learn, names, report, rows_of
from minigpt.tuning.prompt import Table, check_length
from minigpt.tuning.report import Report
from minigpt.tuning.strict import read_tensors
from minigpt.tuning.virtual import check_room, own_positions, prepend, rows, unshifted, with_prompt

__all__ = [
    "Encoder", "PTuningConfig", "attach", "detach", "ids", "learn", "load", "names", "own_positions", "prepend", "rows",
    "save", "template", "unshifted", "with_prompt",
]  # fmt: skip

ENCODERS = ("lstm", "mlp")
FILE = "encoder.safetensors"


@dataclass(frozen=True)
class PTuningConfig:
    """`hidden` None: half the model's width for an LSTM (the authors' shape), all of it for an MLP.

    `layers` and `dropout` are the LSTM's; an MLP has three layers and none.
    """

    length: int = 9
    encoder: str = "lstm"
    hidden: int | None = None
    layers: int = 2
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.encoder not in ENCODERS:
            raise Error(f"PTuningConfig.encoder is {self.encoder!r}: {nearest(str(self.encoder), ENCODERS)}")
        for name in ("length", "hidden", "layers"):
            value = getattr(self, name)
            if not (name == "hidden" and value is None) and (type(value) is not int or value < 1):
                raise Error(f"PTuningConfig.{name} is {value!r}: give a whole number of at least 1")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise Error(f"PTuningConfig.dropout is {self.dropout!r}: give a probability in [0, 1)")
        if self.encoder == "mlp" and (self.layers, self.dropout) != (2, 0):
            raise Error("PTuningConfig: layers and dropout are the LSTM's: leave them out for an MLP")
        if self.dropout and self.layers == 1:
            raise Error("PTuningConfig: dropout falls between the layers of the LSTM: give layers of at least 2")

    def width(self, d_model: int) -> int:
        """H."""
        return self.hidden or (max(1, d_model // 2) if self.encoder == "lstm" else d_model)


Config = PTuningConfig  # as every method calls it


class Encoder(nn.Module):
    """Makes the rows of a prompt, (P, C), from a table of its own."""

    def __init__(self, config: PTuningConfig, d_model: int):
        super().__init__()
        self.config, hidden = config, config.width(d_model)
        self.table = nn.Parameter(torch.randn(config.length, d_model))
        if config.encoder == "lstm":
            self.lstm = nn.LSTM(d_model, hidden, config.layers, dropout=config.dropout, bidirectional=True)
            sizes = (2 * hidden, 2 * hidden, d_model)
        else:
            self.lstm = None
            sizes = (d_model, hidden, hidden, d_model)
        layers = [layer for i, o in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(i, o), nn.ReLU())]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self) -> Tensor:
        x = self.table if self.lstm is None else self.lstm(self.table)[0]
        return self.mlp(x)


def attach(model: GPT, config: PTuningConfig | None = None, name: str = "default") -> Report:
    """A new prompt with its encoder under `name`; they learn, base and other prompts do not, other methods as before.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> print(attach(model, PTuningConfig(length=5)))  # 5 x 32 + 14 x 32^2 + 18 x 32
    trains 15,072 of 31,552 (47.7688 %), stores 640 bytes
    """
    config = config or PTuningConfig()
    check_name(model, name)
    check_length(model, config.length)
    with torch.random.fork_rng(devices=[]):  # PyTorch's layers draw from the global state
        torch.manual_seed(config.seed)
        encoder = Encoder(config, model.config.d_model)
    hold(model, name, encoder)
    learn(model, name)
    return report(model, name)


def template(model: GPT, parts: Sequence[int | Sequence[int]], name: str = "default") -> list[int]:
    """A text with virtual tokens in it: a number stands for so many of them, a list of ids for itself.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> _ = attach(model, PTuningConfig(length=3))
    >>> template(model, [2, [7, 8], 1])
    [100, 101, 7, 8, 102]
    """
    virtual, counts = ids(model, name), [part for part in parts if isinstance(part, int)]
    if sum(counts) != len(virtual) or min(counts, default=0) < 0:
        raise Error(f"the template places {counts} virtual tokens, {name!r} has {len(virtual)}: place each once")
    check_room(model, len(virtual), sum(len(part) for part in parts if not isinstance(part, int)))
    left, tokens = iter(virtual), []
    for part in parts:
        tokens += [next(left) for _ in range(part)] if isinstance(part, int) else list(part)
    return tokens


def save(
    model: GPT, directory: str | Path, name: str = "default", base: str = "", encoder: bool = False,
    shift: bool | None = None,
):  # fmt: skip
    """Write the rows in PEFT's format; with `encoder`, beside them what makes them, so that tuning can go on.

    `shift` as in prompt.py.
    """
    made, directory = rows_of(model, name), Path(directory)
    if not isinstance(made.config, PTuningConfig) or (encoder and not isinstance(made, Encoder)):
        kind = "of P-tuning" if not encoder else "that has its encoder"
        raise Error(f"{directory}: not saved: {name!r} is no prompt {kind}: save it as prompt tuning's, by prompt.save")
    config = made.config
    values = {
        "peft_type": "P_TUNING",
        "encoder_reparameterization_type": config.encoder.upper(),
        "encoder_hidden_size": config.width(model.config.d_model),
        "encoder_num_layers": config.layers,
        "encoder_dropout": config.dropout,
    } | prompt_files.shifted(model, name, shift)
    more = {FILE: {key: tensor.cpu() for key, tensor in made.state_dict().items()}} if encoder else {}
    prompt_files.write(model, directory, evaluated(made), values, base, more)
    if not encoder:
        (directory / FILE).unlink(missing_ok=True)  # it would belong to other rows


def load(
    model: GPT, directory: str | Path, name: str = "default", trainable: bool = False, encoder: bool = False
) -> Report:
    """Hold a stored prompt, ours or PEFT's; with `encoder`, what makes it too, and tuning goes on from there.

    Without it the rows are a table, which learns only if `trainable`. On `Error` nothing has changed.
    """
    check_name(model, name)
    directory = Path(directory)
    values, table = prompt_files.read(model, directory, ("P_TUNING",))
    config = _config(values, directory)
    made = _encoder(config, directory, table) if encoder else Table(table, config).requires_grad_(trainable)
    hold(model, name, made, values.get("minigpt_shift", True))
    if encoder or trainable:
        learn(model, name)
    return report(model, name)


def _config(values: dict, directory: Path) -> PTuningConfig:
    kind = str(values.get("encoder_reparameterization_type") or "MLP").lower()
    given = {"layers": values.get("encoder_num_layers"), "dropout": values.get("encoder_dropout")}
    given = {key: value for key, value in given.items() if value is not None and kind == "lstm"}
    try:
        return PTuningConfig(values["num_virtual_tokens"], kind, values.get("encoder_hidden_size"), **given)
    except Error as problem:
        raise Error(f"{directory / prompt_files.CONFIG}: {problem}") from None


def _encoder(config: PTuningConfig, directory: Path, table: Tensor) -> Encoder:
    """The encoder of a directory, which must make the rows stored beside it."""
    file = directory / FILE
    tensors = read_tensors(file)
    with torch.device("meta"):
        encoder = Encoder(config, table.shape[1])
    expected = {key: tuple(tensor.shape) for key, tensor in encoder.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if odd := sorted(key for key in expected.keys() | found if expected.get(key) != found.get(key)):
        key = odd[0]
        raise Error(f"{file}: {key} is {found.get(key, 'missing')}, {prompt_files.CONFIG} makes it {expected.get(key)}")
    encoder.load_state_dict(tensors, assign=True)
    if not torch.allclose(evaluated(encoder), table, rtol=1e-4, atol=1e-4):
        raise Error(f"{file}: makes other rows than those in {prompt_files.TENSORS}: the files are of two prompts")
    return encoder
