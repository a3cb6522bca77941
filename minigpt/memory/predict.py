"""All parts of a training step and of inference, added up; and the largest batch that fits.

static        weights + optimizer state + (FSDP) the blocks that are gathered
forward       activations, then the loss: its gradients are made on the way, a chunk of logits at a time
backward      activations go as gradients come
peak          static + the larger of  activations + loss  and  gradients
"""

from collections import defaultdict
from dataclasses import dataclass, replace

from minigpt import sliding
from minigpt.config import GPTConfig
from minigpt.errors import Error
from minigpt.loss import chunk_rows
from minigpt.memory.job import Job
from minigpt.memory.methods import plan_of
from minigpt.memory.plan import Plan, Tensor
from minigpt.memory.walk import Walk

ENDS = ("token_embedding.weight", "position_embedding.weight", "head.weight", "prefixes.")  # no matrices for Muon
STEP = 4  # bytes of AdamW's step counter, one for every tensor


@dataclass(frozen=True)
class Prediction:
    """Bytes on one process. `saved` is by (layer, kind), exact: what autograd holds when the forward pass is done."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int  # FSDP: blocks brought together from all ranks
    saved: dict[tuple[int | None, str], int]
    loss: int  # gradients of the loss, for the hidden states and for the head
    logits: int  # of one chunk
    temporary: int  # gradients on their way through the loss or a block
    cache: int  # of inference: keys and values of batch x length
    parameters: int
    learning: int
    accumulates: bool

    @property
    def activations(self) -> int:
        return sum(self.saved.values())

    @property
    def static(self) -> int:
        return self.weights + self.optimizer + self.gathered

    @property
    def peak(self) -> int:
        """Most bytes held at a time in a step, but for the first, which has no optimizer state yet."""
        held = self.gradients if self.accumulates else 0
        forward = held + self.activations + self.loss + max(self.logits, self.temporary)
        return self.static + max(forward, self.gradients)

    @property
    def inference(self) -> int:
        return self.weights + self.cache

    def by_kind(self) -> dict[str, int]:
        """Activations of all layers together, the largest kind first."""
        sums = defaultdict(int)
        for (_, kind), size in self.saved.items():
            sums[kind] += size
        return dict(sorted(sums.items(), key=_size, reverse=True))

    def by_layer(self) -> dict[int | None, int]:
        """Activations of each block; None is what lies outside of them."""
        sums = defaultdict(int)
        for (layer, _), size in self.saved.items():
            sums[layer] += size
        return dict(sums)


def _size(item) -> int:
    return item[1]


def predict(config: GPTConfig, job: Job, plan: Plan | None = None) -> Prediction:
    """What `job` takes with a model of this shape, on one process. `plan` is given where a model stands already.

    >>> from minigpt import presets
    >>> small = predict(presets.gpt2("small"), Job(dtype="bf16", batch=1))
    >>> small.weights + small.gradients + small.optimizer - 4 * small.weights    # but for a counter a tensor
    784
    """
    plan = plan or plan_of(config, job)
    length = job.length or config.context
    virtual = plan.virtual.length
    if length + virtual > config.context and job.length is not None and not config.endless:
        raise Error(
            f"--length {length} and {virtual} virtual tokens do not fit the context of {config.context}: "
            "shorten them, or give --context"
        )
    length = min(length, config.context - virtual)
    share = job.ranks if job.parallel == "fsdp" else 1
    walk = Walk(config, job, plan, job.batch, length)
    hidden = walk.model()
    learning = plan.learning()
    loss, logits = _loss(config, job, plan, walk.tokens, hidden.learns)
    return Prediction(
        weights=_share((tensor.nbytes for tensor in plan.all().values()), share),
        gradients=_share((tensor.nbytes for tensor in learning), share),
        optimizer=_share((_state(name, tensor, job) for name, tensor in plan.all().items()), share),
        gathered=_gathered(config, job, plan) if share > 1 else 0,
        saved=_saved(walk),
        loss=loss,
        logits=logits,
        temporary=_temporary(config, job, plan, walk.tokens, loss),
        cache=_cache(config, length + virtual) * job.batch * job.compute_bytes,
        parameters=sum(tensor.numel for tensor in plan.all().values()),
        learning=sum(tensor.numel for tensor in learning),
        accumulates=job.accumulate > 1,
    )


def largest_batch(config: GPTConfig, job: Job, room: int, most: int = 1 << 20, plan: Plan | None = None) -> int:
    """The most rows whose peak is at most `room` bytes; 0 if not even one fits. The peak grows with every row.

    `plan` is given where a model stands already.

    >>> from minigpt import presets
    >>> largest_batch(presets.gpt2("small"), Job(dtype="mixed", device="cuda"), 24 << 30) > 0
    True
    """

    def fits(batch: int) -> bool:
        return predict(config, replace(job, batch=batch), plan).peak <= room

    plan = plan or plan_of(config, job)
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _saved(walk: Walk) -> dict[tuple[int | None, str], int]:
    """By layer and kind. With checkpointing, of the blocks only the largest beside all inputs: one at a time."""
    sums = defaultdict(int)
    for sheet, place in walk.kept.items():
        sums[place] += sheet.nbytes
    if not walk.job.checkpointing:
        return dict(sums)
    blocks = defaultdict(int)
    for (layer, kind), size in sums.items():
        if layer is not None and kind != "block input":
            blocks[layer] += size
    largest = max(blocks, key=blocks.get, default=None)
    return {
        (layer, kind): size for (layer, kind), size in sums.items() if layer in (None, largest) or kind == "block input"
    }


def _share(sizes, ranks: int) -> int:
    """Bytes of one rank's part, each tensor divided by itself."""
    return sum(-(-size // ranks) for size in sizes)


def _state(name: str, tensor: Tensor, job: Job) -> int:
    """AdamW two moments and a counter; SGD one moment or none; Muon one for the matrices of the blocks."""
    if job.optimizer == "sgd" or not tensor.learns:
        return 0
    virtual = not {"prompts", "prefixes"}.isdisjoint(name.split("."))
    matrix = len(tensor.shape) == 2 and not name.startswith(ENDS) and not virtual
    if job.optimizer == "momentum" or (job.optimizer == "muon" and matrix):
        return tensor.nbytes
    return 2 * tensor.nbytes + STEP


def _cache(config: GPTConfig, capacity: int) -> int:
    """Numbers of a row's keys and values; a banded layer has room for its window twice, or for all if that is less."""
    windows = [config.kept_window(layer) for layer in range(config.n_layers)]
    entries = sum(
        capacity if window is None else min(capacity, sliding.room(window + config.sinks)) for window in windows
    )
    return 2 * entries * config.n_kv_heads * config.d_head


def _loss(config: GPTConfig, job: Job, plan: Plan, tokens: int, learns: bool) -> tuple[int, int]:
    """Gradients that `loss.fast` makes on the way, and one chunk of logits with what is computed from it."""
    size, head = job.compute_bytes, config.vocab_size * config.d_model
    d_hidden = 4 * tokens * config.d_model if learns else 0  # both in 32 bits: they are sums
    d_head = 4 * head if plan.learns("head.weight") else 0
    chunk = min(tokens, chunk_rows(config.vocab_size, size, job.device)) * config.vocab_size
    # Logits and their log-softmax; then the slope, in 16 bits once more, and the product to be added to d_head.
    second = chunk * (4 if size == 4 else 6) + size * (head if d_head else 0)
    copy = size * head if job.autocast else 0  # of the head, as it is multiplied
    return d_hidden + d_head, max(chunk * (size + 4), second) + copy


def _temporary(config: GPTConfig, job: Job, plan: Plan, tokens: int, loss: int) -> int:
    """In backward, beside all activations: the loss's gradients once more, scaled (and, of autocast, widened); then
    in the last block gradients of the stream and of the widest tensor inside, and a matrix of 4 bits unpacked: its
    numbers in 32 bits, and 2 bytes more for what it was read from or is rounded to. The larger of the two moments."""
    widest = max((2 if config.gated else 1) * config.d_ff, 3 * config.n_heads * config.d_head)
    unpacked = max((6 * weight.numel for weight in plan.weights.values() if weight.packed), default=0)
    return max((3 if job.autocast else 1) * loss, tokens * (config.d_model + widest) * job.compute_bytes + unpacked)


def _gathered(config: GPTConfig, job: Job, plan: Plan) -> int:
    """The parameters outside the blocks, and two blocks (one at work, one on its way), in the width of the sums."""
    blocks, outside = defaultdict(int), 0
    for name, tensor in plan.weights.items():
        if name.startswith("blocks."):
            blocks[name.split(".")[1]] += tensor.nbytes
        else:
            outside += tensor.nbytes
    return outside + 2 * max(blocks.values())
