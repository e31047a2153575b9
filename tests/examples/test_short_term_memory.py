"""Add short-term memory; Add thread-level persistence to your graph."""

import subprocess
import sys
from pathlib import Path

import pytest

from conversations import asay, async_chat_builder, chat_builder, say, texts, thread, user
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver
from rule_model import RuleChatModel

FIRST_TURN = """
import sys
from conversations import chat_builder, say, thread
from rule_model import RuleChatModel
from lgkv.langgraph import LgkvSaver

with LgkvSaver.from_conn_string(sys.argv[1]) as checkpointer:
    graph = chat_builder(RuleChatModel()).compile(checkpointer=checkpointer)
    print(say(graph, "hi! I'm bob", thread("1")))
"""


def test_without_a_checkpointer_the_name_is_forgotten(model: RuleChatModel) -> None:
    graph = chat_builder(model).compile()

    graph.invoke(user("hi! I'm bob"))
    answer = graph.invoke(user("what's my name?"))

    assert len(answer["messages"]) == 2
    assert "bob" not in answer["messages"][-1].content.lower()


def test_a_thread_remembers_the_name_from_an_earlier_turn(path: str, model: RuleChatModel) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = chat_builder(model).compile(checkpointer=checkpointer)

        assert "Bob" in say(graph, "hi! I'm bob", thread("1"))
        assert say(graph, "what's my name?", thread("1")) == "Your name is Bob."


async def test_a_thread_remembers_the_name_on_the_event_loop(
    path: str, model: RuleChatModel
) -> None:
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = async_chat_builder(model).compile(checkpointer=checkpointer)

        assert "Bob" in await asay(graph, "hi! I'm bob", thread("1"))
        assert await asay(graph, "what's my name?", thread("1")) == "Your name is Bob."


def test_streamed_values_print_as_the_conversation_so_far(
    path: str, model: RuleChatModel, capsys: pytest.CaptureFixture[str]
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = chat_builder(model).compile(checkpointer=checkpointer)
        for text in ("hi! I'm bob", "what's my name?"):
            for chunk in graph.stream(user(text), thread("1"), stream_mode="values"):
                chunk["messages"][-1].pretty_print()

    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    headings = [line.strip("= ") for line in lines if line.startswith("=")]
    assert headings == ["Human Message", "Ai Message"] * 2
    assert lines[1] == "hi! I'm bob"
    assert lines[-1] == "Your name is Bob."


def test_a_new_thread_starts_with_no_memory(path: str, model: RuleChatModel) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = chat_builder(model).compile(checkpointer=checkpointer)
        say(graph, "hi! I'm bob", thread("1"))

        assert "bob" not in say(graph, "what's my name?", thread("2")).lower()
        assert say(graph, "what's my name?", thread("1")) == "Your name is Bob."


def test_the_thread_goes_on_after_the_file_was_closed(path: str, model: RuleChatModel) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        say(chat_builder(model).compile(checkpointer=checkpointer), "hi! I'm bob", thread("1"))

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = chat_builder(model).compile(checkpointer=checkpointer)
        assert say(graph, "what's my name?", thread("1")) == "Your name is Bob."
        assert len(graph.get_state(thread("1")).values["messages"]) == 4


async def test_what_was_said_without_a_loop_is_remembered_on_one(
    path: str, model: RuleChatModel
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        say(chat_builder(model).compile(checkpointer=checkpointer), "hi! I'm bob", thread("1"))

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = async_chat_builder(model).compile(checkpointer=checkpointer)
        assert await asay(graph, "what's my name?", thread("1")) == "Your name is Bob."


def test_the_thread_goes_on_after_its_process_ended(path: str, model: RuleChatModel) -> None:
    here = str(Path(__file__).parent)
    setup = f"import sys; sys.path[:0] = {[here, *sys.path]!r}\n"
    command = [sys.executable, "-c", setup + FIRST_TURN, path]
    first = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Bob" in first.stdout

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = chat_builder(model).compile(checkpointer=checkpointer)
        assert texts(graph.get_state(thread("1")).values["messages"])[0] == "hi! I'm bob"
        assert say(graph, "what's my name?", thread("1")) == "Your name is Bob."
