"""LangChain's vector store on `db.memory`: documents of one namespace, sync and async.

A document is an item: its id is the key, its value `{"text": ..., "metadata": {...}}`. So
what a retriever finds is the same record that `db.memory` and a LangGraph store read.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from lgkv.database import Database
from lgkv.errors import FilterError, InvalidInputError
from lgkv.langgraph._embedding import vector_config
from lgkv.langgraph._opening import Opening, checked
from lgkv.memory import Put, StoredItem
from lgkv.vectors import IndexConfig
from lgkv.writer import Change

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LgkvVectorStore"]

DELETED_AT_ONCE: Final = 1000
"""The most documents that one commit deletes, of those that are not named."""

MODES: Final = ("vector", "hybrid", "keyword")


class LgkvVectorStore(Opening, VectorStore):
    """A LangChain vector store on an lgkv file, usable sync and async, from any thread.

    `namespace` holds the documents and nothing else, nor does any below it. `mode` is
    "vector", "hybrid" (by words as well) or "keyword" (by words alone, without `embedding`). A
    `filter` of a search is a mapping, as for `db.memory.search`, and is tried on the metadata.
    What is added is durable when the call returns.

    Raises:
        InvalidInputError: `mode` is none of these, or needs the `embedding` that is missing.
    """

    def __init__(
        self,
        db: Database,
        *,
        embedding: Embeddings | None = None,
        namespace: tuple[str, ...] = ("documents",),
        mode: str = "vector",
    ) -> None:
        if mode not in MODES:
            raise InvalidInputError(f"mode is {mode!r}: use 'vector', 'hybrid' or 'keyword'")
        if mode != "keyword" and not isinstance(embedding, Embeddings):
            raise InvalidInputError(
                f"embedding is {embedding!r}: give LangChain Embeddings, or search by words alone "
                "with mode='keyword'"
            )
        self._db, self._namespace, self._mode = checked(db), namespace, mode
        self._embedding = None if mode == "keyword" else embedding

    @property
    def embeddings(self) -> Embeddings | None:
        """What embeds texts; None where they are found by their words alone."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        db: Database | None = None,
        **options: Any,
    ) -> Self:
        """Return a store on `db` to which these texts were added."""
        store = cls._on(db, embedding, options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        db: Database | None = None,
        **options: Any,
    ) -> Self:
        """Return what `from_texts` does."""
        store = cls._on(db, embedding, options)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def _on(cls, db: Database | None, embedding: Embeddings, options: dict[str, Any]) -> Self:
        if db is None:
            raise InvalidInputError("db is missing: pass db=lgkv.open(path)")
        return cls(db, embedding=embedding, **options)

    # --- writing ---

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_options: Any,
    ) -> list[str]:
        """Store texts in one commit and return their ids; an id that is there is replaced.

        Raises:
            InvalidInputError: There are not as many metadatas or ids as texts.
        """
        contents = list(texts)
        vectors = None if self._embedding is None else self._embedding.embed_documents(contents)
        keys, change = self._added(contents, metadatas, ids, vectors)
        self._db.commit(change)
        return keys

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_options: Any,
    ) -> list[str]:
        """Do what `add_texts` does; the event loop never waits for the disk."""
        contents = list(texts)
        vectors = None
        if self._embedding is not None:
            vectors = await self._embedding.aembed_documents(contents)
        keys, change = self._added(contents, metadatas, ids, vectors)
        await asyncio.wrap_future(self._db.submit(change))
        return keys

    def _added(
        self,
        texts: list[str],
        metadatas: list[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
        vectors: list[list[float]] | None,
    ) -> tuple[list[str], Change[None]]:
        for what, given in (("metadatas", metadatas), ("ids", ids), ("vectors", vectors)):
            if given is not None and len(given) != len(texts):
                raise InvalidInputError(
                    f"there are {len(given)} {what} for {len(texts)} texts: give one each"
                )
        keys = [each or str(uuid.uuid4()) for each in ids or [None] * len(texts)]
        puts = [
            Put(
                self._namespace,
                key,
                {"text": text, "metadata": (metadatas[number] if metadatas else None) or {}},
                None if vectors is None else {"text": vectors[number]},
                None,
                None if self._mode == "vector" else text,
            )
            for number, (key, text) in enumerate(zip(keys, texts, strict=True))
        ]
        return keys, self._db.memory.change(puts, (), self._config())

    def _config(self) -> IndexConfig:
        """Return what is known of the embedding, which must be that of the file's vectors."""
        return vector_config({}, self._embedding)

    def delete(self, ids: Sequence[str] | None = None, **_options: Any) -> bool:
        """Delete these documents in one commit, those that are there; all of them for None."""
        if ids is not None:
            self._db.commit(self._deleted(ids))
            return True
        while found := self._some_ids():
            self._db.commit(self._deleted(found))
        return True

    async def adelete(self, ids: Sequence[str] | None = None, **_options: Any) -> bool:
        """Do what `delete` does; the event loop never waits for the disk."""
        if ids is not None:
            await asyncio.wrap_future(self._db.submit(self._deleted(ids)))
            return True
        while found := self._some_ids():
            await asyncio.wrap_future(self._db.submit(self._deleted(found)))
        return True

    def _deleted(self, ids: Sequence[str]) -> Change[None]:
        return self._db.memory.change([Put(self._namespace, each, None) for each in ids])

    def _some_ids(self) -> list[str]:
        with self._db.memory.view(omit_expired=False) as view:
            found = view.search(self._namespace, limit=DELETED_AT_ONCE)
        return [item.key for item in found if item.namespace == self._namespace]

    # --- reading ---

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, without those that are not there."""
        with self._db.memory.view() as view:
            found = [view.get(self._namespace, each) for each in ids]
        return [_document(item) for item in found if item is not None]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return what `get_by_ids` does."""
        return self.get_by_ids(ids)

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """Return the `k` documents that go best with `query`, best first."""
        return [found for found, _ in self.similarity_search_with_score(query, k, **options)]

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """Return what `similarity_search` does."""
        scored = await self.asimilarity_search_with_score(query, k, **options)
        return [found for found, _ in scored]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the `k` best documents with their scores, of which higher is better.

        By vector that is the cosine similarity, or what else the file's vectors are compared by;
        by words BM25, by both the fused ranks'.

        Raises:
            EmbeddingMismatchError: The file's vectors are of another embedding model.
        """
        vector = None if self._embedding is None else self._embedding.embed_query(query)
        return self._scored(query, vector, k, **options)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return what `similarity_search_with_score` does."""
        vector = None if self._embedding is None else await self._embedding.aembed_query(query)
        return self._scored(query, vector, k, **options)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[Document]:
        """Return the `k` documents nearest to a vector, nearest first."""
        return [found for found, _ in self._scored(None, embedding, k, **options)]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[Document]:
        """Return what `similarity_search_by_vector` does."""
        return self.similarity_search_by_vector(embedding, k, **options)

    def _scored(
        self,
        query: str | None,
        vector: Any,
        k: int,
        *,
        filter: Mapping[str, Any] | None = None,
        **_options: Any,
    ) -> list[tuple[Document, float]]:
        with self._db.memory.view() as view:
            found = view.search(
                self._namespace,
                filter=_on_metadata(filter),
                vector=vector,
                text=None if self._mode == "vector" else query,
                limit=k,
                config=self._config(),
            )
        return [(_document(item), item.score) for item in found if item.score is not None]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._mode != "vector":
            raise NotImplementedError(
                f"scores of mode={self._mode!r} have no bound: search without a threshold"
            )
        settings = self._db.vectors.settings()
        metric = "cosine" if settings is None else settings.metric
        if metric == "inner_product":
            raise NotImplementedError(
                "scores by inner product have no bound: search without a threshold"
            )
        if metric == "l2":
            return lambda score: 1 / (1 - score)  # the score is the negative distance
        return lambda score: min(max(0.0, score), 1.0)

    # --- maximal marginal relevance ---

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """Return `k` documents that go well with `query` and are unlike each other.

        They are chosen from the `fetch_k` nearest; `lambda_mult` is 1 for likeness to the query
        alone and 0 for variety alone.
        """
        vector = self._embedder().embed_query(query)
        return self._varied(vector, k, fetch_k, lambda_mult, **options)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """Return what `max_marginal_relevance_search` does."""
        vector = await self._embedder().aembed_query(query)
        return self._varied(vector, k, fetch_k, lambda_mult, **options)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """Return what `max_marginal_relevance_search` does for a query of this vector."""
        return self._varied(embedding, k, fetch_k, lambda_mult, **options)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """Return what `max_marginal_relevance_search_by_vector` does."""
        return self._varied(embedding, k, fetch_k, lambda_mult, **options)

    def _varied(
        self,
        vector: Any,
        k: int,
        fetch_k: int,
        lambda_mult: float,
        *,
        filter: Mapping[str, Any] | None = None,
        **_options: Any,
    ) -> list[Document]:
        with self._db.memory.view() as view:
            found = view.search(
                self._namespace,
                filter=_on_metadata(filter),
                vector=vector,
                limit=fetch_k,
                config=self._config(),
            )
            rows = [view.vectors(item.namespace, item.key) for item in found]
        near = [
            (item, row[0].tolist())
            for item, row in zip(found, rows, strict=True)
            if row is not None
        ]
        chosen = maximal_marginal_relevance(
            np.asarray(vector, dtype=np.float32), [row for _, row in near], lambda_mult, k
        )
        return [_document(near[number][0]) for number in chosen]

    def _embedder(self) -> Embeddings:
        if self._embedding is None:
            raise InvalidInputError("a search for variety needs an embedding: use another mode")
        return self._embedding


def _document(item: StoredItem) -> Document:
    text, metadata = item.value.get("text"), item.value.get("metadata")
    if not isinstance(text, str) or not isinstance(metadata, dict):
        raise InvalidInputError(
            f"the item {item.key!r} in {item.namespace!r} is no document: give the documents a "
            "namespace of their own"
        )
    return Document(page_content=text, metadata=metadata, id=item.key)


def _on_metadata(filter: Any) -> dict[str, Any] | None:
    """Return the filter of items for one of metadata."""
    if filter is None:
        return None
    if not isinstance(filter, Mapping):
        raise FilterError(f"a filter is a mapping of fields to conditions, not {filter!r}")
    parts = [{"metadata": {name: condition}} for name, condition in filter.items()]
    return {"$and": parts} if parts else None
