"""Whatever is in a file, it is read as it says or refused in a sentence: a few damages of each kind of file.

The long run of the same is `make faults`; docs/reliability.md has what it found.
"""

import pytest

from tests.faults import subjects, texts
from tests.faults.fuzz import fuzz

EVERY = [*subjects.models(), *subjects.adapters(), *subjects.runs(), *texts.notes(), *texts.made()]


@pytest.mark.parametrize("subject", EVERY, ids=lambda subject: subject.name)
def test_a_damaged_file_is_read_as_it_says_or_refused_in_a_sentence(subject, tmp_path):
    found = fuzz(subject, 8, tmp_path, seed=1)
    assert not found.faults, "\n".join(found.faults)
    assert found.tried == 8 and found.counts["refused"] + found.counts["other"]
