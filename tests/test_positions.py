"""Rotary positions equal transformers' and the complex exponential they stand for."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from minigpt import rope
from minigpt.positions import inverse_frequencies, rotary, rotate

THETAS = [10000.0, 500000.0, 100.0]


def turned(x, positions, theta=10000.0):
    return rotate(x, rotary(positions, x.shape[-1], theta, x.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("theta", THETAS)
def test_rotation_is_bit_equal_to_transformers(theta, dtype):
    rope = {"rope_type": "default", "rope_theta": theta}
    reference = LlamaRotaryEmbedding(LlamaConfig(hidden_size=48, num_attention_heads=3, rope_parameters=rope))
    q, k = torch.randn(2, 3, 9, 16, dtype=dtype), torch.randn(2, 1, 9, 16, dtype=dtype)
    positions = torch.randint(4096, (2, 9))
    expected = apply_rotary_pos_emb(q, k, *reference(q, positions))
    assert torch.equal(turned(q, positions, theta), expected[0])
    assert torch.equal(turned(k, positions, theta), expected[1])


@pytest.mark.parametrize("theta", THETAS)
def test_rotation_is_a_complex_exponential(theta):
    d_head, positions = 16, torch.arange(600)[None]
    x = torch.randn(1, 2, 600, d_head, dtype=torch.float64)
    frequencies = torch.tensor([theta ** (-2 * i / d_head) for i in range(d_head // 2)], dtype=torch.float64)
    angles = positions[0, :, None] * frequencies
    pairs = torch.complex(x[..., : d_head // 2], x[..., d_head // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    expected = torch.cat((pairs.real, pairs.imag), dim=-1)
    assert torch.allclose(turned(x, positions, theta), expected, atol=3e-4)  # angles are float32: 600 x 2^-24 x |x|


def test_frequencies_fall_from_one_by_theta():
    assert torch.allclose(inverse_frequencies(8, 10000.0), torch.tensor([1.0, 1e-1, 1e-2, 1e-3]))


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)

    def score(i, j):
        return (turned(q, torch.tensor([[i]])) * turned(k, torch.tensor([[j]]))).sum()

    for shift in (1, 50, 1000):
        assert torch.allclose(score(7, 3), score(7 + shift, 3 + shift), atol=2e-3)
    assert abs(score(7, 3) - score(8, 3)) > 1e-2


def test_position_zero_turns_nothing_and_lengths_stay():
    x = torch.randn(2, 3, 5, 8)
    assert torch.equal(turned(x, torch.zeros(1, 5, dtype=torch.int64)), x)
    assert torch.allclose(turned(x, torch.randint(100, (2, 5))).norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_positions_restart_where_they_are_told_to():
    x = torch.randn(1, 2, 5, 8)
    packed = turned(x, torch.tensor([[0, 1, 2, 0, 1]]))
    parts = [turned(x[:, :, :3], torch.arange(3)[None]), turned(x[:, :, 3:], torch.arange(2)[None])]
    assert torch.equal(packed, torch.cat(parts, dim=2))


def test_a_row_is_turned_for_its_own_length():
    """Dynamic scaling asks how long the text is: up to its last position, and that one too."""
    scaling, positions = rope.Dynamic(factor=4, original=8), torch.stack((torch.arange(12), torch.arange(12) + 20))

    def made(**length):
        return rotary(positions, 8, 10000.0, torch.float32, scaling, **length)

    table = made()
    given = made(length=torch.tensor([[12], [32]]))
    assert all(torch.equal(*pair) for pair in zip(table, given, strict=True))
    for length in (11, 13):
        other = made(length=torch.tensor([[length], [32]]))
        assert not torch.equal(table[0][0], other[0][0]) and torch.equal(table[0][1], other[0][1])
