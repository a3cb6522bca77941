"""The search by itself, on tables of probabilities small enough to follow by hand: no model."""

import math

import pytest
import torch

from minigpt.generation.search import Group, Rules

END, V = 0, 5


def search(table, limit=10, **rules):
    """A group of two beams after the prompt [9]; `table` has what may follow each text, END alone if nothing."""
    group, taken = Group(2, [9], limit, Rules(2, ends=frozenset({END}), **rules), None), []
    while not group.done:
        rows = torch.full((len(group.running), V), 1e-9)
        for row, beam in zip(rows, group.running, strict=True):
            for token, p in table.get(tuple(beam.new), {END: 1.0}).items():
                row[token] = p
        taken.append(group.step(rows.log(), []))
    return group, taken


def found(group):
    return {tuple(beam.tokens): pytest.approx(math.exp(beam.total)) for beam in group.finished}


def test_it_goes_on_while_the_best_running_text_can_win():
    """Two have ended, with 0.3 and 0.15. The second running text, 0.05, is beaten; the first, 0.3, comes to 0.27."""
    table = {(): {1: 0.5, END: 0.3, 2: 0.1}, (1,): {3: 0.6, END: 0.3, 4: 0.1}, (1, 3): {END: 0.9, 1: 0.1}}
    group, taken = search(table, length_penalty=0.0)
    assert found(group) == {(END,): 0.3, (1, 3, END): 0.27}  # (1, END) had to go: two places, three that ended
    assert taken[0] == [1, 2]  # as many as go on
    stopped, _ = search(table, length_penalty=0.0, early_stopping=True)
    assert found(stopped) == {(END,): 0.3, (1, END): 0.15}


def test_an_end_that_is_not_among_the_best_is_no_text():
    """END alone has 0.25, more than (2, END), but two tokens that are no ends are likelier."""
    group, _ = search({(): {1: 0.4, 2: 0.35, END: 0.25}, (2,): {END: 0.5, 3: 0.5}}, length_penalty=0.0)
    assert found(group) == {(1, END): 0.4, (2, END): 0.175}


def test_never_takes_the_length_at_which_a_text_scores_best():
    """With a penalty below 0, score = log p * length: a running text can only fall, so its score now is the bound.

    After two tokens log 0.3 * 2 = -2.41 against -3.79 of (1, END): it goes on, and ends with -3.64. At full length,
    10, it would have promised -12. With a penalty above 0 it is the other way round: full length promises most.
    """
    table = {(): {1: 0.5, END: 0.4, 2: 0.06}, (1,): {3: 0.6, END: 0.3}, (1, 3): {END: 0.99}}
    group, _ = search(table, length_penalty=-1.0, early_stopping="never")
    assert found(group) == {(END,): 0.4, (1, 3, END): 0.5 * 0.6 * 0.99}

    table = {(): {END: 0.5, 1: 0.3, 2: 0.1}, (1,): {END: 0.5, 3: 0.3}, (1, 3): {4: 0.999}, (1, 3, 4): {END: 0.999}}
    assert found(search(table, early_stopping=False)[0]) == {(END,): 0.5, (1, END): 0.15}
    assert found(search(table, early_stopping="never")[0]) == {(END,): 0.5, (1, 3, 4, END): 0.09 * 0.999**2}
