"""Use semantic search: find memories by meaning, and choose what of them is embedded."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore, IndexConfig

from conversations import user
from hash_embeddings import HashEmbeddings
from lgkv.langgraph import LgkvStore
from lgkv.langgraph.aio import AsyncLgkvStore
from rule_model import RuleChatModel

MEMORIES = ("user_123", "memories")
DINNER = {"food_preference": "I love Italian cuisine", "context": "Discussing a train journey"}


def index(embeddings: HashEmbeddings, *fields: str) -> IndexConfig:
    """Return an index over *fields*, or over the whole value if none are given."""
    whole: IndexConfig = {"dims": embeddings.dims, "embed": embeddings}
    return {**whole, "fields": list(fields)} if fields else whole


@pytest.fixture
def store(path: str, embeddings: HashEmbeddings) -> Iterator[LgkvStore]:
    """Give a store with the two memories of the document; the file was reopened after them."""
    with LgkvStore.from_conn_string(path, index=index(embeddings)) as writing:
        writing.put(MEMORIES, "1", {"text": "I love pizza"})
        writing.put(MEMORIES, "2", {"text": "I am a plumber"})
    with LgkvStore.from_conn_string(path, index=index(embeddings)) as reading:
        yield reading


def test_the_nearest_memory_comes_first(store: LgkvStore) -> None:
    (nearest,) = store.search(MEMORIES, query="I'm hungry", limit=1)
    assert nearest.value == {"text": "I love pizza"}
    assert nearest.score is not None

    job = store.search(MEMORIES, query="what is my job?")
    assert [item.key for item in job] == ["2", "1"]
    scores = [item.score for item in job]
    assert None not in scores
    assert 1 >= scores[0] > scores[1] >= -1


async def test_the_nearest_memory_comes_first_on_the_event_loop(
    path: str, embeddings: HashEmbeddings
) -> None:
    async with AsyncLgkvStore.from_conn_string(path, index=index(embeddings)) as store:
        await store.aput(MEMORIES, "1", {"text": "I love pizza"})
        await store.aput(MEMORIES, "2", {"text": "I am a plumber"})

    async with AsyncLgkvStore.from_conn_string(path, index=index(embeddings)) as store:
        (nearest,) = await store.asearch(MEMORIES, query="I'm hungry", limit=1)
        assert nearest.value == {"text": "I love pizza"}


def chat_builder_with_memories(model: RuleChatModel) -> StateGraph:
    """Return a chat graph that looks for memories near to what the user says."""

    def chat(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        items = store.search(MEMORIES, query=str(state["messages"][-1].content), limit=2)
        system = "\n".join(["## Memories of user", *(item.value["text"] for item in items)])
        asked = [{"role": "system", "content": system}, *state["messages"]]
        return {"messages": [model.invoke(asked)]}

    return StateGraph(MessagesState).add_node(chat).add_edge(START, "chat")


def test_a_graph_answers_from_the_memory_it_finds(store: LgkvStore, model: RuleChatModel) -> None:
    graph = chat_builder_with_memories(model).compile(store=store)

    streamed = list(graph.stream(user("I'm hungry"), stream_mode="messages"))

    answer = "".join(message.content for message, _ in streamed)
    assert answer == "I remember that you love pizza. How about that now?"
    assert len(streamed) > 1
    assert {metadata["langgraph_node"] for _, metadata in streamed} == {"chat"}


async def test_a_graph_answers_from_the_memory_it_finds_on_the_event_loop(
    store: LgkvStore, model: RuleChatModel
) -> None:
    async def chat(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        said = str(state["messages"][-1].content)
        items = await store.asearch(MEMORIES, query=said, limit=2)
        system = "\n".join(["## Memories of user", *(item.value["text"] for item in items)])
        asked = [{"role": "system", "content": system}, *state["messages"]]
        return {"messages": [await model.ainvoke(asked)]}

    graph = StateGraph(MessagesState).add_node(chat).add_edge(START, "chat").compile(store=store)
    answer = await graph.ainvoke(user("I'm hungry"))

    assert answer["messages"][-1].content == "I remember that you love pizza. How about that now?"


def test_memories_are_found_by_a_field_or_by_the_whole_value(
    path: str, embeddings: HashEmbeddings
) -> None:
    with LgkvStore.from_conn_string(path, index=index(embeddings, "food_preference", "$")) as store:
        store.put(MEMORIES, "food", {"food_preference": "I like pizza"})
        store.put(MEMORIES, "job", {"profession": "I am a plumber"})

        food = store.search(MEMORIES, query="What does the user like to eat?", limit=3)
        assert [item.key for item in food] == ["food", "job"]
        job = store.search(MEMORIES, query="What is the profession of the user?", limit=3)
        assert [item.key for item in job] == ["job", "food"]


def test_only_the_configured_field_is_embedded(path: str, embeddings: HashEmbeddings) -> None:
    with LgkvStore.from_conn_string(path, index=index(embeddings, "food_preference")) as store:
        store.put(MEMORIES, "dinner", DINNER)
        store.put(MEMORIES, "trip", {"note": DINNER["context"]})

        by_food, without = store.search(MEMORIES, query=DINNER["food_preference"])
        assert (by_food.key, by_food.score) == ("dinner", pytest.approx(1.0, abs=1e-5))
        assert (without.key, without.score) == ("trip", None)
        by_context = store.search(MEMORIES, query=DINNER["context"])[0]
        assert by_context.score is not None
        assert by_context.score < 0.5


def test_a_put_can_choose_the_fields_to_embed(path: str, embeddings: HashEmbeddings) -> None:
    key = str(uuid.uuid4())
    with LgkvStore.from_conn_string(path, index=index(embeddings, "$")) as store:
        store.put(MEMORIES, key, DINNER, index=["food_preference"])

    with LgkvStore.from_conn_string(path, index=index(embeddings, "$")) as store:
        (by_food,) = store.search(MEMORIES, query="I love Italian cuisine")
        assert by_food.score == pytest.approx(1.0, abs=1e-5)
        (by_context,) = store.search(MEMORIES, query="Discussing a train journey")
        assert by_context.score is not None
        assert by_context.score < 0.5

        store.put(MEMORIES, key, DINNER, index=["context"])
        (by_context,) = store.search(MEMORIES, query="Discussing a train journey")
        assert by_context.score == pytest.approx(1.0, abs=1e-5)


def test_a_memory_put_without_an_index_is_retrievable_and_never_a_match(
    path: str, embeddings: HashEmbeddings
) -> None:
    system_info = {"system_info": "Last updated: 2024-01-01"}
    with LgkvStore.from_conn_string(path, index=index(embeddings, "$")) as store:
        store.put(MEMORIES, "info", system_info, index=False)
        store.put(MEMORIES, "food", {"food_preference": "I like pizza"})

        found = store.search(MEMORIES, query="Last updated: 2024-01-01")
        assert [(item.key, item.score is None) for item in found] == [
            ("food", False),
            ("info", True),
        ]
        assert [item.key for item in store.search(MEMORIES, query="updated", limit=1)] == ["food"]
        item = store.get(MEMORIES, "info")
        assert item is not None
        assert item.value == system_info
        assert {item.key for item in store.search(MEMORIES)} == {"info", "food"}


async def test_a_put_can_choose_what_is_embedded_on_the_event_loop(
    path: str, embeddings: HashEmbeddings
) -> None:
    async with AsyncLgkvStore.from_conn_string(path, index=index(embeddings, "$")) as store:
        await store.aput(MEMORIES, "dinner", DINNER, index=["food_preference"])
        await store.aput(MEMORIES, "info", {"system_info": "Last updated"}, index=False)

        found = await store.asearch(MEMORIES, query="I love Italian cuisine")
        assert [item.key for item in found] == ["dinner", "info"]
        assert found[0].score == pytest.approx(1.0, abs=1e-5)
        assert found[1].score is None
