"""What every example needs: a path for the file, the rule-based model and the embedding."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

from hash_embeddings import HashEmbeddings  # noqa: E402  (the path above leads to it)
from rule_model import RuleChatModel  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the example keeps its file; nothing is there yet."""
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def model() -> RuleChatModel:
    """Stand in for the language model of the documents."""
    return RuleChatModel()


@pytest.fixture
def embeddings() -> HashEmbeddings:
    """Stand in for the embedding model of the documents."""
    return HashEmbeddings()
