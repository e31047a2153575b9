"""A LangGraph store's search by meaning: metrics, models, reindexing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

import lgkv
from lgkv.langgraph import LgkvStore

NS = ("notes",)


class Named(Embeddings):
    """Counts letters; `model` is its name."""

    def __init__(self, model: str, letters: str = "abcd") -> None:
        self.model, self.letters = model, letters
        self.embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        return [[float(text.count(letter)) for letter in self.letters] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(text.count(letter)) for letter in self.letters]


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with lgkv.open(tmp_path / "a.lgkv") as opened:
        yield opened


def store_of(db: lgkv.Database, embed: Any, **index: Any) -> LgkvStore:
    config: Any = {"embed": embed, "dims": 4, "fields": ["text"], **index}
    return LgkvStore(db, index=config)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", [("ab", 1.0), ("aabb", 1.0), ("aaab", 4 / 20**0.5)]),
        ("inner_product", [("aabb", 4.0), ("aaab", 4.0), ("ab", 2.0)]),
        ("l2", [("ab", 0.0), ("aabb", -(2**0.5)), ("aaab", -2.0)]),
    ],
)
def test_metric_is_of_the_configuration(
    db: lgkv.Database, metric: str, expected: list[tuple[str, float]]
) -> None:
    store = store_of(db, Named("m"), distance_type=metric, storage="float16")
    for text in ("aaab", "aabb", "ab"):
        store.put(NS, text, {"text": text})
    found = store.search(NS, query="ab")
    scores = {item.key: item.score for item in found}
    assert scores == pytest.approx(dict(expected))
    assert [item.score for item in found] == sorted(scores.values(), reverse=True)
    settings = db.vectors.settings()
    assert settings is not None
    assert (settings.metric, settings.storage, settings.model) == (metric, "float16", "m")


def test_other_model_is_refused_for_writing_and_for_searching(db: lgkv.Database) -> None:
    store_of(db, Named("small")).put(NS, "k", {"text": "ab"})
    other = store_of(db, Named("large"))
    with pytest.raises(lgkv.EmbeddingMismatchError, match="'small', not of 'large'"):
        other.put(NS, "k2", {"text": "cd"})
    with pytest.raises(lgkv.EmbeddingMismatchError, match="reindex"):
        other.search(NS, query="cd")
    assert other.get(NS, "k2") is None
    assert [item.key for item in other.search(NS)] == ["k"]
    assert [item.key for item in store_of(db, Named("small")).search(NS, query="a")] == ["k"]


def test_model_is_named_by_the_configuration_where_a_function_embeds(db: lgkv.Database) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return Named("").embed_documents(texts)

    store_of(db, embed).put(NS, "k", {"text": "ab"})
    store_of(db, embed, model="mine").put(NS, "k2", {"text": "cd"})
    with pytest.raises(lgkv.EmbeddingMismatchError, match="'mine'"):
        store_of(db, embed, model="other").search(NS, query="a")
    assert len(store_of(db, embed).search(NS, query="a")) == 2
