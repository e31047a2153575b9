"""LangGraph's store searching by words: alone, and together with an embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import PutOp, SearchItem, SearchOp

import lgkv
from lgkv.errors import InvalidInputError
from lgkv.langgraph import LgkvStore

NS = ("docs",)


def embed(texts: list[str]) -> list[list[float]]:
    """Return vectors that know of length alone."""
    return [[1.0, float(len(text))] for text in texts]


def put_some(store: LgkvStore) -> None:
    store.put(NS, "pie", {"text": "An apple pie", "notes": [{"text": "bake it"}]})
    store.put(NS, "tree", {"text": "The apple tree", "kind": "plant"})
    store.put(NS, "sea", {"text": "The deep blue sea"})
    store.put(NS, "secret", {"text": "apple"}, index=False)
    store.put(NS, "other", {"text": "pear", "title": "apple"}, index=["title"])


def found(store: LgkvStore, query: str, **options: Any) -> list[str]:
    return [item.key for item in store.search(NS, query=query, **options)]


def test_words_alone_need_no_embedding(tmp_path: Path) -> None:
    index: Any = {"mode": "keyword", "fields": ["text", "notes[*].text"]}
    with LgkvStore.from_conn_string(tmp_path / "a.lgkv", index=index) as store:
        put_some(store)
        assert store.embeddings is None
        assert found(store, "apple") == ["other", "tree", "pie"]
        assert found(store, "BAKING") == []
        assert found(store, "bake") == ["pie"]
        assert found(store, "apple", filter={"kind": "plant"}) == ["tree"]
        assert found(store, "apple", limit=1, offset=1) == ["tree"]
        assert len(found(store, "")) == 5
        item = store.search(NS, query="sea")[0]
        assert isinstance(item, SearchItem)
        assert item.parts == {"keyword": item.score}  # type: ignore[attr-defined]
        assert item.dict()["score"] == item.score
        assert type(store.search(NS)[0]) is SearchItem


async def test_words_alone_async_and_in_one_batch(tmp_path: Path) -> None:
    index: Any = {"mode": "keyword", "fields": ["text"]}
    async with LgkvStore.from_conn_string(tmp_path / "a.lgkv", index=index) as store:
        put = PutOp(NS, "k", {"text": "apple"})
        search = SearchOp(NS, None, 10, 0, "apple")
        assert await store.abatch([put, search]) == [None, []]  # reads see what was before
        [[item]] = await store.abatch([search])
        assert item.key == "k"
        await store.adelete(NS, "k")
        assert await store.asearch(NS, query="apple") == []


def test_hybrid_finds_by_either(tmp_path: Path) -> None:
    index: Any = {"mode": "hybrid", "embed": embed, "dims": 2, "fields": ["text"]}
    with LgkvStore.from_conn_string(tmp_path / "a.lgkv", index=index) as store:
        put_some(store)
        items = store.search(NS, query="apple")
        assert {item.key for item in items} == {"pie", "tree", "sea", "other"}
        by_key = {item.key: item.parts for item in items}  # type: ignore[attr-defined]
        assert by_key["sea"].keys() == {"vector"}
        assert by_key["other"].keys() == {"vector", "keyword"}
        assert items[0].key == "other"


def test_index_may_be_given_later(tmp_path: Path) -> None:
    with lgkv.open(tmp_path / "a.lgkv") as db:
        put_some(LgkvStore(db))
        store = LgkvStore(db, index={"mode": "keyword", "fields": ["text"]})  # type: ignore[typeddict-unknown-key,typeddict-item]
        assert found(store, "apple") == []
        for item in store.search(NS):
            store.put(item.namespace, item.key, item.value)
        assert set(found(store, "apple")) == {"pie", "tree", "secret"}


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ({"mode": "fuzzy"}, "index\\['mode'\\] is 'fuzzy'"),
        ({"mode": "hybrid", "dims": 2}, "index\\['embed'\\] is missing"),
        ({"fields": ["text"]}, "mode'\\] = 'keyword'"),
    ],
)
def test_wrong_configuration_is_refused(tmp_path: Path, index: Any, named: str) -> None:
    with lgkv.open(tmp_path / "a.lgkv") as db, pytest.raises(InvalidInputError, match=named):
        LgkvStore(db, index=index)


def test_declared_fields_are_part_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "a.lgkv"
    with LgkvStore.from_conn_string(path, fields={"user": str}) as store:
        for number in range(20):
            store.put(("n", str(number % 3)), str(number), {"user": f"u{number % 5}"})
        assert [item.key for item in store.search(("n",), filter={"user": "u4"})] == [
            "19", "14", "9", "4",
        ]  # fmt: skip
        assert store.db.memory.explain((), filter={"user": "u4"}).plan == "field"
    with LgkvStore.from_conn_string(path) as store:  # says nothing of them: they stay
        assert store.db.memory.fields == {"user": "text"}
    with LgkvStore.from_conn_string(path, fields={}) as store:
        assert store.db.memory.fields == {}
    with pytest.raises(InvalidInputError, match="is of type"):
        LgkvStore.from_conn_string(path, fields={"user": list})
