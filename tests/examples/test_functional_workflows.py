"""Use with Functional API: `previous` and `entrypoint.final`."""

import sys
from typing import Any

import pytest
from langchain_core.messages import AnyMessage
from langgraph.func import entrypoint, task
from langgraph.graph import add_messages

from conversations import texts, thread
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver
from rule_model import RuleChatModel

HELLO = [{"role": "user", "content": "hi! I'm bob"}]
QUESTION = [{"role": "user", "content": "what's my name?"}]


def test_previous_is_what_the_last_run_returned(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:

        @entrypoint(checkpointer=checkpointer)
        def collect(inputs: list[int], *, previous: list[int] | None) -> list[int]:
            return (previous or []) + inputs

        assert collect.invoke([1, 2], thread("1")) == [1, 2]
        assert collect.invoke([3], thread("1")) == [1, 2, 3]
        assert collect.invoke([9], thread("2")) == [9]


def test_a_workflow_need_not_ask_for_previous(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:

        @entrypoint(checkpointer=checkpointer)
        def double(number: int) -> int:
            return number * 2

        assert double.invoke(21, thread("1")) == 42
        assert double.get_state(thread("1")).values == 42


def test_previous_survives_reopening(path: str) -> None:
    for expected in ([1], [1, 1], [1, 1, 1]):
        with LgkvSaver.from_conn_string(path) as checkpointer:

            @entrypoint(checkpointer=checkpointer)
            def collect(inputs: list[int], *, previous: list[int] | None) -> list[int]:
                return (previous or []) + inputs

            assert collect.invoke([1], thread("1")) == expected


def test_final_returns_one_value_and_saves_another(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:

        @entrypoint(checkpointer=checkpointer)
        def running_total(number: int, *, previous: int | None) -> "entrypoint.final[str, int]":
            total = (previous or 0) + number
            return entrypoint.final(value=f"was {previous}", save=total)

        answers = [running_total.invoke(number, thread("1")) for number in (5, 6, 7)]

        assert answers == ["was None", "was 5", "was 11"]
        saved = checkpointer.get_tuple(thread("1"))
        assert saved is not None
        assert saved.checkpoint["channel_values"]["__previous__"] == 18
        assert saved.checkpoint["channel_values"]["__end__"] == "was 11"


def chat_workflow(checkpointer: LgkvSaver, model: RuleChatModel) -> Any:
    """Return the chat of the document: it answers with a message and saves them all."""

    @task
    def call_model(messages: list[AnyMessage]) -> AnyMessage:
        return model.invoke(messages)

    @entrypoint(checkpointer=checkpointer)
    def workflow(inputs: list[AnyMessage], *, previous: list[AnyMessage] | None) -> Any:
        messages = add_messages(previous or [], inputs)
        response = call_model(messages).result()
        return entrypoint.final(value=response, save=add_messages(messages, response))

    return workflow


def test_a_chat_workflow_remembers_the_name_after_reopening(
    path: str, model: RuleChatModel, capsys: pytest.CaptureFixture[str]
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        workflow = chat_workflow(checkpointer, model)
        for chunk in workflow.stream(HELLO, thread("1"), stream_mode="values"):
            chunk.pretty_print()

    with LgkvSaver.from_conn_string(path) as checkpointer:
        workflow = chat_workflow(checkpointer, model)
        for chunk in workflow.stream(QUESTION, thread("1"), stream_mode="values"):
            chunk.pretty_print()
        saved = checkpointer.get_tuple(thread("1"))

    said = [line for line in capsys.readouterr().out.splitlines() if line and line[0] != "="]
    assert said[0].startswith("Hi Bob!")
    assert said[1:] == ["Your name is Bob."]
    assert saved is not None
    kept = saved.checkpoint["channel_values"]["__previous__"]
    assert [message.type for message in kept] == ["human", "ai", "human", "ai"]
    assert texts(kept)[2:] == ["what's my name?", "Your name is Bob."]


def test_a_workflow_answers_an_invocation_with_the_message(path: str, model: RuleChatModel) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        workflow = chat_workflow(checkpointer, model)
        workflow.invoke(HELLO, thread("1"))

        assert workflow.invoke(QUESTION, thread("1")).content == "Your name is Bob."
        assert workflow.get_state(thread("1")).values.content == "Your name is Bob."
        history = list(workflow.get_state_history(thread("1")))
        assert [state.metadata["source"] for state in history] == ["loop", "input"] * 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks in async workflows need 3.11")
async def test_a_chat_workflow_remembers_the_name_on_the_event_loop(
    path: str, model: RuleChatModel
) -> None:
    @task
    async def call_model(messages: list[AnyMessage]) -> AnyMessage:
        return await model.ainvoke(messages)

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:

        @entrypoint(checkpointer=checkpointer)
        async def workflow(inputs: list[AnyMessage], *, previous: list[AnyMessage] | None) -> Any:
            messages = add_messages(previous or [], inputs)
            response = await call_model(messages)
            return entrypoint.final(value=response, save=add_messages(messages, response))

        turn = workflow.astream(HELLO, thread("1"), stream_mode="values")
        assert texts([chunk async for chunk in turn])[0].startswith("Hi Bob!")
        assert (await workflow.ainvoke(QUESTION, thread("1"))).content == "Your name is Bob."
        assert (await workflow.aget_state(thread("1"))).values.content == "Your name is Bob."
