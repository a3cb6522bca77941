"""Every test starts from the same seed, on one thread, offline; tests marked `gpu` need CUDA."""

import os

# Before transformers and tokenizers are imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import random

import numpy
import pytest
import torch
from browsing import browser, opened  # noqa: F401  (fixtures)

torch.set_num_threads(1)  # the tensors are tiny: a second thread costs more than it gives


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
