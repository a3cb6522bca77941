"""NF4: four bits a weight, at quantiles of the normal distribution (QLoRA, Dettmers et al. 2023, section 3).

Shapes: n weights, in blocks of 64; K = ceil(n / 64) blocks, in groups of 256; G = ceil(K / 256) groups.

    w ~ absmax[k] * codebook[code]          codes   (ceil(n / 2),) uint8, two a byte, the first in the high half
    absmax[k] = the largest |w| of block k  absmax  (K,) float32: 4 + 32/64 = 4.5 bits a weight
    or, quantised in its turn ("double"):   absmax  (K,) uint8, scale (G,) float32, one offset:
    absmax[k] ~ scale[g] * dynamic_map[a] + offset          4 + 8/64 + 32/(64 * 256) = 4.127 bits a weight

The bytes are those of bitsandbytes, and so are the weights that come out again, bit for bit.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lora.errors import Error

BLOCK, GROUP = 64, 256
OFFSET = 0.9677083  # mean of 1 - 1/30 and 1 - 1/32 in seven digits, as its authors wrote it
TINIEST = 1e-38  # what a block of zeros is divided by


def codebook() -> Tensor:
    """The 16 values of NF4, ascending, (16,) float32.

    Quantiles of N(0, 1) at probabilities in equal steps: seven from 1 - OFFSET up to 1/2, then 0 itself, then eight
    from 1/2 up to OFFSET; divided by the largest, so that they end at -1 and 1. Computed in float32 where the authors
    did, to have their last bits.

    >>> [round(value, 3) for value in codebook().tolist()[6:10]]
    [-0.091, 0.0, 0.08, 0.161]
    """
    above, below = (torch.special.ndtri(_steps(count).double()).float() for count in (8, 7))
    values = torch.cat([-below, torch.zeros(1), above.flip(0)])
    return values / values[-1]


def _steps(count: int) -> Tensor:
    """`count` float32 numbers from OFFSET towards 1/2, which would be the next: linspace, counted from either end."""
    first, last = torch.tensor(OFFSET), torch.tensor(0.5)
    step, index = (last - first) / count, torch.arange(count)
    return torch.where(index < (count + 1) // 2, first + step * index, last - step * (count - index))


def dynamic_map() -> Tensor:
    """The 256 values that stand for an absmax in 8 bits, ascending, (256,) float32 (Dettmers 2015, section 1.3).

    With exponent e = -6 ... 0 there are 2^(6 + e) values a sign: 10^e times the middles of as many equal parts of
    [0.1, 1]. With them 0 and 1.

    >>> len(dynamic_map().unique())
    256
    """
    bounds = [torch.linspace(0.1, 1, 2**i + 1) for i in range(7)]
    positive = torch.cat([10.0 ** (i - 6) * ((b[:-1] + b[1:]) / 2) for i, b in enumerate(bounds)])
    return torch.cat([-positive, torch.tensor([0.0, 1.0]), positive]).sort().values


@dataclass(frozen=True)
class Packed:
    """A weight in 4 bits: see the module's docstring. `scale` and `offset` are None where absmax is float32."""

    shape: tuple[int, ...]
    codes: Tensor
    absmax: Tensor
    scale: Tensor | None = None
    offset: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(t for t in (self.codes, self.absmax, self.scale, self.offset) if t is not None)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@torch.no_grad()
def pack(weight: Tensor, double: bool = True) -> Packed:
    """The nearest codes of a weight of any shape and floating dtype; `double` quantises the absmaxes too.

    >>> packed = pack(torch.randn(512, 512))
    >>> round(packed.nbytes * 8 / 512**2, 3), tuple(packed.codes.shape)
    (4.127, (131072,))
    """
    flat = weight.detach().reshape(-1).float()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    absmax = blocks.abs().amax(1)
    if not absmax.isfinite().all():
        raise Error("lora.nf4: the weight holds NaN or infinity, or is too large for float32: it cannot be quantised")
    unit = blocks * (1 / absmax.clamp(min=TINIEST))[:, None]
    if len(flat) % BLOCK:  # the last block is divided, not multiplied: bitsandbytes does, and a bit hangs on it
        unit[-1] = blocks[-1] / absmax[-1].clamp(min=TINIEST)
    codes = _nearest(unit.clamp_(-1, 1), codebook()).view(-1)[: len(flat) + len(flat) % 2]
    packed = codes[::2] << 4 | codes[1::2]
    if not double:
        return Packed(tuple(weight.shape), packed, absmax)
    offset = absmax.mean()
    return Packed(tuple(weight.shape), packed, *_pack_absmax(absmax - offset), offset)


def _pack_absmax(centred: Tensor) -> tuple[Tensor, Tensor]:
    """(K,) float32 -> (K,) uint8 and the largest of each group, (G,)."""
    groups = F.pad(centred, (0, -len(centred) % GROUP)).view(-1, GROUP)
    scale = groups.abs().amax(1)
    unit = groups * (1 / scale.clamp(min=TINIEST))[:, None]
    codes = _nearest(unit.clamp_(-1, 1), dynamic_map())
    codes[scale == 0] = 0  # any would do; these are bitsandbytes'
    return codes.view(-1)[: len(centred)].clone(), scale


def _nearest(values: Tensor, code: Tensor) -> Tensor:
    """The index of the nearest number of an ascending code, of two as near the lower: uint8."""
    middles = ((code[:-1] + code[1:]) / 2).to(values.device)
    return torch.bucketize(values, middles, out_int32=True).to(torch.uint8)


@torch.no_grad()
def unpack(packed: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight that the codes stand for: multiplied in float32, rounded once to `dtype`.

    >>> weight = torch.tensor([0.0, 0.5, -1.0])
    >>> unpack(pack(weight, double=False))
    tensor([ 0.0000,  0.4407, -1.0000])
    """
    count, absmax, codes = torch.Size(packed.shape).numel(), unpack_absmax(packed), packed.codes
    codes = F.pad(codes, (0, len(absmax) * (BLOCK // 2) - len(codes)))
    values = _pairs(codes.device).index_select(0, codes.int()).view(torch.float32)
    values = values.view(-1, BLOCK).mul_(absmax[:, None]).view(-1)
    return values[:count].view(packed.shape).to(dtype)


def unpack_absmax(packed: Packed) -> Tensor:
    """(K,) float32, as pack found them or as 8 bits tell them."""
    if packed.scale is None:
        return packed.absmax
    absmax = packed.absmax
    groups = _dynamic(absmax.device)[F.pad(absmax, (0, -len(absmax) % GROUP)).int()].view(-1, GROUP)
    return groups.mul_(packed.scale[:, None]).view(-1)[: len(absmax)] + packed.offset


@cache
def _pairs(device: torch.device) -> Tensor:
    """The two values of each byte side by side in one int64, (256,): looked up at once, twice as fast as one by one."""
    with torch.inference_mode(False):
        pairs = torch.cartesian_prod(codebook(), codebook())
        return pairs.view(torch.int64).view(-1).to(device)


@cache
def _dynamic(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return dynamic_map().to(device)
