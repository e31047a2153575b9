"""What a type checker sees of the LangGraph classes; mypy reads this, nothing runs it."""

from collections.abc import AsyncIterator, Iterator, Sequence

from langchain_core.runnables import RunnableConfig
from langgraph.cache.base import BaseCache
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.graph import MessagesState, StateGraph
from langgraph.store.base import BaseStore, Item, SearchItem
from typing_extensions import assert_type

import lgkv
from lgkv.langgraph import LgkvCache, LgkvSaver, LgkvStore
from lgkv.langgraph.aio import AsyncLgkvSaver, AsyncLgkvStore


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Stand in for an embedding model."""
    return [[float(len(text))] for text in texts]


def compile_with_all_three(builder: StateGraph[MessagesState], db: lgkv.Database) -> None:
    """Each class is what LangGraph takes in its place."""
    saver: BaseCheckpointSaver[str] = LgkvSaver(db)
    store: BaseStore = LgkvStore(db, index={"dims": 1, "embed": embed, "fields": ["text"]})
    cache: BaseCache[object] = LgkvCache(db)
    builder.compile(checkpointer=saver, store=store, cache=cache)
    builder.compile(checkpointer=LgkvSaver(db), store=LgkvStore(db), cache=LgkvCache(db))
    LgkvSaver("agent.lgkv")  # type: ignore[arg-type]


def read(saver: LgkvSaver, store: LgkvStore, config: RunnableConfig) -> None:
    """What is read has LangGraph's types."""
    assert_type(saver.get_tuple(config), CheckpointTuple | None)
    assert_type(saver.list(None, limit=10), Iterator[CheckpointTuple])
    assert_type(saver.alist(config), AsyncIterator[CheckpointTuple])
    assert_type(store.get(("facts",), "tea"), Item | None)
    assert_type(store.search(("facts",), query="tea"), list[SearchItem])


def open_by_path() -> None:
    """`from_conn_string` gives the class itself, which is a context manager too."""
    assert_type(LgkvSaver.from_conn_string("agent.lgkv", durability="interval"), LgkvSaver)
    assert_type(LgkvStore.from_conn_string("agent.lgkv"), LgkvStore)
    with LgkvSaver.from_conn_string("agent.lgkv") as saver:
        assert_type(saver, LgkvSaver)
    with LgkvStore.from_conn_string("agent.lgkv", index=None) as store:
        assert_type(store, LgkvStore)


async def open_by_path_async() -> None:
    """The same with `async with`, under the names of the other packages as well."""
    async with LgkvSaver.from_conn_string("agent.lgkv") as saver:
        assert_type(saver, LgkvSaver)
    async with AsyncLgkvSaver.from_conn_string("agent.lgkv") as async_saver:
        assert_type(async_saver, LgkvSaver)
    async with AsyncLgkvStore.from_conn_string("agent.lgkv") as async_store:
        assert_type(async_store, AsyncLgkvStore)
