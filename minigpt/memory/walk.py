"""What a forward pass keeps for the backward pass: the model walked once on paper.

Shapes: B batch, T time, L keys (a prefix and T), C channels, H heads, G key/value heads, D head size, N = B T.

A `Sheet` stands for a tensor: how many numbers, how wide each, and whether a gradient flows back through it. Each
operation knows which of its tensors its own gradient needs, and only keeps them if somebody asks for that gradient:

    y = x W^T        dW = g^T x needs x, if W learns        dx = g W needs W, which is there anyway
    y = norm(x)      x and its statistics                   y = gelu(x), silu(x): x;  relu(x): y
    y = a b          each, if the other learns              y = x + z: nothing

A sheet that two of them keep is one storage and counts once. This is why LoRA saves so little here: freezing W frees
the x of its product, and norm, attention and activation go on to keep theirs.
"""

from dataclasses import dataclass, field

from minigpt import masks
from minigpt.config import GPTConfig
from minigpt.memory.job import Job
from minigpt.memory.kernels import Heads, Sheet, keeps
from minigpt.memory.plan import Plan

INT64 = 8


@dataclass
class Walk:
    """One forward pass of B rows of T tokens. `kept`: sheet -> (layer, or None outside the blocks; kind)."""

    config: GPTConfig
    job: Job
    plan: Plan
    batch: int
    text: int  # tokens a row, without virtual ones
    kept: dict[Sheet, tuple[int | None, str]] = field(default_factory=dict)
    layer: int | None = None

    def __post_init__(self):
        self.past = self.plan.virtual.past
        self.time = self.text + self.plan.virtual.tokens
        self.tokens = self.batch * self.time
        self.rows = self.batch if self.job.documents else 1  # of masks and positions

    def keep(self, kind: str, *sheets: Sheet):
        for sheet in sheets:
            self.kept.setdefault(sheet, (self.layer, kind))

    def model(self) -> Sheet:
        """`GPT.hidden`: what the head reads."""
        self._virtual()
        x, turn = self._embedding(), ()
        if self.config.positions == "rotary":
            turn = [Sheet(self.rows * self.time * self.config.d_head, x.size) for _ in ("cos", "sin")]
        x = self._dropout(x, self.config.embed_dropout)
        for layer in range(self.config.n_layers):
            self.layer = layer
            before = x
            x = self._block(x, turn, f"blocks.{layer}")
            if self.job.checkpointing and x.learns:
                self.kept[before] = layer, "block input"
        self.layer = None
        if self.job.checkpointing:
            self._held_for_recomputing(turn)
        return self._norm(x, "final_norm") if self.config.norm_place == "pre" else x

    def _held_for_recomputing(self, turn):
        """The arguments of all blocks besides their input: angles, and a mask for each window."""
        for sheet in turn:
            self.kept[sheet] = None, "angles"
        windows = {self.config.layer_window(layer) for layer in range(self.config.n_layers)}
        n_keys = self.past + self.time
        for window in windows:
            if window is not None and self.config.pattern == "local" and masks.pays(self.time, n_keys, window):
                continue  # that mask is not written out
            if self.job.documents or (window is not None and window < n_keys):
                self.keep("mask", Sheet(self.rows * self.time * n_keys, 1))

    def _virtual(self):
        """What makes the virtual tokens, a dropout of each row's own, and which tokens of the batch they are."""
        made = self.plan.virtual
        size, widths = self.job.compute_bytes if self.job.autocast else 4, made.widths
        for place, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
            if place or made.lstm or self.job.autocast:  # the first reads a parameter
                self.keep("virtual tokens", Sheet(made.length * n_in, size))
            if self.job.autocast:
                self.keep("16-bit weights", Sheet(n_in * n_out, 2))
        if made.lstm:  # two layers and ways: four gates, a cell and a state for each token
            self.keep("virtual tokens", Sheet(4 * 6 * made.length * made.lstm, size))
        if made.dropout:
            numbers = made.length * 2 * self.config.n_layers * self.config.n_kv_heads * self.config.d_head
            self.keep("virtual tokens", Sheet(self.batch * numbers, 1 if self.job.device == "cuda" else 4))
        if made.tokens:
            self.keep("token ids", Sheet(self.tokens, INT64), Sheet(self.tokens, 1))

    def _embedding(self) -> Sheet:
        learns = self.time > self.text
        if self.plan.learns("token_embedding.weight"):
            self.keep("token ids", Sheet(self.batch * self.text, INT64))
            learns = True
        if self.plan.learns("position_embedding.weight"):
            self.keep("token ids", Sheet(self.rows * self.time, INT64))
            learns = True
        return Sheet(self.tokens * self.config.d_model, self.job.weight_bytes, learns)

    def _block(self, x: Sheet, turn, path: str) -> Sheet:
        if self.config.norm_place == "post":
            x = self._norm(_add(x, self._attention(x, turn, path)), f"{path}.attn_norm")
            return self._norm(_add(x, self._mlp(x, path)), f"{path}.mlp_norm")
        x = _add(x, self._attention(self._norm(x, f"{path}.attn_norm"), turn, path))
        return _add(x, self._mlp(self._norm(x, f"{path}.mlp_norm"), path))

    def _attention(self, x: Sheet, turn, path: str) -> Sheet:
        config, job = self.config, self.job
        n_queries, n_keys = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        q = self._linear(x, f"{path}.attn.q_proj", n_queries)
        k, v = (self._linear(x, f"{path}.attn.{name}", n_keys) for name in ("k_proj", "v_proj"))
        if turn:
            q, k = self._rotate(q, turn), self._rotate(k, turn)
        if self.past:
            extra = self.batch * self.past * n_keys
            k, v = (Sheet(part.numel + extra, part.size, True) for part in (k, v))
        given = q, k, v
        if job.autocast:
            q, k, v = (_cast(part, 2) for part in (q, k, v))
        out = Sheet(self.tokens * n_queries, q.size, q.learns or k.learns or v.learns)
        window, n_keys = config.layer_window(self.layer), self.past + self.time
        chunked = window is not None and config.pattern == "local" and masks.pays(self.time, n_keys, window)
        chunked = chunked and job.attention != "plain"
        masked = job.documents or bool(self.past) or (window is not None and window < n_keys)
        mask = Sheet(self.rows * self.time * n_keys, 1) if masked and not chunked else None
        heads = Heads(self.batch, config.n_heads, config.n_kv_heads, self.time, n_keys, config.d_head)
        if chunked and (job.device == "cpu" or config.attn_dropout):  # by local.py, which makes the rest again
            self.keep("attention", *(given if out.learns else ()))
        else:
            self.keep("attention", *keeps(job, heads, q, k, v, out, mask, config.attn_dropout))
        return self._end(self._linear(out, f"{path}.attn.o_proj", config.d_model), f"{path}.attn")

    def _rotate(self, x: Sheet, turn) -> Sheet:
        if x.learns:
            self.keep("angles", *turn)
        return Sheet(x.numel, turn[0].size, x.learns)

    def _mlp(self, x: Sheet, path: str) -> Sheet:
        config, path = self.config, f"{path}.mlp"
        if config.gated:
            gate = self._activate(self._linear(x, f"{path}.gate_proj", config.d_ff))
            up = self._linear(x, f"{path}.up_proj", config.d_ff)
            self.keep("feed-forward", *([gate] if up.learns else []), *([up] if gate.learns else []))
            x = Sheet(up.numel, up.size, gate.learns or up.learns)
        else:
            x = self._activate(self._linear(x, f"{path}.up_proj", config.d_ff))
        return self._end(self._linear(x, f"{path}.down_proj", config.d_model), path)

    def _end(self, x: Sheet, path: str) -> Sheet:
        """Of a sub-layer: dropout, and an adapter if it has one: x, what the activation reads and what it makes."""
        x = self._dropout(x, self.config.resid_dropout)
        width = self.plan.bottlenecks.get(path)
        if width is None:
            return x
        wide = _cast(x, 4)
        read, n = _cast(wide, 2) if self.job.autocast else wide, self.tokens * width
        self.keep("adapters", read, Sheet(n, read.size), Sheet(n, read.size))
        if self.job.autocast:
            weight = width * self.config.d_model
            self.keep("adapters", Sheet(weight, 2), *[Sheet(weight, 2)] * x.learns)
        return Sheet(x.numel, x.size, True)

    def _activate(self, x: Sheet) -> Sheet:
        y = Sheet(x.numel, x.size, x.learns)
        relu = self.config.activation in ("relu", "relu2")
        if x.learns:
            self.keep("feed-forward", y if relu else x)
        # The square of relu2 keeps what relu keeps; its result is another tensor.
        return Sheet(y.numel, y.size, y.learns) if self.config.activation == "relu2" else y

    def _norm(self, x: Sheet, path: str) -> Sheet:
        """Its input and, a token each, mean and 1/deviation; RMSNorm the latter alone."""
        learns = self.plan.learns(f"{path}.weight") or self.plan.learns(f"{path}.bias")
        y = Sheet(x.numel, x.size, x.learns or learns)
        if not y.learns:
            return y
        on_cuda = self.job.device == "cuda"
        if self.config.norm == "layernorm":
            self.keep("norms", x, *(Sheet(self.tokens, 4 if on_cuda else x.size) for _ in ("mean", "deviation")))
        elif on_cuda:
            self.keep("norms", x, Sheet(self.tokens, 4))
        else:
            # On the CPU it is not one kernel: x in 32 bits, 1/deviation, and their product for the weight.
            if x.learns:
                self.keep("norms", _cast(x, 4), Sheet(self.tokens, 4))
            if learns:
                self.keep("norms", Sheet(x.numel, 4))
        return y

    def _linear(self, x: Sheet, path: str, n_out: int) -> Sheet:
        learns, n_in = self.plan.learns(f"{path}.weight"), x.numel // self.tokens
        kind = "attention" if ".attn." in path else "feed-forward"
        read = _cast(x, 2) if self.job.autocast else x
        if learns:
            self.keep(kind, read)
        if x.learns and self.job.autocast and not self.plan.packed(f"{path}.weight"):
            self.keep("16-bit weights", Sheet(n_in * n_out, 2))
        out = Sheet(self.tokens * n_out, read.size, x.learns or learns or self.plan.learns(f"{path}.bias"))
        if rank := self.plan.ranks.get(path, 0):
            self._adapter(x, rank, n_in, n_out)
            out.learns = True
        return out

    def _adapter(self, x: Sheet, rank: int, n_in: int, n_out: int):
        """x for A, A x for B. Adapters in 32 bits beside 16-bit weights want a copy of x, each its own."""
        x = self._dropout(x, self.job.adapter_dropout, "adapters")
        x = _cast(x, 4)
        if not self.job.autocast:
            self.keep("adapters", x, Sheet(self.tokens * rank, 4))
            return
        self.keep("adapters", _cast(x, 2), Sheet(self.tokens * rank, 2), Sheet(n_out * rank, 2))
        if x.learns:
            self.keep("adapters", Sheet(n_in * rank, 2))

    def _dropout(self, x: Sheet, p: float, kind: str = "dropout") -> Sheet:
        """On the CPU the factors 0 and 1/(1 - p), as wide as x; on CUDA a byte each."""
        if not p:
            return x
        if x.learns:
            self.keep(kind, Sheet(x.numel, 1 if self.job.device == "cuda" else x.size))
        return Sheet(x.numel, x.size, x.learns)


def _add(x: Sheet, y: Sheet) -> Sheet:
    return Sheet(x.numel, max(x.size, y.size), x.learns or y.learns)


def _cast(x: Sheet, size: int) -> Sheet:
    """Another width is another tensor; the same is the same."""
    return x if x.size == size else Sheet(x.numel, size, x.learns)
