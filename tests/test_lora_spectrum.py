"""Section 7 of the LoRA paper against dense float64 decompositions, double loops and random draws."""

import json
import math
from argparse import ArgumentParser
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lora import analysis, files, spectrum, subspaces
from lora.config import Config
from lora.errors import Error
from lora.exact import Update
from lora.files import Stored
from lora.picture import PANEL, draw

sizes = st.integers(1, 12)


def update(out: int, into: int, r: int, seed: int = 0, scale: float = 2.0) -> Update:
    dice = torch.Generator().manual_seed(seed)
    return Update(torch.randn(r, into, generator=dice), torch.randn(out, r, generator=dice), scale)


def dense(u: Update) -> torch.Tensor:
    return u.scale * u.B.double() @ u.A.double()


def orthonormal(d: int, r: int, dice: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(d, r, dtype=torch.float64, generator=dice))[0]


def stored(seed: int, r: int, d: int = 24, paths=("h.0.q_proj", "h.1.q_proj"), **more) -> Stored:
    updates = {path: update(d, d, r, seed + n) for n, path in enumerate(paths)}
    return Stored(Config(r=r, alpha=2 * r, targets=paths), updates, **more)


@given(sizes, sizes, sizes, st.floats(0.01, 100), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_svd_is_that_of_the_dense_matrix(out, into, r, scale, seed):
    u = update(out, into, r, seed, scale)
    U, S, V = subspaces.svd(u)
    truth = torch.linalg.svdvals(dense(u))
    k = min(out, into, r)
    assert U.shape == (out, k) and V.shape == (into, k)
    torch.testing.assert_close(S, truth[:k], rtol=1e-10, atol=1e-12 * truth[0].item())
    torch.testing.assert_close(U * S @ V.T, dense(u), rtol=1e-9, atol=1e-11 * truth[0].item())
    for basis in (U, V):
        torch.testing.assert_close(basis.T @ basis, torch.eye(k, dtype=torch.float64))


def test_effective_rank_and_energy():
    S = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    p = [4 / 7, 2 / 7, 1 / 7]
    assert subspaces.effective_rank(S) == pytest.approx(math.exp(-sum(x * math.log(x) for x in p)), rel=1e-12)
    assert subspaces.effective_rank(torch.ones(5)) == pytest.approx(5)
    assert subspaces.effective_rank(torch.zeros(3)) == 0
    assert subspaces.energy(S).tolist() == pytest.approx([16 / 21, 4 / 21, 1 / 21])
    assert subspaces.energy(torch.zeros(2)).tolist() == [0, 0]


@given(st.integers(2, 12), sizes, sizes, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_phi_is_the_formula(d, r1, r2, seed):
    dice = torch.Generator().manual_seed(seed)
    A1, A2 = (torch.randn(r, d, dtype=torch.float64, generator=dice) for r in (r1, r2))
    grid = subspaces.phi(subspaces.directions(A1), subspaces.directions(A2))
    U1, U2 = (torch.linalg.svd(A)[2].T for A in (A1, A2))
    assert grid.shape == (min(r1, d), min(r2, d))
    for i in range(1, grid.shape[0] + 1):
        for j in range(1, grid.shape[1] + 1):
            truth = torch.linalg.norm(U1[:, :i].T @ U2[:, :j]).item() ** 2 / min(i, j)
            assert grid[i - 1, j - 1].item() == pytest.approx(truth, abs=1e-9)
            assert -1e-9 <= truth <= 1 + 1e-9


def test_phi_of_the_same_and_of_orthogonal_subspaces():
    A = torch.randn(6, 20, dtype=torch.float64)
    V = subspaces.directions(A)
    torch.testing.assert_close(subspaces.phi(V, V).diagonal(), torch.ones(6, dtype=torch.float64))
    x = orthonormal(20, 11, torch.Generator().manual_seed(0))
    assert subspaces.phi(x[:, :6], x[:, 6:]).abs().max() < 1e-12
    with pytest.raises(Error, match="20 and in 3 dimensions"):
        subspaces.phi(x, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("d, r1, r2, draws", [(24, 3, 7, 2000), (5, 1, 5, 500), (40, 1, 1, 3000)])
def test_baseline_and_spread_are_those_of_random_draws(d, r1, r2, draws):
    dice = torch.Generator().manual_seed(1)
    grids = torch.stack([subspaces.phi(orthonormal(d, r1, dice), orthonormal(d, r2, dice)) for _ in range(draws)])
    baseline, spread = subspaces.baseline(r1, r2, d), subspaces.spread(r1, r2, d)
    # 4 standard errors of the mean; the standard deviation of few and heavy-tailed draws is known less well
    assert ((grids.mean(0) - baseline).abs() <= 4 * spread / draws**0.5 + 1e-12).all()
    torch.testing.assert_close(grids.std(0), spread, rtol=0.12, atol=1e-9)


def test_gaussian_control_at_the_size_of_gpt2():
    """The reference number: phi(8, 64) = 0.088 where chance is 64 / 768 = 0.083, one standard deviation away."""
    baseline, spread = subspaces.baseline(8, 64, 768), subspaces.spread(8, 64, 768)
    assert baseline[7, 63].item() == pytest.approx(64 / 768) and baseline[0, 0].item() == pytest.approx(1 / 768)
    assert spread[7, 63].item() == pytest.approx(0.00496, abs=1e-5)
    dice = torch.Generator().manual_seed(0)
    A1, A2 = torch.randn(8, 768, generator=dice), torch.randn(64, 768, generator=dice)
    found = subspaces.phi(subspaces.directions(A1), subspaces.directions(A2))
    assert abs(found[7, 63] - baseline[7, 63]) < 3 * spread[7, 63]


def test_amplification_of_a_case_with_known_answer():
    """W has 5, 3, 0.5 along its axes; dW doubles up on the weakest, with norm 2: 2 / 0.5 = 4 times."""
    dice = torch.Generator().manual_seed(0)
    left, right = orthonormal(7, 3, dice), orthonormal(9, 3, dice)
    W = left * torch.tensor([5.0, 3.0, 0.5], dtype=torch.float64) @ right.T
    u = Update(A=right[:, 2:].T, B=left[:, 2:], scale=-2.0)
    found = subspaces.amplification(W, *subspaces.svd(u))
    assert found.r == 1
    assert found.update == pytest.approx(2) and found.base == pytest.approx(math.sqrt(34.25))
    assert found.along_update == pytest.approx(0.5) and found.along_base == pytest.approx(5)
    assert found.along_random == pytest.approx(math.sqrt(34.25 / 63))
    assert found.factor == pytest.approx(4)
    with pytest.raises(Error, match="not its base"):
        subspaces.amplification(W.T, *subspaces.svd(u))


def test_amplification_rows_against_dense_svd_and_draws():
    dice = torch.Generator().manual_seed(5)
    W = torch.randn(10, 16, dtype=torch.float64, generator=dice)
    u = update(10, 16, 3, seed=6)
    found = subspaces.amplification(W, *subspaces.svd(u))
    U, S, Vh = torch.linalg.svd(dense(u))
    assert found.along_update == pytest.approx(torch.linalg.norm(U[:, :3].T @ W @ Vh[:3].T).item(), rel=1e-9)
    assert found.along_base == pytest.approx(torch.linalg.svdvals(W)[:3].norm().item(), rel=1e-9)
    assert found.update == pytest.approx(torch.linalg.norm(dense(u)).item(), rel=1e-9)
    draws = [(orthonormal(10, 3, dice).T @ W @ orthonormal(16, 3, dice)).square().sum().item() for _ in range(1500)]
    assert found.along_random == pytest.approx(math.sqrt(sum(draws) / len(draws)), rel=0.05)


def test_report_numbers():
    first, second = stored(0, 3), stored(10, 5, paths=("h.1.q_proj", "h.2.q_proj"))
    weights = {path: torch.randn(24, 24) for path in ("h.0.q_proj", "h.1.q_proj", "h.2.q_proj")}
    report = spectrum.analyze(first, second, weights.__getitem__, names=("a", "b"))
    assert [list(each) for each in report.spectra] == [["h.0.q_proj", "h.1.q_proj"], ["h.1.q_proj", "h.2.q_proj"]]
    assert list(report.overlaps) == ["h.1.q_proj"] and report.overlaps["h.1.q_proj"].A.shape == (3, 5)
    one = report.spectra[0]["h.1.q_proj"]
    truth = torch.linalg.svdvals(dense(first.updates["h.1.q_proj"]))[:3]
    assert one.values == pytest.approx(truth.tolist()) and one.norm == pytest.approx(truth.norm().item())
    assert one.energy == pytest.approx((truth**2 / (truth**2).sum()).tolist())
    assert one.amplification.base == pytest.approx(weights["h.1.q_proj"].norm().item())
    V1, V2 = (torch.linalg.svd(dense(each.updates["h.1.q_proj"]))[2].T for each in (first, second))
    torch.testing.assert_close(report.overlaps["h.1.q_proj"].dW, subspaces.phi(V1[:, :3], V2[:, :5]))
    text = spectrum.table(report)
    assert f"{report.overlaps['h.1.q_proj'].A[0, 0]:.3f}" in text and f"{one.amplification.factor:.2f}" in text
    values = json.loads(report.as_json())
    assert values["adapters"]["a"]["h.1.q_proj"]["amplification"]["factor"] == pytest.approx(one.amplification.factor)
    assert values["phi"]["h.1.q_proj"]["chance"][2][4] == pytest.approx(5 / 24)


def test_an_untrained_adapter_has_no_directions():
    zero = Update(torch.randn(2, 24), torch.zeros(24, 2), 2.0)
    fresh = Stored(Config(r=2, alpha=4, targets=["h.0.q_proj"]), {"h.0.q_proj": zero})
    report = spectrum.analyze(fresh, stored(1, 3), lambda path: torch.eye(24))
    assert report.overlaps["h.0.q_proj"].dW.numel() == 0 and report.spectra[0]["h.0.q_proj"].effective_rank == 0
    assert "zero" in spectrum.table(report)
    assert json.loads(report.as_json()) and ElementTree.fromstring(draw(report)) is not None


def test_what_cannot_be_compared():
    with pytest.raises(Error, match="share no layer"):
        spectrum.analyze(stored(0, 2), stored(0, 2, paths=("lm_head",)))
    with pytest.raises(Error, match="input of 24 in first, of 30 in second"):
        spectrum.analyze(stored(0, 2), stored(0, 2, d=30))
    with pytest.raises(Error, match=r"h\.0\.q_proj: base weight is \(5, 5\)"):
        spectrum.analyze(stored(0, 2), weight_of=lambda path: torch.eye(5))
    prints = [{"h.0.q_proj.weight": digit * 32} for digit in "ab"]
    report = spectrum.analyze(stored(0, 2, fingerprint=prints[0]), stored(1, 2, fingerprint=prints[1]))
    assert "different bases" in spectrum.table(report)


def command(*words) -> int:
    parser = ArgumentParser()
    analysis.add_arguments(parser)
    return analysis.run(parser.parse_args([str(word) for word in words]))


def test_command(tmp_path, capsys):
    """The base stores its weights as Conv1D does, (in, out): the amplification is of the weight turned round."""
    weights = {f"h.{n}.c_fc": torch.randn(24, 24) for n in range(2)}
    (tmp_path / "base").mkdir()
    save_file({f"transformer.{path}.weight": w for path, w in weights.items()}, tmp_path / "base/model.safetensors")
    (tmp_path / "base/config.json").write_text('{"model_type": "gpt2"}')
    prints = {f"{path}.weight": files.fingerprint(w) for path, w in weights.items()}
    for name, r in (("r3", 3), ("r5", 5)):
        files.write(stored(r, r, paths=tuple(weights), fingerprint=prints), tmp_path / name)
    out = {"--picture": tmp_path / "new/a.svg", "--json": tmp_path / "a.json", "--base": tmp_path / "base"}
    assert command(tmp_path / "r3", tmp_path / "r5", *(part for pair in out.items() for part in pair)) == 0
    assert "r3 and r5: phi(i, j)" in capsys.readouterr().out
    found = json.loads(out["--json"].read_text())["adapters"]["r3"]["h.0.c_fc"]["amplification"]["along_update"]
    u = files.read(tmp_path / "r3").updates["h.0.c_fc"]
    U, S, Vh = torch.linalg.svd(dense(u))
    truth = torch.linalg.norm(U[:, :3].T @ weights["h.0.c_fc"].T.double() @ Vh[:3].T).item()
    assert found == pytest.approx(truth, rel=1e-6)

    save_file({f"{path}.weight": w + 1 for path, w in weights.items()}, tmp_path / "base/model.safetensors")
    with pytest.raises(Error, match="wrong base"):
        command(tmp_path / "r3", "--base", tmp_path / "base")


def test_picture_shows_every_layer_and_its_numbers():
    report = spectrum.analyze(stored(0, 3), stored(10, 5), names=("<r3>", "r5"))
    root = ElementTree.fromstring(draw(report))  # well-formed, and names are escaped
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert tags.count("image") == 4
    words = "\n".join(root.itertext())
    assert "h.0.q_proj" in words and "h.1.q_proj" in words and "<r3>" in words
    grid = report.overlaps["h.0.q_proj"].A
    assert f"φ(1,1) {grid[0, 0]:.3f}, chance {1 / 24:.3f}" in words
    bars = [e for e in root.iter() if e.get("class") == "second" and e.tag.endswith("rect")]
    heights = [float(e.get("height")) for e in bars[:5]]
    values = report.spectra[1]["h.0.q_proj"].values
    top = max(report.spectra[0]["h.0.q_proj"].values[0], values[0])  # one scale for the two
    assert heights[0] == pytest.approx(PANEL * values[0] / top, abs=0.01)
    assert [h / heights[0] for h in heights] == pytest.approx([v / values[0] for v in values], abs=1e-3)


def test_png_holds_the_colors(tmp_path):
    image = pytest.importorskip("PIL.Image")
    from lora.picture import color, png

    grid = torch.tensor([[0.0, 0.3, 1.0], [0.5, 0.9, 0.1]])
    (tmp_path / "a.png").write_bytes(png(grid))
    with image.open(tmp_path / "a.png") as opened:
        assert opened.size == (3, 2)
        for row in range(2):
            for column in range(3):
                assert opened.getpixel((column, row)) == color(grid[row, column].item())
