"""What did an update learn? Section 7 of the LoRA paper (Hu et al. 2021) for adapters on disk, as table and picture.

    7.2  do two adapters of one base share directions?  phi(i, j), beside what chance would give
    7.3  which directions of W does dW amplify?         table 7, if the base is there
    and how many directions does dW really use?         singular values, effective rank

dW = scale B A; the length that DoRA gives to every row is not in it. The mathematics is in `subspaces`.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from torch import Tensor, nn

from lora import subspaces
from lora.errors import Error
from lora.files import Stored
from lora.inventory import check_known, layers_of
from lora.subspaces import Amplification

SHOWN = 8  # shares of energy in a row of the table


@dataclass(frozen=True)
class Spectrum:
    """One update: `values` are the singular values of dW, `energy` their share of |dW|_F^2."""

    rank: int
    norm: float
    effective_rank: float
    values: tuple[float, ...]
    energy: tuple[float, ...]
    amplification: Amplification | None = None


@dataclass(frozen=True)
class Overlap:
    """phi(i, j) of two updates with inputs of dimension d: (r1, r2) from A, as in the paper, and from dW itself.

    A starts at random and moves little, so two adapters that began from one seed share A whatever they learned.
    """

    d: int
    A: Tensor
    dW: Tensor


@dataclass(frozen=True)
class Report:
    """`spectra`: for each adapter, path -> Spectrum. `overlaps`: of the paths both have; empty with one adapter."""

    names: tuple[str, ...]
    spectra: tuple[dict[str, Spectrum], ...]
    overlaps: dict[str, Overlap]
    notes: tuple[str, ...] = ()

    def as_json(self) -> str:
        """All numbers, the whole grids too; `chance` and its `spread` beside them."""
        overlaps = {}
        for path, overlap in self.overlaps.items():
            chance = {"chance": subspaces.baseline, "spread": subspaces.spread}
            grids = {name: make(*overlap.A.shape, overlap.d).tolist() for name, make in chance.items()}
            overlaps[path] = {"d": overlap.d, "A": overlap.A.tolist(), "dW": overlap.dW.tolist()} | grids
        layers = [{path: asdict(spectrum) for path, spectrum in each.items()} for each in self.spectra]
        for each, spectra in zip(layers, self.spectra, strict=True):
            for path, spectrum in spectra.items():
                if spectrum.amplification is not None and spectrum.amplification.along_update:
                    each[path]["amplification"]["factor"] = spectrum.amplification.factor
        whole = {"adapters": dict(zip(self.names, layers, strict=True)), "phi": overlaps, "notes": self.notes}
        return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def analyze(
    first: Stored,
    second: Stored | None = None,
    weight_of: Callable[[str], Tensor] | None = None,
    names: tuple[str, ...] = ("first", "second"),
) -> Report:
    """Spectra of one or two adapters, their overlap, and with `weight_of` the amplification (Hu et al. 2021, sec. 7).

    weight_of(path) gives the base weight (O, I) of a layer, oriented as B A. `Error` if two adapters share no layer.

    >>> import torch; from lora.config import Config; from lora.exact import Update
    >>> one = Update(A=torch.tensor([[0.0, 2.0]]), B=torch.tensor([[3.0], [4.0]]), scale=0.5)
    >>> analyze(Stored(Config(r=1, alpha=0.5), {"q_proj": one})).spectra[0]["q_proj"].values
    (5.0,)
    """
    stored = [first] if second is None else [first, second]
    factors = [{path: subspaces.svd(each.updates[path]) for path in sorted(each.updates)} for each in stored]
    spectra = [{} for _ in stored]
    for each, svds, found in zip(stored, factors, spectra, strict=True):
        for path, svd in svds.items():
            found[path] = _spectrum(len(each.updates[path].A), *svd)
    if weight_of is not None:
        for path in sorted({path for svds in factors for path in svds}):
            weight = weight_of(path)  # read once for both adapters
            for svds, found in zip(factors, spectra, strict=True):
                if path in svds:
                    found[path] = replace(found[path], amplification=_amplification(path, weight, svds[path]))
    overlaps = _overlaps(stored, factors, names) if second is not None else {}
    differ = second is not None and any(second.fingerprint.get(n, v) != v for n, v in first.fingerprint.items())
    notes = ("the two adapters were trained on different bases",) if differ else ()
    return Report(tuple(names[: len(stored)]), tuple(spectra), overlaps, notes)


def spectra(model: nn.Module, name: str = "default") -> dict[str, Spectrum]:
    """Path -> what an attached adapter has learned there: the singular values of scale B A.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> spectra(model)["0"].values
    (0.0, 0.0)
    """
    check_known(model, name)
    updates = {path: layer.update(name) for path, layer in layers_of(model).items() if name in layer.adapters}
    return {path: _spectrum(len(update.A), *subspaces.svd(update)) for path, update in updates.items()}


def _spectrum(rank: int, U: Tensor, S: Tensor, V: Tensor) -> Spectrum:
    return Spectrum(
        rank, S.norm().item(), subspaces.effective_rank(S), tuple(S.tolist()), tuple(subspaces.energy(S).tolist())
    )


def _amplification(path: str, weight: Tensor, svd: tuple[Tensor, Tensor, Tensor]) -> Amplification:
    try:
        return subspaces.amplification(weight, *svd)
    except Error as problem:
        raise Error(f"{path}: {problem}: give the base this adapter was trained on") from None


def _overlaps(stored: list[Stored], factors: list[dict], names: tuple[str, ...]) -> dict[str, Overlap]:
    shared = [path for path in factors[0] if path in factors[1]]
    if not shared:
        one, other = (next(iter(paths), "none") for paths in factors)
        raise Error(f"{names[0]} and {names[1]} share no layer ({one}, ... and {other}, ...): nothing to compare")
    overlaps = {}
    for path in shared:
        one, other = (each.updates[path].A for each in stored)
        if one.shape[1] != other.shape[1]:
            raise Error(f"{path}: input of {one.shape[1]} in {names[0]}, of {other.shape[1]} in {names[1]}: two models")
        V1, V2 = (V[:, : subspaces.above_noise(S)] for _, S, V in (each[path] for each in factors))
        phi_A = subspaces.phi(subspaces.directions(one), subspaces.directions(other))
        overlaps[path] = Overlap(one.shape[1], phi_A, subspaces.phi(V1, V2))
    return overlaps


def table(report: Report) -> str:
    """The report as text: a block for each adapter, then the overlap, then table 7."""
    width = max((len(path) for spectra in report.spectra for path in spectra), default=5)
    blocks = [_spectra_table(name, spectra, width) for name, spectra in zip(report.names, report.spectra, strict=True)]
    if report.overlaps:
        blocks.append(_overlap_table(report, width))
    for name, spectra in zip(report.names, report.spectra, strict=True):
        if any(spectrum.amplification for spectrum in spectra.values()):
            blocks.append(_amplification_table(name, spectra, width))
    return "\n\n".join([*blocks, *(f"note: {note}" for note in report.notes)])


def _spectra_table(name: str, spectra: dict[str, Spectrum], width: int) -> str:
    lines = [f"{name}: dW = scale B A", f"{'layer':<{width}}  rank  eff. rank     |dW|_F  energy by direction"]
    for path, it in spectra.items():
        shares = " ".join(f"{share:4.0%}" for share in it.energy[:SHOWN]) + (" ..." if len(it.energy) > SHOWN else "")
        lines.append(f"{path:<{width}}  {it.rank:4}  {it.effective_rank:9.2f}  {it.norm:9.4g}  {shares}")
    return "\n".join(lines)


def _overlap_table(report: Report, width: int) -> str:
    """phi at its two ends; at the far one A and dW span the same, as long as no direction of B is lost."""
    lines = [
        f"{' and '.join(report.names)}: phi(i, j), 1 where the smaller subspace lies in the larger; "
        "chance is max(i, j) / d, give or take one standard deviation",
        f"{'layer':<{width}}  phi(1,1): A      dW           chance    i,j  phi(i,j): A      dW           chance",
    ]
    for path, overlap in report.overlaps.items():
        r1, r2 = overlap.A.shape
        chance, spread = (make(r1, r2, overlap.d) for make in (subspaces.baseline, subspaces.spread))
        row = f"{path:<{width}}"
        for at, corner in (((0, 0), ""), ((-1, -1), f"{f'{r1},{r2}':>7}")):
            values = [f"{grid[at]:.3f}" if grid.numel() else "zero" for grid in (overlap.A, overlap.dW)]
            beside = f"{chance[at]:.4f} ± {spread[at]:.4f}" if r1 and r2 else ""
            row += f"{corner}  {values[0]:>11}  {values[1]:>6}  {beside:>15}"
        lines.append(row)
    grids = [overlap.dW for overlap in report.overlaps.values() if overlap.dW.numel()]
    high = sum(grid[0, 0].item() >= 0.5 for grid in grids)
    return "\n".join([*lines, f"phi(1,1) of dW is at least 0.5 in {high} of {len(grids)} layers"])


def _amplification_table(name: str, spectra: dict[str, Spectrum], width: int) -> str:
    head = "   |W|_F   |dW|_F |U^T W V| along dW   along W    random  amplification"
    lines = [f"{name}: what W had along r directions (table 7 of the paper)", f"{'layer':<{width}}    r{head}"]
    for path, spectrum in spectra.items():
        if (it := spectrum.amplification) is not None:
            rows = f"{it.along_update:18.4g} {it.along_base:9.4g} {it.along_random:9.4g} {it.factor:14.2f}"
            lines.append(f"{path:<{width}}  {it.r:3} {it.base:8.4g} {it.update:8.4g} {rows}")
    return "\n".join(lines)
