"""A GPT, bottom-up: norm, feed-forward, attention, block, model. Read it in one pass.

Shapes: B batch, T time (queries), L keys (past + T), C channels (d_model), H heads, D head size, V vocabulary.

The model has two openings and no more. Vectors in: `model(embeds=...)`. A cache in: `model(tokens, cache=...)`.
Everything that tunes or decodes a GPT comes through them, or replaces a module from outside.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt import attention, masks
from minigpt.config import GPTConfig
from minigpt.errors import Error
from minigpt.linear import Linear
from minigpt.positions import rotary, rotate


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight  (Zhang & Sennrich 2019, eq. 4): layer norm without mean and bias."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def make_norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(config.d_model, config.norm_eps)
    return nn.LayerNorm(config.d_model, config.norm_eps, bias=config.bias)


def activate(x: Tensor, name: str) -> Tensor:
    """The nonlinearity. GPT-2 was trained with the tanh GELU; the exact one moves its logits by up to 1e-2."""
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if name == "relu2":
        return F.relu(x).square()
    return getattr(F, name)(x)  # gelu, relu, silu


class MLP(nn.Module):
    """Feed-forward, a token at a time: down(act(up(x))), or gated, down(act(gate(x)) * up(x)).

    With act = silu the gated form is SwiGLU (Shazeer 2020, eq. 6). C -> d_ff -> C.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.activation = config.activation
        if config.gated:
            self.gate_proj = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up_proj = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down_proj = Linear(config.d_ff, config.d_model, bias=config.bias)
        self.gated = config.gated
        self.dropout = nn.Dropout(config.resid_dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            x = activate(self.gate_proj(x), self.activation) * self.up_proj(x)
        else:
            x = activate(self.up_proj(x), self.activation)
        return self.dropout(self.down_proj(x))


class Attention(nn.Module):
    """Masked multi-head self-attention (Vaswani et al. 2017, section 3.2.2), with grouped keys and values if asked.

    q, k and v are three projections, not one fused matrix: to tune q and v alone is then to name them.
    `attend` is the kernel: `attention.fast`, or `attention.plain` for who wants to read or check it.
    """

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        queries, keys = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.q_proj = Linear(config.d_model, queries, bias=config.bias)
        self.k_proj = Linear(config.d_model, keys, bias=config.bias)
        self.v_proj = Linear(config.d_model, keys, bias=config.bias)
        self.o_proj = Linear(queries, config.d_model, bias=config.bias)
        self.layer, self.d_head = layer, config.d_head
        self.attn_dropout = config.attn_dropout
        self.dropout = nn.Dropout(config.resid_dropout)
        self.attend = attention.fast

    def forward(self, x: Tensor, mask=None, turn=None, cache=None) -> Tensor:
        q, k, v = (attention.split_heads(p(x), self.d_head) for p in (self.q_proj, self.k_proj, self.v_proj))
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
            mask = masks.last(mask, k.shape[2], getattr(cache, "front", 0))  # a banded layer keeps few entries
        out = self.attend(q, k, v, mask, self.attn_dropout if self.training else 0.0)
        return self.dropout(self.o_proj(attention.join_heads(out)))


class Block(nn.Module):
    """Two sub-layers, attention and feed-forward, each with a residual.

    Pre-norm (GPT-2, section 2.3):  x + f(norm(x))      the residual stream runs through untouched
    Post-norm (GPT-1, section 4.1): norm(x + f(x))      every layer renormalises it
    """

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attn_norm = make_norm(config)
        self.attn = Attention(config, layer)
        self.mlp_norm = make_norm(config)
        self.mlp = MLP(config)
        self.post_norm = config.norm_place == "post"

    def forward(self, x: Tensor, mask=None, turn=None, cache=None) -> Tensor:
        if self.post_norm:
            x = self.attn_norm(x + self.attn(x, mask, turn, cache))
            return self.mlp_norm(x + self.mlp(x))
        x = x + self.attn(self.attn_norm(x), mask, turn, cache)
        return x + self.mlp(self.mlp_norm(x))


def straight(block: Block, *inputs) -> Tensor:
    """How the stream goes through a block: at once. Who wants to do it otherwise sets `GPT.through`."""
    return block(*inputs)


class GPT(nn.Module):
    """h_0 = tokens W_e + W_p;  h_l = block(h_{l-1});  P = softmax(norm(h_n) W_e^T)    (GPT-1 paper, eq. 2).

    Weights start as in GPT-2: N(0, 0.02), biases 0, and the two projections that write into the residual stream
    smaller by 1/sqrt(2 n_layers), so that the sum of 2 n_layers of them does not grow with depth. Seed with
    `torch.manual_seed` before building. With a tied head the first loss is about ln V + d_model 0.02^2 / 2.

    >>> from minigpt import GPT, GPTConfig
    >>> model = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 100])
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context, config.d_model)
        self.dropout = nn.Dropout(config.embed_dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = make_norm(config) if config.norm_place == "pre" else nn.Identity()
        self.head = Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.token_embedding.weight
        self.through = straight
        self.reset_parameters()

    def reset_parameters(self):
        std = self.config.init_std
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(weight, std=std / math.sqrt(2 * self.config.n_layers))
            elif weight.ndim == 2:
                nn.init.normal_(weight, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
            else:
                nn.init.ones_(weight)

    def forward(self, tokens: Tensor | None = None, **openings) -> Tensor:
        """Logits of the next token at every place: (B, T) int64 -> (B, T, V). The openings are those of `hidden`."""
        return self.head(self.hidden(tokens, **openings))

    def hidden(
        self,
        tokens: Tensor | None = None,
        *,
        embeds: Tensor | None = None,
        positions: Tensor | None = None,
        keep: Tensor | None = None,
        documents: Tensor | None = None,
        cache=None,
    ) -> Tensor:
        """What the head reads, (B, T, C): to be multiplied out whole, at the last token, or a chunk at a time.

        tokens     (B, T) int64, or instead of them
        embeds     (B, T, C) vectors, to which positions are added
        positions  (B, T) int64; by default tokens are counted from the first kept one, through the cache
        keep       (B, T) bool, False at padding: nobody sees it, and it takes no position
        documents  (B, T) int64, the document each token belongs to: documents packed in a row do not mix
        cache      what came before (see cache.py); extended by this call
        """
        x = self._embed(tokens, embeds)
        batch, time = x.shape[:2]
        past = 0 if cache is None else cache.length
        self._check(batch, time, positions, keep, documents, cache)
        if cache is not None:
            keep = cache.extend_keep(keep, batch, time)
        if positions is None:
            positions = self._count_positions(time, past, keep, x.device)
        self._check_room(time, past, positions)
        # Through a cache nobody knows how long the text will be: it is turned as the longest, once and for all.
        length = positions.amax(-1, keepdim=True) + 1 if cache is None else positions[:, :1] * 0 + self.config.context
        turn = None
        if self.config.positions == "learned":
            x = x + self.position_embedding(positions)
        else:
            turn = self._rotary(positions, length, x.dtype)
        mask_of = {
            window: self._mask(window, time, past, positions, length, keep, documents, x.dtype)
            for window in {self.config.layer_window(layer) for layer in range(self.config.n_layers)}
        }
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = self.through(block, x, mask_of[self.config.layer_window(layer)], turn, cache)
        if cache is not None:
            cache.advance(time)
        return self.final_norm(x)

    def _embed(self, tokens, embeds) -> Tensor:
        if (tokens is None) == (embeds is None):
            raise Error("GPT: give either tokens or embeds, " + ("not both" if embeds is not None else "one of them"))
        if embeds is not None:
            if embeds.ndim != 3 or embeds.shape[2] != self.config.d_model:
                raise Error(f"GPT: embeds must be (B, T, {self.config.d_model}), found {tuple(embeds.shape)}")
            return embeds
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise Error(f"GPT: tokens must be (B, T) int64, found {tuple(tokens.shape)} {tokens.dtype}")
        return self.token_embedding(tokens)

    def _check(self, batch, time, positions, keep, documents, cache):
        for name, given in (("keep", keep), ("documents", documents)):
            if given is not None and given.shape != (batch, time):
                raise Error(f"GPT: {name} must be ({batch}, {time}) like the tokens, found {tuple(given.shape)}")
        if keep is not None and keep.dtype != torch.bool:
            raise Error(f"GPT: keep must be bool, True at what is kept, found {keep.dtype}: give keep.bool()")
        if positions is not None and tuple(positions.shape) not in ((1, time), (batch, time)):
            raise Error(f"GPT: positions must be ({batch} or 1, {time}), found {tuple(positions.shape)}")
        if documents is not None and cache is not None:
            raise Error("GPT: packed documents are for training, a cache is for decoding: give one of them")

    def _check_room(self, time, past, positions):
        # Padding and other branches take room in a cache, but no position.
        fits = past + time <= self.config.context or self.config.endless
        if not fits and positions.amax() >= self.config.context:
            already = f" after {past} in the cache" if past else ""
            room = f"the context of {self.config.context}"
            raise Error(f"GPT: {time} tokens{already} do not fit {room}: shorten the input")

    def _count_positions(self, time, past, keep, device) -> Tensor:
        if keep is None:
            return torch.arange(past, past + time, device=device)[None]
        if keep.ndim == 3:
            return keep.sum(-1) - 1  # a branch counts what it sees, itself the last
        return (keep.cumsum(-1) - 1).clamp(min=0)[:, past:]

    def _rotary(self, positions, length, dtype):
        config = self.config
        how = config.d_head, config.rope_theta, dtype, config.rope_scaling, length
        return rotary(positions, *how, exact=config.sinks > 0)

    def _mask(self, window, time, past, positions, length, keep, documents, dtype):
        """What the layers with this window see of the past and the T tokens, None if all up to themselves."""
        config, device, sinks = self.config, positions.device, 0 if window is None else self.config.sinks
        means = {"window": window, "pattern": config.pattern, "sinks": sinks}
        mask = masks.build(time, past, **means, keep=keep, documents=documents, device=device)
        if not sinks or mask is None:
            return mask
        if documents is not None:
            raise Error("GPT: sinks are the first tokens of one text, found packed documents: give rows of one each")
        back = positions.clamp(max=window + sinks - 1) - positions
        first = masks.first_tokens(past + time if keep is None else keep.shape[-1], sinks, keep, device)
        return masks.Sinks(mask, self._rotary(back, length, dtype), first)

    @classmethod
    def from_pretrained(cls, directory, **changes) -> "GPT":
        """The model in a run or Hugging Face directory: see `hub.load`."""
        from minigpt import hub

        return hub.load(cls, directory, **changes)

    def save_pretrained(self, directory):
        """Write config.json and model.safetensors, for us and for transformers: see `hub.save`."""
        from minigpt import hub

        hub.save(self, directory)

    def checkpoint_layout(self) -> list:
        """How `save_pretrained` names and joins the parameters (see `layouts.Entry`): adapters are saved by these."""
        from minigpt import hub

        return hub.layout(self.config)


def count_parameters(config: GPTConfig) -> int:
    """Exact number of parameters, counted on the meta device: nothing is allocated, tied weights count once.

    >>> from minigpt import presets
    >>> count_parameters(presets.gpt2("small"))
    124439808
    """
    with torch.device("meta"):
        return sum(weight.numel() for weight in GPT(config).parameters())
