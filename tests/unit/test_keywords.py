"""The keyword index against BM25 computed from scratch, and how it goes with vectors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lgkv
from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keywords import K1, MANY_NODES, B, count_words, words_of
from lgkv.layout import Kind, Table
from lgkv.memory import Put
from lgkv.memory.view import FUSED
from lgkv.writer import Change

NS = ("docs",)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[lgkv.Database]:
    with lgkv.open(tmp_path / "agent.lgkv") as opened:
        yield opened


def left(db: lgkv.Database) -> set[str]:
    """Return the kinds of records that the keyword index has."""
    with db._connection.snapshot() as snapshot:
        return {
            Kind(key[0]).name
            for table in (Table.MEMORY, Table.INDEX)
            for key in snapshot.keys(table, b"", start=b"\x00", stop=b"\xff")
            if key[0] in (Kind.TERMS, Kind.TERM_COUNTS, Kind.POSTING)
        }


# --- words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("?! -- 😀", []),
        ("The cat, the CAT.", ["the", "cat", "the", "cat"]),
        ("can't 3.14 e-mail foo_bar", ["can't", "3.14", "e", "mail", "foo_bar"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ﬁne ①", ["fine", "1"]),
        ("e\u0301te\u0301 été", ["été", "été"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("東京タワー", ["東", "京", "タワー"]),
        ("한국어 형태소", ["한국어", "형태소"]),
        ("a\x00b\ud800c", ["a", "b", "c"]),
    ],
)
def test_words_are_those_of_unicode(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_words_of_several_texts_count_together() -> None:
    assert count_words(["a b", "b"]) == {"a": 1, "b": 2}
    for wrong in (5, ["a", 5], {"a": 1}):
        with pytest.raises(InvalidInputError, match="a str or a list"):
            count_words(wrong)  # type: ignore[arg-type]


# --- BM25 ----------------------------------------------------------------------------------


def bm25(documents: dict[Any, list[str]], query: list[str]) -> dict[Any, float]:
    """Return the scores of documents that have a word of the query, straight from the formula."""
    documents = {place: words for place, words in documents.items() if words}
    scores: dict[Any, float] = {}
    for word in set(query):
        holding = [place for place, words in documents.items() if word in words]
        for place in holding:
            words = documents[place]
            mean = sum(map(len, documents.values())) / len(documents)
            idf = math.log(1 + (len(documents) - len(holding) + 0.5) / (len(holding) + 0.5))
            count = Counter(words)[word]
            tf = count * (K1 + 1) / (count + K1 * (1 - B + B * len(words) / mean))
            scores[place] = scores.get(place, 0.0) + idf * tf
    return scores


WORDS = st.sampled_from(["ape", "bee", "cat", "dog", "eel", "x" * 250, "x" * 250 + "y"])
TEXTS = st.lists(WORDS, max_size=6)
PLACES = st.tuples(
    st.sampled_from([("a",), ("a", "b"), ("ab",)]), st.sampled_from(["k1", "k2", "k" * 300])
)
STEPS = st.lists(
    st.tuples(PLACES, st.sampled_from(["put", "put", "put", "delete", "wordless"]), TEXTS),
    min_size=1,
    max_size=12,
)


@pytest.mark.timeout(300)
def test_search_by_words_is_bm25_over_the_prefix(tmp_path: Path) -> None:
    with lgkv.open(tmp_path / "a.lgkv") as db:

        @settings(max_examples=150)
        @given(STEPS, TEXTS, st.sampled_from([(), ("a",), ("a", "b"), ("ab",), ("b",)]))
        def check(steps: list[Any], query: list[str], prefix: tuple[str, ...]) -> None:
            documents: dict[Any, list[str]] = {}
            for number, (place, what, words) in enumerate(steps):
                documents.pop(place, None)
                if what == "delete":
                    db.memory.delete(*place)
                    continue
                text = " ".join(words).upper() if what == "put" else None
                db.memory.put(*place, {"n": number}, text=text)
                documents[place] = words if what == "put" else []
            below = {p: words for p, words in documents.items() if p[0][: len(prefix)] == prefix}
            found = db.memory.search(prefix, text=" ".join(query), limit=100)
            expected = bm25(below, query)
            assert {(item.namespace, item.key) for item in found} == expected.keys()
            scores = [item.score for item in found]
            assert scores == pytest.approx([expected[i.namespace, i.key] for i in found])
            assert scores == sorted(scores, key=lambda score: -(score or 0))
            assert [item.parts for item in found] == [{"keyword": score} for score in scores]
            for place in documents:
                db.memory.delete(*place)
            assert left(db) == set()

        check()


def test_many_namespaces_are_searched_as_few_are(db: lgkv.Database) -> None:
    texts = {(f"n{n}",): ["apple"] * (n % 3) + ["pear"] * n for n in range(MANY_NODES + 9)}
    db.memory.put_many(
        Put(("all", *space), "k", {}, text=" ".join(words)) for space, words in texts.items()
    )
    db.memory.put(("other",), "k", {}, text="apple")
    found = db.memory.search(("all",), text="apple", limit=1000)
    expected = bm25(texts, ["apple"])
    assert {item.namespace[1:]: item.score for item in found} == pytest.approx(expected)


def test_filter_page_and_order_of_equals(db: lgkv.Database) -> None:
    for number in range(20):
        db.memory.put(NS, str(number), {"n": number}, text="same words")
    found = db.memory.search(NS, text="words", filter={"n": {"$lt": 15}}, limit=3, offset=2)
    assert [item.key for item in found] == ["12", "11", "10"]
    assert db.memory.search(NS, text="nothing like it") == []
    assert db.memory.search(NS, text="") == []
    assert db.memory.search(("nobody",), text="words") == []


def test_what_is_gone_is_not_found_by_its_words(db: lgkv.Database) -> None:
    clock = [1_000_000_000]
    db.memory.clock = lambda: clock[0]
    for key in ("put", "replaced", "wordless", "deleted"):
        db.memory.put(NS, key, {}, text="apple")
    db.memory.put(NS, "expired", {}, text="apple", ttl_seconds=1)
    db.memory.put(NS, "replaced", {}, text="pear")
    db.memory.put(NS, "wordless", {})
    db.memory.delete(NS, "deleted")
    clock[0] += 2_000_000
    assert [item.key for item in db.memory.search((), text="apple")] == ["put"]
    with db.memory.view(omit_expired=False) as view:
        assert len(view.search((), text="apple")) == 2
    assert db.memory.sweep() == 1
    with db.memory.view(omit_expired=False) as view:
        assert [item.key for item in view.search((), text="apple pear")] == ["replaced", "put"]
    db.memory.delete(NS, "put")
    db.memory.delete(NS, "replaced")
    assert left(db) == set()


def test_index_survives_reopening_and_other_handles_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lgkv"
    with lgkv.open(path) as db:
        db.memory.put(NS, "one", {}, text="apple pie")
    with lgkv.open(path) as db, lgkv.open(path) as other:
        other.memory.put(NS, "two", {}, text="apple")
        assert [item.key for item in db.memory.search((), text="apple")] == ["two", "one"]


# --- modes ---------------------------------------------------------------------------------


def test_hybrid_fuses_both_rankings_and_says_the_parts(db: lgkv.Database) -> None:
    db.memory.put(NS, "both", {}, vectors=[1, 0.1], text="red apple")
    db.memory.put(NS, "near", {}, vectors=[1, 0], text="green pear")
    db.memory.put(NS, "said", {}, text="apple apple")
    db.memory.put(NS, "none", {})
    found = db.memory.search((), vector=[1, 0], text="apple")
    assert [item.key for item in found] == ["both", "said", "near"]
    both, said, near = found
    assert both.score == pytest.approx(1 / 62 + 1 / 62)
    assert said.score == near.score == pytest.approx(1 / 61)
    assert both.parts is not None
    assert both.parts.keys() == {"keyword", "vector"}
    assert both.parts["vector"] == pytest.approx(1 / math.hypot(1, 0.1))
    assert (near.parts, list(said.parts or ())) == ({"vector": 1.0}, ["keyword"])
    page = [db.memory.search((), vector=[1, 0], text="apple", limit=1, offset=n) for n in range(4)]
    assert [item for one in page for item in one] == found
    kept = db.memory.search((), vector=[1, 0], text="apple", filter={"n": {"$exists": True}})
    assert kept == []


def test_mode_chooses_among_what_is_given(db: lgkv.Database) -> None:
    db.memory.put(NS, "near", {}, vectors=[1, 0], text="pear")
    db.memory.put(NS, "said", {}, vectors=[0, 1], text="apple")
    query: dict[str, Any] = {"vector": [1, 0], "text": "apple"}
    by_vector = db.memory.search((), mode="vector", **query)
    assert (by_vector[0].key, by_vector[0].parts) == ("near", {"vector": 1.0})
    assert [item.key for item in db.memory.search((), mode="keyword", **query)] == ["said"]
    assert len(db.memory.search((), mode="hybrid", **query)) == 2
    assert db.memory.search(())[0].parts is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "fuzzy"}, "unknown mode 'fuzzy'"),
        ({"mode": "keyword"}, r"needs text="),
        ({"mode": "vector", "text": "a"}, r"needs vector="),
        ({"mode": "hybrid", "text": "a"}, r"needs vector="),
        ({"mode": "hybrid", "vector": [1.0]}, r"needs text="),
        ({"text": 5}, "give a str"),
    ],
)
def test_wrong_mode_is_refused(db: lgkv.Database, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        db.memory.search((), **options)


def test_fusion_takes_so_many_of_each(db: lgkv.Database) -> None:
    db.memory.put_many(Put(NS, f"w{n}", {}, text="apple " * (n + 1)) for n in range(FUSED + 50))
    db.memory.put_many(Put(NS, f"v{n}", {}, [1.0, n]) for n in range(FUSED + 50))
    found = db.memory.search((), vector=[1, 0], text="apple", limit=1000)
    assert len(found) == 2 * FUSED


# --- damage --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "table", "body"),
    [
        (Kind.POSTING, Table.INDEX, b"\x00" * 7),
        (Kind.TERM_COUNTS, Table.MEMORY, b"\x01" * 15),
        (Kind.TERMS, Table.MEMORY, b"\xff"),
        (Kind.TERMS, Table.MEMORY, b"\x01"),
    ],
)
def test_damaged_record_is_named(db: lgkv.Database, kind: Kind, table: Table, body: bytes) -> None:
    db.memory.put(NS, "k", {}, text="apple")
    with db._connection.snapshot() as snapshot:
        key = next(snapshot.keys(table, bytes((kind,))))
    db._connection.commit(Change(lambda batch: batch.put(table, key, body)))

    def use() -> None:
        db.memory.search((), text="apple")
        db.memory.put(NS, "k", {}, text="pear")

    with pytest.raises(CorruptionError) as caught:
        use()
    assert (caught.value.database, caught.value.key) == (table.label, key)
