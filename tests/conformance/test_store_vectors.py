"""A LangGraph store's search by meaning: metrics, models, reindexing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import InvalidNamespaceError, PutOp, SearchOp, get_text_at_path

import lgkv
from lgkv.langgraph import LgkvStore
from lgkv.langgraph._embedding import TextIndex

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


def test_search_gives_what_a_batch_with_one_search_gives(db: lgkv.Database) -> None:
    store = store_of(db, Named("m"))
    for number, text in enumerate(("aaab", "aabb", "ab", "cd")):
        store.put((*NS, str(number % 2)), text, {"text": text, "n": number})
    for prefix, keeps, limit, offset, query in (
        (NS, None, 10, 0, "ab"), (NS, None, 2, 1, "cd"), ((*NS, "1"), None, 10, 0, ""),
        (NS, {"n": {"$gt": 0}}, 2, 0, "a"), (NS, None, 3, 0, None), (("none",), None, 3, 0, "a"),
    ):  # fmt: skip
        found = store.search(prefix, query=query, filter=keeps, limit=limit, offset=offset)
        op = SearchOp(prefix, keeps, limit, offset, query)
        assert [found] == store.batch([op])
        assert [item.score for item in found] == [item.score for item in store.batch([op])[0]]
    for wrong in (["notes"], ("a.b",)):
        with pytest.raises((lgkv.InvalidInputError, InvalidNamespaceError)):
            store.search(wrong, query="a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "text",
        "n",
        "none",
        "missing",
        "*",
        "[0]",
        "[*]",
        "{a,b}",
        "in.text",
        "in",
        "a[0]",
        "a[*]",
        "$",
    ],
)
def test_texts_are_those_that_langgraph_finds(path: str) -> None:
    value = {"text": "t", "n": 1, "none": None, "*": "star", "[0]": "first", "[*]": "all", "$": "$",
             "{a,b}": "both", "in": {"text": "deep"}, "in.text": "flat", "a": ["x", "y"],
             "a[0]": "odd"}  # fmt: skip
    index = TextIndex({"embed": Named("m"), "dims": 4, "fields": [path]})
    op, texts = PutOp(NS, "k", value), ["of another"]
    paths = index.add_texts(op, texts)
    assert texts[1:] == list(index.texts(op).values()) == get_text_at_path(value, path)
    assert paths == tuple(index.texts(op))


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


# --- reindexing ---


def filled(db: lgkv.Database, count: int = 30) -> LgkvStore:
    store = store_of(db, Named("small"), fields=["text", "parts[*]"])
    for number in range(count):
        text = "ab" if number % 2 else "cd"
        parts = ["a", "b" * number] if number % 3 == 0 else []
        store.put(NS, str(number), {"text": text, "parts": parts})
    store.put(NS, "plain", {"text": "ab"}, index=False)
    return store


def test_reindexing_embeds_the_stored_texts_with_the_new_model(db: lgkv.Database) -> None:
    filled(db)
    large = Named("large", "abcdef")
    store = store_of(db, large, dims=6, fields=["text", "parts[*]"], storage="float16")
    told: list[tuple[int, int]] = []
    assert store.reindex(batch_size=7, progress=lambda *now: told.append(now)) == 30
    assert [done for done, _ in told] == [7, 14, 21, 28, 30]
    settings = db.vectors.settings()
    assert settings is not None
    assert (settings.dims, settings.model, settings.storage) == (6, "large", "float16")
    assert db.vectors.reindexing() is None
    found = store.search(NS, query="ab", limit=100)
    assert len(found) == 31
    assert found[0].score == pytest.approx(1, abs=1e-3)
    assert found[-1].key == "plain"
    assert found[-1].score is None
    with pytest.raises(lgkv.EmbeddingMismatchError):
        store_of(db, Named("small")).search(NS, query="ab")
    with lgkv.open(db._connection.path) as again:
        assert again.vectors.count() == db.vectors.count() == 30 + 2 * 10


def test_reindexing_reads_a_path_that_ends_in_a_number_as_it_is(db: lgkv.Database) -> None:
    embedded: list[str] = []

    class Noting(Named):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            embedded.extend(texts)
            return super().embed_documents(texts)

    value = {"x": {"0": "one"}, "y": {"1": "two"}}
    store_of(db, Named("small"), fields=["*.0"]).put(NS, "k", value)
    assert store_of(db, Noting("large"), fields=["*.0"]).reindex() == 1
    assert embedded[-1:] == ["one"]  # after what finds the length of a vector


def test_searches_go_on_with_the_old_vectors_until_the_switch(db: lgkv.Database) -> None:
    old = filled(db)
    before = [(item.key, item.score) for item in old.search(NS, query="ab", limit=50)]
    seen = []

    class Watching(Named):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            seen.append([(item.key, item.score) for item in old.search(NS, query="ab", limit=50)])
            return super().embed_documents(texts)

    store_of(db, Watching("large")).reindex(batch_size=10)
    assert len(seen) == 4
    assert all(each == before for each in seen)


def test_what_is_put_and_deleted_meanwhile_is_as_put_and_deleted(db: lgkv.Database) -> None:
    old = filled(db)

    class Meddling(Named):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            step = self.embedded
            if step < 60:
                old.put(NS, f"new{step}", {"text": "bbb"})
                old.put(NS, "1", {"text": "d" * (step + 1)})
                old.delete(NS, str(step % 30))
                old.put(NS, "29", {"text": "ab"}, index=False)
            return super().embed_documents(texts)

    new = store_of(db, Meddling("large"))
    new.reindex(batch_size=5)
    fresh = Named("large")
    found = new.search(NS, query="dddd", limit=100)
    stored = {item.key: item for item in new.search(NS, limit=100)}
    assert {item.key for item in found} == set(stored)
    for item in found:
        if item.key in ("29", "plain"):
            assert item.score is None
            continue
        text, parts = item.value["text"], item.value.get("parts") or []
        rows = fresh.embed_documents([text, *parts])
        best = max(cosine(fresh.embed_query("dddd"), row) for row in rows)
        assert item.score == pytest.approx(best)


def cosine(a: list[float], b: list[float]) -> float:
    lengths = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


class Broken(Named):
    """Fails in the middle."""

    most = 12

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.embedded > self.most:
            raise RuntimeError("the service is down")
        return super().embed_documents(texts)


def test_reindexing_goes_on_where_it_was_left_off(db: lgkv.Database) -> None:
    old = filled(db)
    with pytest.raises(RuntimeError, match="down"):
        store_of(db, Broken("large")).reindex(batch_size=5)
    pending = db.vectors.reindexing()
    assert pending is not None
    assert pending.settings.model == "large"
    assert len(old.search(NS, query="ab", limit=50)) == 31
    done_before = pending.vectors
    assert 0 < done_before < 50
    again = Named("large")
    assert store_of(db, again).reindex(batch_size=5) < 30
    assert db.vectors.reindexing() is None
    assert db.vectors.count() == 50


def test_reindexing_with_another_model_begins_anew(db: lgkv.Database) -> None:
    filled(db)
    with pytest.raises(RuntimeError, match="down"):
        store_of(db, Broken("large")).reindex(batch_size=5)
    assert store_of(db, Named("other")).reindex(batch_size=8) == 30
    settings = db.vectors.settings()
    assert settings is not None
    assert settings.model == "other"


def test_reindexing_that_was_taken_over_says_so(db: lgkv.Database) -> None:
    filled(db)

    calls: list[int] = []

    class Overtaken(Named):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            calls.append(len(texts))
            if len(calls) == 3:
                store_of(db, Named("other")).reindex()
            return super().embed_documents(texts)

    with pytest.raises(lgkv.InvalidInputError, match="only one process"):
        store_of(db, Overtaken("large")).reindex(batch_size=3)
    settings = db.vectors.settings()
    assert settings is not None
    assert settings.model == "other"


def test_reindexing_refuses_what_it_cannot_use(db: lgkv.Database) -> None:
    with pytest.raises(lgkv.InvalidInputError, match="embed"):
        LgkvStore(db).reindex()
    assert store_of(db, Named("m")).reindex() == 0
    filled(db, 3)
    with pytest.raises(lgkv.InvalidInputError, match="batch_size"):
        store_of(db, Named("large")).reindex(batch_size=0)

    class Ragged(Named):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[1.0] * (2 + len(texts)) for _ in texts]

    with pytest.raises(lgkv.InvalidInputError, match="3 numbers for each"):
        store_of(db, Ragged("large")).reindex()
    assert len(store_of(db, Named("small")).search(NS, query="a")) == 4


def test_nothing_is_left_of_what_was_replaced(db: lgkv.Database) -> None:
    filled(db)
    store = store_of(db, Named("large"))
    store.reindex()
    for number in range(30):
        store.delete(NS, str(number))
    store.delete(NS, "plain")
    with db._connection.snapshot() as snapshot:
        kinds = [key[0] for key in snapshot.keys(lgkv.layout.Table.MEMORY, b"\x30", stop=b"\x3a")]
    assert kinds == [0x34, 0x37]


def test_vectors_that_all_go_end_the_reindexing(db: lgkv.Database) -> None:
    old = filled(db, 4)
    broken = Broken("large")
    broken.most = 3
    with pytest.raises(RuntimeError, match="down"):
        store_of(db, broken).reindex(batch_size=1)
    for number in range(4):
        old.delete(NS, str(number))
    three = store_of(db, Named("tiny", "abc"), dims=3)
    three.put(NS, "k", {"text": "ab"})
    assert db.vectors.reindexing() is None
    assert [item.key for item in three.search(NS, query="ab", limit=1)] == ["k"]
