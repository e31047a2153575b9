"""Manage short-term memory: trim, delete and summarise the messages of a thread."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import AnyMessage, HumanMessage, RemoveMessage
from langchain_core.messages.utils import count_tokens_approximately, trim_messages
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from conversations import asay, say, texts, thread, user
from lgkv import UnregisteredTypeError
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver
from rule_model import RuleChatModel

ONE = thread("1")
TALK = ("hi, my name is bob", "write a short poem about cats", "now do the same with dogs")


def trimmed(messages: list[AnyMessage], max_tokens: int) -> list[AnyMessage]:
    """Return the end of the conversation that fits, from a user's message on."""
    return trim_messages(
        messages,
        strategy="last",
        token_counter=count_tokens_approximately,
        max_tokens=max_tokens,
        start_on="human",
        end_on=("human", "tool"),
    )


def trimming_builder(
    model: RuleChatModel, max_tokens: int, seen: list[list[AnyMessage]]
) -> StateGraph:
    """Return a chat graph whose model gets the trimmed conversation, noted in *seen*."""

    def call_model(state: MessagesState) -> dict[str, Any]:
        seen.append(trimmed(state["messages"], max_tokens))
        return {"messages": [model.invoke(seen[-1])]}

    return StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")


def test_trimming_limits_what_the_model_gets_and_not_what_is_kept(
    path: str, model: RuleChatModel
) -> None:
    seen: list[list[AnyMessage]] = []
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = trimming_builder(model, 60, seen).compile(checkpointer=checkpointer)
        for text in TALK:
            say(graph, text, ONE)

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = trimming_builder(model, 60, seen).compile(checkpointer=checkpointer)
        answer = say(graph, "what's my name?", ONE)
        kept = graph.get_state(ONE).values["messages"]

    assert len(kept) == 8
    assert texts(kept)[0] == TALK[0]
    assert texts(seen[-1])[-1] == "what's my name?"
    assert TALK[0] not in texts(seen[-1])
    assert "Bob" not in answer


def test_a_wide_enough_trim_keeps_the_name(path: str, model: RuleChatModel) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = trimming_builder(model, 500, []).compile(checkpointer=checkpointer)
        answers = [say(graph, text, ONE) for text in (*TALK, "what's my name?")]

    assert answers[-1] == "Your name is Bob."


def forgetting_builder(model: RuleChatModel) -> StateGraph:
    """Return a chat graph that deletes the two oldest messages once there are more than two."""

    def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": model.invoke(state["messages"])}

    def delete_messages(state: MessagesState) -> dict[str, Any] | None:
        messages = state["messages"]
        if len(messages) <= 2:
            return None
        return {"messages": [RemoveMessage(id=message.id) for message in messages[:2]]}

    builder = StateGraph(MessagesState).add_node(call_model).add_node(delete_messages)
    return builder.add_edge(START, "call_model").add_edge("call_model", "delete_messages")


def test_deleted_messages_are_gone_from_the_state_and_stay_in_the_history(
    path: str, model: RuleChatModel
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = forgetting_builder(model).compile(checkpointer=checkpointer)
        seen: list[list[tuple[str, str]]] = []
        for text in ("hi! I'm bob", "what's my name?"):
            turn = graph.stream(user(text), ONE, stream_mode="values")
            seen.extend([(m.type, m.content) for m in chunk["messages"]] for chunk in turn)

    hello = [("human", "hi! I'm bob"), ("ai", "Hi Bob! How are you doing today?")]
    question = [("human", "what's my name?"), ("ai", "Your name is Bob.")]
    assert seen[-2:] == [hello + question, question]

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = forgetting_builder(model).compile(checkpointer=checkpointer)
        assert texts(graph.get_state(ONE).values["messages"]) == [text for _, text in question]
        before = next(s for s in graph.get_state_history(ONE) if s.next == ("delete_messages",))
        assert len(before.values["messages"]) == 4
        assert "Bob" not in say(graph, "what's my name?", ONE)


def test_all_messages_can_be_removed_at_once(path: str, model: RuleChatModel) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = forgetting_builder(model).compile(checkpointer=checkpointer)
        say(graph, "hi! I'm bob", ONE)
        removal = {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES)]}
        graph.update_state(ONE, removal, as_node="delete_messages")

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = forgetting_builder(model).compile(checkpointer=checkpointer)
        assert graph.get_state(ONE).values == {"messages": []}
        kept = checkpointer.get_tuple(ONE)
        assert kept is not None
        assert kept.checkpoint["channel_values"]["messages"] == []


class SummaryState(MessagesState):
    """A conversation with a summary of its beginning."""

    summary: str


def summarising_builder(model: RuleChatModel) -> StateGraph:
    """Return a chat graph that replaces all but the last two messages by a summary."""

    def call_model(state: SummaryState) -> dict[str, Any]:
        known = {"role": "system", "content": f"Summary so far: {state.get('summary', '')}"}
        return {"messages": [model.invoke([known, *state["messages"]])]}

    def summarise(state: SummaryState) -> dict[str, Any]:
        earlier = state.get("summary", "")
        task = (
            f"This is a summary of the conversation to date: {earlier}\nExtend the summary."
            if earlier
            else "Create a summary of the conversation above:"
        )
        summary = model.invoke([*state["messages"], HumanMessage(content=task)])
        old = [RemoveMessage(id=message.id) for message in state["messages"][:-2]]
        return {"summary": summary.content, "messages": old}

    def long_enough(state: SummaryState) -> str:
        return "summarise" if len(state["messages"]) > 4 else END

    builder = StateGraph(SummaryState).add_node(call_model).add_node(summarise)
    builder.add_conditional_edges("call_model", long_enough, ["summarise", END])
    return builder.add_edge(START, "call_model")


def test_a_summary_takes_the_place_of_the_messages_it_covers(
    path: str, model: RuleChatModel
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = summarising_builder(model).compile(checkpointer=checkpointer)
        for text in TALK:
            say(graph, text, ONE)
        runs = [state.next for state in graph.get_state_history(ONE)]
        assert runs.count(("summarise",)) == 1

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = summarising_builder(model).compile(checkpointer=checkpointer)
        state = graph.get_state(ONE).values
        assert "The user is called Bob." in state["summary"]
        assert texts(state["messages"])[0] == TALK[-1]
        assert len(state["messages"]) == 2
        assert say(graph, "what's my name?", ONE) == "Your name is Bob."


@dataclass
class RunningSummary:
    """What a summarising node remembers between turns."""

    summary: str
    summarised_ids: set[str] = field(default_factory=set)


class ContextState(MessagesState):
    """A conversation that is kept whole, beside the bookkeeping of its summary."""

    context: dict[str, RunningSummary]


def keep_summary(state: ContextState) -> dict[str, Any]:
    """Sum up all but the last two messages, each once."""
    running = state.get("context", {}).get("running_summary", RunningSummary(""))
    fresh = [m for m in state["messages"][:-2] if m.id not in running.summarised_ids]
    summary = " / ".join([running.summary, *texts(fresh)]).strip(" /")
    done = running.summarised_ids | {str(message.id) for message in fresh}
    return {"context": {"running_summary": RunningSummary(summary, done)}}


def running_builder(model: RuleChatModel) -> StateGraph:
    def call_model(state: ContextState) -> dict[str, Any]:
        return {"messages": model.invoke(state["messages"])}

    builder = StateGraph(ContextState).add_node(keep_summary).add_node(call_model)
    return builder.add_edge(START, "keep_summary").add_edge("keep_summary", "call_model")


def test_a_running_summary_of_the_graphs_own_type_survives_reopening(
    path: str, model: RuleChatModel
) -> None:
    for text in TALK:
        with LgkvSaver.from_conn_string(path) as checkpointer:
            say(running_builder(model).compile(checkpointer=checkpointer), text, ONE)

    with LgkvSaver.from_conn_string(path) as checkpointer:
        state = running_builder(model).compile(checkpointer=checkpointer).get_state(ONE).values
    running = state["context"]["running_summary"]
    assert isinstance(running, RunningSummary)
    assert running.summary.startswith(TALK[0])
    assert running.summarised_ids == {message.id for message in state["messages"][:3]}
    assert len(state["messages"]) == 6


def test_the_checkpointer_shows_the_graphs_own_type_to_those_who_allow_it(
    path: str, model: RuleChatModel
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        say(running_builder(model).compile(checkpointer=checkpointer), TALK[0], ONE)
        with pytest.raises(UnregisteredTypeError, match="RunningSummary"):
            checkpointer.get_tuple(ONE)

    with LgkvSaver.from_conn_string(path, allowed_types=[RunningSummary]) as checkpointer:
        kept = checkpointer.get_tuple(ONE)
    assert kept is not None
    assert kept.checkpoint["channel_values"]["context"] == {"running_summary": RunningSummary("")}


async def test_messages_are_trimmed_deleted_and_summarised_on_the_event_loop(
    path: str, model: RuleChatModel
) -> None:
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        seen: list[list[AnyMessage]] = []
        trimming = trimming_builder(model, 40, seen).compile(checkpointer=checkpointer)
        forgetting = forgetting_builder(model).compile(checkpointer=checkpointer)
        summarising = summarising_builder(model).compile(checkpointer=checkpointer)
        for graph, name in ((trimming, "trim"), (forgetting, "forget"), (summarising, "sum")):
            for text in TALK:
                assert await asay(graph, text, thread(name))

        assert TALK[0] not in texts(seen[-1])
        assert len((await trimming.aget_state(thread("trim"))).values["messages"]) == 6
        assert len((await forgetting.aget_state(thread("forget"))).values["messages"]) == 2
        summed = (await summarising.aget_state(thread("sum"))).values
        assert "Bob" in summed["summary"]
        assert len(summed["messages"]) == 2
