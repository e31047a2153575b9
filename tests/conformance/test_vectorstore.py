"""LangChain's vector store: the standard suite, and what it does not ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import VectorStoreIntegrationTests

import lgkv
from lgkv.errors import EmbeddingMismatchError, FilterError, InvalidInputError
from lgkv.langgraph import LgkvStore, LgkvVectorStore


class TestLgkvVectorStore(VectorStoreIntegrationTests):
    """LangChain's own suite."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[LgkvVectorStore]:
        with lgkv.open(tmp_path / "agent.lgkv") as db:
            yield LgkvVectorStore(db, embedding=self.get_embeddings())


class Directions(Embeddings):
    """A text "30 ..." points 30 degrees from the first axis."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        angle = math.radians(float(text.split(maxsplit=1)[0]))
        return [math.cos(angle), math.sin(angle)]


TEXTS = ["0 east", "10 almost east", "80 almost north", "90 north"]
IDS = ["e", "ae", "an", "n"]
METADATAS = [
    {"axis": True, "n": n} if text in TEXTS[::3] else {"n": n} for n, text in enumerate(TEXTS)
]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[lgkv.Database]:
    with lgkv.open(tmp_path / "agent.lgkv") as opened:
        yield opened


@pytest.fixture
def store(db: lgkv.Database) -> LgkvVectorStore:
    return LgkvVectorStore.from_texts(TEXTS, Directions(), METADATAS, ids=IDS, db=db)


def ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def test_scores_are_cosine_similarities(store: LgkvVectorStore) -> None:
    found = store.similarity_search_with_score("0", k=3)
    assert [document.id for document, _ in found] == ["e", "ae", "an"]
    assert [score for _, score in found] == pytest.approx(
        [1, math.cos(math.radians(10)), math.cos(math.radians(80))]
    )
    assert found[0][0] == Document(page_content="0 east", metadata=METADATAS[0], id="e")


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({}, ["e", "ae", "an", "n"]),
        ({"axis": True}, ["e", "n"]),
        ({"n": {"$gte": 1}, "axis": {"$exists": False}}, ["ae", "an"]),
        ({"$or": [{"n": 0}, {"n": 2}]}, ["e", "an"]),
        ({"$not": {"n": 0}, "axis": True}, ["n"]),
    ],
)
async def test_filter_is_of_the_metadata(
    store: LgkvVectorStore, filter: dict[str, Any], expected: list[str]
) -> None:
    assert ids(store.similarity_search("0", filter=filter)) == expected
    assert ids(await store.asimilarity_search("0", filter=filter)) == expected
    assert ids(store.similarity_search_by_vector([1.0, 0.0], filter=filter)) == expected
    found = await store.asimilarity_search_by_vector([1.0, 0.0], 1, filter=filter)
    assert ids(found) == expected[:1]


def test_wrong_filter_is_refused(store: LgkvVectorStore) -> None:
    for wrong in (len, {"n": {"$regex": "x"}}):
        with pytest.raises(FilterError):
            store.similarity_search("0", filter=wrong)


async def test_variety_is_chosen_from_the_nearest(store: LgkvVectorStore) -> None:
    found = store.max_marginal_relevance_search("1", k=2, lambda_mult=0.3)
    assert ids(found) == ["e", "n"]
    assert ids(store.max_marginal_relevance_search("1", k=2, lambda_mult=1.0)) == ["e", "ae"]
    assert ids(store.max_marginal_relevance_search("1", k=2, fetch_k=2, lambda_mult=0.0)) == [
        "e", "ae",
    ]  # fmt: skip
    assert ids(await store.amax_marginal_relevance_search("1", k=2, lambda_mult=0.3)) == ["e", "n"]
    vector = Directions().embed_query("1")
    by_vector = store.max_marginal_relevance_search_by_vector(vector, k=2, lambda_mult=0.3)
    assert by_vector == found
    assert found == await store.amax_marginal_relevance_search_by_vector(
        vector, k=2, lambda_mult=0.3
    )
    kept = store.max_marginal_relevance_search("1", filter={"axis": True})
    assert set(ids(kept)) == {"e", "n"}


async def test_retriever_finds_by_likeness_variety_and_threshold(store: LgkvVectorStore) -> None:
    assert ids(store.as_retriever(search_kwargs={"k": 1}).invoke("0")) == ["e"]
    assert ids(await store.as_retriever(search_kwargs={"k": 1}).ainvoke("90")) == ["n"]
    varied = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.3})
    assert ids(varied.invoke("1")) == ["e", "n"]
    near = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9}
    )
    assert ids(near.invoke("0")) == ["e", "ae"]


class Elsewhere(Directions):
    """The same directions by another name."""

    model = "elsewhere"


async def test_another_model_is_not_searched_with(db: lgkv.Database) -> None:
    class Named(Directions):
        model = "named"

    LgkvVectorStore.from_texts(TEXTS, Named(), ids=IDS, db=db)
    other = LgkvVectorStore(db, embedding=Elsewhere())
    for search in (
        other.similarity_search,
        other.similarity_search_with_score,
        other.max_marginal_relevance_search,
    ):
        with pytest.raises(EmbeddingMismatchError, match="elsewhere"):
            search("0")
    with pytest.raises(EmbeddingMismatchError, match="elsewhere"):
        other.similarity_search_by_vector([1.0, 0.0])
    with pytest.raises(EmbeddingMismatchError, match="elsewhere"):
        await other.asimilarity_search("0")
    with pytest.raises(EmbeddingMismatchError, match="elsewhere"):
        await other.amax_marginal_relevance_search("0")
    assert ids(LgkvVectorStore(db, embedding=Named()).similarity_search("0", k=1)) == ["e"]


def test_relevance_falls_with_the_distance(db: lgkv.Database) -> None:
    index = {"embed": Directions(), "dims": 2, "fields": ["text"], "distance_type": "l2"}
    LgkvStore(db, index=index).put(("others",), "k", {"text": "5"})  # type: ignore[arg-type]
    store = LgkvVectorStore.from_texts(TEXTS, Directions(), ids=IDS, db=db)
    scored = store.similarity_search_with_relevance_scores("0")
    assert [document.id for document, _ in scored] == IDS
    assert [score for _, score in scored] == pytest.approx(
        [1 / (1 + 2 * math.sin(math.radians(angle / 2))) for angle in (0, 10, 80, 90)]
    )
    near = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.8}
    )
    assert ids(near.invoke("0")) == ["e", "ae"]


def test_products_have_no_relevance(db: lgkv.Database) -> None:
    index = {"embed": Directions(), "dims": 2, "fields": ["text"], "distance_type": "inner_product"}
    LgkvStore(db, index=index).put(("others",), "k", {"text": "5"})  # type: ignore[arg-type]
    store = LgkvVectorStore.from_texts(TEXTS, Directions(), ids=IDS, db=db)
    assert ids(store.similarity_search("0", k=2)) == ["e", "ae"]
    with pytest.raises(NotImplementedError, match="without a threshold"):
        store.similarity_search_with_relevance_scores("0")


def test_ids_may_be_given_in_part(store: LgkvVectorStore) -> None:
    added = store.add_documents([Document("45 here", id="here"), Document("46 there")])
    assert added[0] == "here"
    assert len(added[1]) == 36
    assert ids(store.get_by_ids([added[1], "nobody", "here"])) == [added[1], "here"]
    store.add_texts(["47 moved"], ids=["here"])
    assert store.get_by_ids(["here"]) == [Document("47 moved", id="here")]
    with pytest.raises(InvalidInputError, match="1 ids for 2 texts"):
        store.add_texts(["1", "2"], ids=["1"])
    with pytest.raises(InvalidInputError, match="3 metadatas for 2 texts"):
        store.add_texts(["1", "2"], [{}, {}, {}])


async def test_delete_without_ids_deletes_all(store: LgkvVectorStore) -> None:
    assert store.delete() is True
    assert store.similarity_search("0") == []
    await store.aadd_texts(TEXTS, ids=IDS)
    assert await store.adelete(["e"]) is True
    assert ids(await store.aget_by_ids(IDS)) == ["ae", "an", "n"]
    assert await store.adelete() is True
    assert await store.aget_by_ids(IDS) == []


async def test_texts_make_a_store_async(db: lgkv.Database) -> None:
    store = await LgkvVectorStore.afrom_texts(TEXTS, Directions(), ids=IDS, db=db)
    assert ids(await store.asimilarity_search("90", k=1)) == ["n"]
    with pytest.raises(InvalidInputError, match="db is missing"):
        LgkvVectorStore.from_texts(TEXTS, Directions())


def test_words_find_without_an_embedding(db: lgkv.Database) -> None:
    store = LgkvVectorStore(db, mode="keyword")
    store.add_texts(TEXTS, METADATAS, ids=IDS)
    assert store.embeddings is None
    assert ids(store.similarity_search("almost", filter={"n": 2})) == ["an"]
    assert store.similarity_search("nothing") == []
    with pytest.raises(InvalidInputError, match="needs an embedding"):
        store.max_marginal_relevance_search("almost")
    with pytest.raises(NotImplementedError, match="without a threshold"):
        store.similarity_search_with_relevance_scores("almost")


def test_hybrid_finds_by_both(db: lgkv.Database) -> None:
    store = LgkvVectorStore(db, embedding=Directions(), mode="hybrid")
    store.add_texts(TEXTS, ids=IDS)
    assert ids(store.similarity_search("85 almost")) == ["an", "ae", "n", "e"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "fuzzy"}, "mode is 'fuzzy'"),
        ({}, "embedding is None"),
        ({"embedding": len}, "give LangChain Embeddings"),
    ],
)
def test_wrong_options_are_refused(db: lgkv.Database, options: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        LgkvVectorStore(db, **options)


def test_documents_are_items_of_the_store(db: lgkv.Database, store: LgkvVectorStore) -> None:
    item = LgkvStore(db).get(("documents",), "e")
    assert item is not None
    assert item.value == {"text": "0 east", "metadata": METADATAS[0]}
    db.memory.put(("documents",), "foreign", {"a": 1}, vectors=[1.0, 0.0])
    with pytest.raises(InvalidInputError, match="is no document"):
        store.similarity_search("0")


def test_store_opens_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "own.lgkv"
    with LgkvVectorStore.from_conn_string(path, embedding=Directions()) as store:
        store.add_texts(TEXTS, ids=IDS)
    with LgkvVectorStore.from_conn_string(path, embedding=Directions(), mode="r") as store:
        assert ids(store.similarity_search("0", k=1)) == ["e"]
