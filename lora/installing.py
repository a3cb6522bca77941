"""From what lies on disk to adapters beside the layers of a model: everything is checked, then everything is put in."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora.adapter import Adapter, TiedAdapter
from lora.attaching import add, check_name, freeze, hold_whole
from lora.errors import Error, nearest
from lora.exact import Update
from lora.files import Stored
from lora.inventory import check_known, holders, modules_of
from lora.layers import EmbeddingLayer
from lora.layout import Layout, split
from lora.saved import Holder
from lora.switching import refuse_merged, use
from lora.targets import base_module, check_plain, kind_of, like_of, sizes_of


@dataclass(frozen=True)
class Piece:
    """What one module of the model gets: A (R, I), B packed as `Adapter` holds it, and the parts of a fused layer."""

    A: Tensor
    B: Tensor
    scale: float
    magnitude: Tensor | None = None
    parts: tuple[tuple[int, bool], ...] | None = None


@dataclass(frozen=True)
class Plan:
    """A stored adapter in the names of a model."""

    pieces: dict[str, Piece]
    biases: dict[str, Tensor]  # of adapted layers
    wholes: dict[str, dict[str, Tensor]]  # modules learned whole: path -> own name -> tensor
    tied: dict[str, str]  # embedding -> head


def plan(model: nn.Module, stored: Stored, where: str) -> Plan:
    """Find the place of every tensor, and the tensors of every place; or raise `Error`, with nothing changed."""
    layout = Layout(model)
    modules = {path: module for path, module in model.named_modules() if path}
    mirrored = _tied(stored, where)
    pieces: dict[str, Piece] = {}
    for path, update in stored.updates.items():
        if path not in mirrored:
            pieces |= _pieces(path, update, stored, layout, modules, where)
    _check_all_filled(stored, layout, modules, where)
    own = {
        path: layout.at(f"{path}.weight").ours[0].removesuffix(".weight") for pair in mirrored.items() for path in pair
    }
    tied = {own[embedding]: own[head] for embedding, head in mirrored.items()}
    return Plan(pieces, *_replacements(stored, pieces, layout, modules, where), tied)


def install(model: nn.Module, stored: Stored, name: str, trainable: bool, where: str):
    """Attach a stored adapter under `name` and use it; on `Error` nothing has changed."""
    check_name(model, name)
    found = plan(model, stored, where)
    freeze(model)
    for path, piece in found.pieces.items():
        add(model, path, name, _adapter(stored, model.get_submodule(path), piece))
    for embedding, head in found.tied.items():
        add(model, embedding, name, TiedAdapter(holders(model)[head].adapters[name]))
    for path in found.biases:
        layer = holders(model)[path]
        layer.adapters[name].bias = nn.Parameter(torch.empty_like(layer.base.bias))
    for path, tensors in found.wholes.items():
        hold_whole(model, path, name, "bias" if tensors.keys() == {"bias"} and stored.config.bias == "all" else None)
    _copy(model, found, name)
    if not trainable:
        for module in modules_of(model, name):
            module.requires_grad_(False)
    use(model, name)


def fill(model: nn.Module, stored: Stored, name: str, where: str):
    """Copy a stored adapter into the attached one: its parameters stay the objects that an optimizer knows."""
    check_known(model, name)
    refuse_merged(model, "refilling one")
    found = plan(model, stored, where)
    held = {path: holder for path, holder in holders(model).items() if name in holder.adapters}
    differs = held.keys() ^ (found.pieces.keys() | found.wholes.keys() | found.tied.keys())
    for path in (found.pieces.keys() | found.wholes.keys()) - differs:
        if _form(held[path], name) != _form_on_disk(found, path):
            differs.add(path)
    if differs:
        raise Error(f"{where}: differs from adapter {name!r} at {min(differs)}: give the options it was made with")
    _copy(model, found, name)


def _form(holder: Holder, name: str) -> tuple:
    """Shapes of what is the adapter's own, and its scale."""
    base, adapter = {id(parameter) for parameter in holder.base.parameters()}, holder.adapters[name]
    shapes = {own: parameter.shape for own, parameter in adapter.named_parameters() if id(parameter) not in base}
    return shapes, getattr(adapter, "scale", None)


def _form_on_disk(found: Plan, path: str) -> tuple:
    if path in found.wholes:
        return {own: tensor.shape for own, tensor in found.wholes[path].items()}, None
    piece = found.pieces[path]
    tensors = {"A": piece.A, "B": piece.B, "magnitude": piece.magnitude, "bias": found.biases.get(path)}
    return {own: tensor.shape for own, tensor in tensors.items() if tensor is not None}, piece.scale


@torch.no_grad()
def _copy(model: nn.Module, found: Plan, name: str):
    """The numbers, into parameters that have their shapes."""
    held = holders(model)
    for path, piece in found.pieces.items():
        adapter, held[path].kept = held[path].adapters[name], None
        adapter.A.copy_(piece.A)
        adapter.B.copy_(piece.B)
        if piece.magnitude is not None:
            adapter.magnitude.copy_(piece.magnitude)
    for path, bias in found.biases.items():
        held[path].adapters[name].bias.copy_(bias)
    for path, tensors in found.wholes.items():
        for own, tensor in tensors.items():
            held[path].adapters[name].get_parameter(own).copy_(tensor)


def _adapter(stored: Stored, module: nn.Module, piece: Piece) -> Adapter:
    like = like_of(module)
    adapter = Adapter(stored.config, piece.B.shape[1], piece.scale, *sizes_of(module), like, piece.parts)
    if piece.magnitude is not None:
        adapter.magnitude = nn.Parameter(torch.empty_like(piece.magnitude, device=like.device, dtype=adapter.A.dtype))
    return adapter


def _pieces(path: str, update: Update, stored: Stored, layout: Layout, modules, where) -> dict[str, Piece]:
    """The update of one tensor on disk, for each module that has a part of it."""
    entry = layout.at(f"{path}.weight")
    if entry is None:
        known = [tensor.removesuffix(".weight") for tensor in layout.entries if tensor.endswith(".weight")]
        raise Error(f"{where}: adapts {path!r}, which this model has not: {nearest(path, known)}")
    owners = [ours.removesuffix(".weight") for ours in entry.ours]
    for owner in owners:
        if owner not in modules:
            raise Error(f"{where}: adapts {path!r}, which this model has not: {nearest(owner, modules)}")
        kind = kind_of(modules[owner])
        if kind is None or (kind is EmbeddingLayer) != (path in stored.embeddings):
            found = type(base_module(modules[owner])).__name__
            raise Error(f"{where}: the tensors of {path} are not for a {found}: not an adapter of this model")
        check_plain(owner, modules[owner])
    sizes = [sizes_of(modules[owner])[1] for owner in owners]
    n_in, n_out = sizes_of(modules[owners[0]])[0], sum(sizes)
    if (update.A.shape[1], update.B.shape[0]) != (n_in, n_out):
        shapes = f"{update.A.shape[1]} inputs and {update.B.shape[0]} outputs"
        raise Error(f"{where}: {path} has {shapes}, the layer {n_in} and {n_out}: not an adapter of this model")
    if len(owners) == 1:
        return {owners[0]: _whole_or_sliced(path, update, stored)}
    blocks = split(update.B, sizes, [rank for _, rank in stored.parts.get(path, ())])
    magnitudes = [None] * len(owners) if update.magnitude is None else update.magnitude.split(sizes)
    pieces = {}
    for index, owner in enumerate(owners):
        ranks = slice(None) if blocks is None else blocks[index]
        if ranks is not None:
            B = update.B.split(sizes)[index][:, ranks]
            pieces[owner] = Piece(update.A[ranks], B, update.scale, magnitudes[index])
    return pieces


def _whole_or_sliced(path: str, update: Update, stored: Stored) -> Piece:
    """A fused layer that is one module here: parts as the file says, or as the zeros of q, k, v in thirds tell."""
    known = stored.parts.get(path)
    n_out = len(update.B)
    thirds = [n_out // 3] * 3 if n_out == 3 * update.A.shape[1] else []
    sizes = [size for size, _ in known] if known else thirds
    blocks = split(update.B, sizes, [rank for _, rank in known or ()]) if sizes and update.magnitude is None else None
    ranks = [] if blocks is None else [b.stop - b.start for b in blocks if b is not None]
    if blocks is None or len(ranks) == 0 or len(set(ranks)) > 1 or (not known and len(ranks) == 1 == len(sizes)):
        return Piece(update.A, update.B, update.scale, update.magnitude)
    rows = update.B.split(sizes)
    packed = torch.cat([rows[i][:, block] for i, block in enumerate(blocks) if block is not None])
    parts = tuple((size, block is not None) for size, block in zip(sizes, blocks, strict=True))
    return Piece(update.A, packed, update.scale, None, parts)


def _tied(stored: Stored, where: str) -> dict[str, str]:
    """{embedding: head} of one update that is in the file twice, mirrored, for the shared matrix of a tied head."""
    if stored.config.tied != "tie":
        return {}
    found = {}
    for embedding in stored.embeddings:
        mine = stored.updates[embedding]
        heads = [p for p, u in stored.updates.items() if p not in stored.embeddings and u.B.shape == mine.A.T.shape]
        for head in heads:
            theirs = stored.updates[head]
            if torch.equal(theirs.B, mine.A.T) and torch.equal(theirs.A, mine.B.T):
                found[embedding] = head
    if not found:
        raise Error(
            f"{where}: ensure_weight_tying is set, but head and embedding do not hold the same update: incomplete"
        )
    return found


def _check_all_filled(stored: Stored, layout: Layout, modules: dict, where: str):
    """Every layer of the model that the config names has its tensors."""
    if isinstance(stored.config.targets, str) and not layout.differs:
        return  # "all-linear" and regular expressions select by rules of whoever wrote them; the tensors are the list
    for path in [tensor.removesuffix(".weight") for tensor in layout.entries] or modules:
        entry = layout.at(f"{path}.weight")
        owner = entry.ours[0].removesuffix(".weight") if entry else path
        inside = any(owner.startswith(f"{held}.") for held, module in modules.items() if kind_of(module))
        fits = not inside and owner in modules and kind_of(modules[owner]) is not None
        if fits and stored.config.wants(path) and path not in stored.updates:
            raise Error(f"{where}: target_modules names {path}, but the file has no tensors for it: not of this base")


def _replacements(stored: Stored, pieces, layout: Layout, modules, where):
    """{path: bias} of adapted layers, and {path: {own name: tensor}} of modules learned whole."""
    biases, wholes = {}, {}
    for tensor, value in stored.replaced.items():
        entry = layout.at(tensor)
        owned = [] if entry is None else [ours.rpartition(".")[::2] for ours in entry.ours]
        if not owned or any(path not in modules for path, _ in owned):
            raise Error(f"{where}: holds {tensor!r}, which this model has not: {nearest(tensor, layout.of or modules)}")
        shapes = [base_module(modules[path]).get_parameter(own).shape for path, own in owned]
        value = value.T if entry.transposed else value
        if value.shape[1:] != shapes[0][1:] or len(value) != sum(shape[0] for shape in shapes):
            raise Error(f"{where}: {tensor!r} is {tuple(value.shape)}, the model's {[tuple(s) for s in shapes]}")
        for (path, own), part in zip(owned, value.split([shape[0] for shape in shapes]), strict=True):
            if path in pieces and own == "bias":
                biases[path] = part
            elif path in pieces:
                raise Error(f"{where}: {tensor!r} replaces a layer that has A and B as well: damaged")
            else:
                wholes.setdefault(path, {})[own] = part
    return biases, wholes
