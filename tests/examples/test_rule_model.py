"""The chat model and the embedding that stand in for real ones in the examples."""

import asyncio
import math
import subprocess
import sys
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from hash_embeddings import HashEmbeddings
from rule_model import RuleChatModel, facts_in, name_in, to_second_person

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def reply(model: RuleChatModel, *said: str, system: str = "") -> str:
    """Return the answer to the last thing said."""
    messages: list[BaseMessage] = [SystemMessage(system)] if system else []
    for text in said[:-1]:
        messages += [HumanMessage(text), AIMessage("I see.")]
    return str(model.invoke([*messages, HumanMessage(said[-1])]).text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hi! I'm bob", "Bob"),
        ("hi! I\u2019m bob", "Bob"),
        ("Hi! Remember: my name is Bob", "Bob"),
        ("I am Zoë.", "Zoë"),
        ("User name is Bob", "Bob"),
        ("I was Bob. Call me Rob", "Rob"),
        ("hi! I'm hungry", None),
        ("I am a plumber", None),
        ("I'm Hungry", None),
        ("what's my name?", None),
    ],
)
def test_a_name_is_found_where_one_is_given(text: str, name: str | None) -> None:
    assert name_in(text) == name


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("hi! I'm bob", ["My name is Bob"]),
        ("I love pizza. I am a plumber!", ["I love pizza", "I am a plumber"]),
        ("Something else: I am allergic to nuts.", ["I am allergic to nuts"]),
        ("Remember that my dog is Rex.", ["My dog is Rex"]),
        ("remember", []),
        ("What is the weather?", []),
        ("Do I love pizza? My name is what?", []),
        ("", []),
    ],
)
def test_facts_are_the_statements_about_the_speaker(text: str, facts: list[str]) -> None:
    assert facts_in(text) == facts


def test_a_fact_is_told_back_in_the_second_person() -> None:
    assert to_second_person("I love my dog and he loves me") == "you love your dog and he loves you"
    assert to_second_person("User name is Bob") == "your name is Bob"


def test_a_greeting_is_answered_by_name(model: RuleChatModel) -> None:
    assert reply(model, "hi! I'm bob") == "Hi Bob! How are you doing today?"


def test_the_name_comes_from_the_conversation(model: RuleChatModel) -> None:
    assert reply(model, "hi! I'm bob", "what's my name?") == "Your name is Bob."


def test_the_name_comes_from_the_facts(model: RuleChatModel) -> None:
    system = "You are a helpful assistant talking to the user. User info: User name is Bob"
    assert reply(model, "what is my name?", system=system) == "Your name is Bob."


def test_a_later_name_replaces_an_earlier_one(model: RuleChatModel) -> None:
    assert reply(model, "I'm Bob.", "Call me Rob.", "what's my name?") == "Your name is Rob."


def test_an_unknown_name_is_admitted(model: RuleChatModel) -> None:
    assert reply(model, "what's my name?") == "You have not told me your name yet."


def test_hunger_finds_the_fact_about_food(model: RuleChatModel) -> None:
    system = "You are a helpful assistant.\n## Memories of user\nI am a plumber\nI love pizza"
    assert "you love pizza" in reply(model, "I'm hungry", system=system)
    assert "soup" in reply(model, "I'm hungry")


def test_known_facts_are_listed(model: RuleChatModel) -> None:
    system = "You are a helpful assistant.\n## Memories of user\n- I love pizza\n- I am a plumber"
    answer = reply(model, "What do you know about me?", system=system)
    assert answer == "I know: you love pizza, you are a plumber."
    assert reply(model, "What do you know about me?") == "I don't know anything about you yet."


def test_a_question_is_answered_from_a_fact_that_shares_a_word(model: RuleChatModel) -> None:
    system = "About the user: My sister Ana's birthday is on 3 May"
    assert "3 May" in reply(model, "When is Ana's birthday?", system=system)


def test_a_request_to_remember_is_acknowledged(model: RuleChatModel) -> None:
    assert reply(model, "Remember: I like tea.") == "I'll remember: you like tea."
    answer = reply(model, "Hi! Remember: my name is Bob")
    assert answer == "Hi Bob! I'll remember that your name is Bob. How are you doing today?"


def test_a_summary_names_the_user_and_what_was_said(model: RuleChatModel) -> None:
    instruction = "Create a summary of the conversation above:"
    answer = reply(model, "hi, my name is bob", "write a poem about cats", instruction)
    assert answer.startswith("The user is called Bob.")
    assert "write a poem about cats" in answer
    assert reply(model, instruction) == "Nothing has been said yet."


def test_a_summary_is_extended_not_forgotten(model: RuleChatModel) -> None:
    earlier = "The user is called Bob. They said: hello."
    instruction = (
        f"This is a summary of the conversation to date: {earlier}\n\n"
        "Extend the summary by taking into account the new messages above:"
    )
    answer = reply(model, "and now dogs", instruction)
    assert answer == f"{earlier} They said: and now dogs."


def test_the_forecast_of_a_place_is_stable(model: RuleChatModel) -> None:
    answer = reply(model, "What is the weather in Zürich today?")
    assert "in Zürich," in answer
    assert answer == reply(model, "What is the weather in Zürich?")


def test_anything_else_is_echoed(model: RuleChatModel) -> None:
    assert reply(model, "Qwertz.") == 'You said: "Qwertz.". Tell me more!'
    assert reply(model, "") == "How can I help?"


def test_a_stream_holds_the_words_of_the_answer(model: RuleChatModel) -> None:
    parts = [str(chunk.text) for chunk in model.stream("hi! I'm bob")]
    assert len(parts) > 1
    assert "".join(parts) == reply(model, "hi! I'm bob")


def test_the_async_answer_is_the_same(model: RuleChatModel) -> None:
    answer = asyncio.run(model.ainvoke("hi! I'm bob"))
    assert answer.text == reply(model, "hi! I'm bob")


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"dry in {city}"


def test_a_bound_tool_is_called_and_its_result_told(model: RuleChatModel) -> None:
    bound = model.bind_tools([get_weather])
    asked = HumanMessage("What is the weather in Rome?")
    called = bound.invoke([asked])
    assert [(c["name"], c["args"]) for c in called.tool_calls] == [
        ("get_weather", {"city": "Rome"})
    ]
    result = ToolMessage("dry in Rome", tool_call_id=str(called.tool_calls[0]["id"]))
    assert bound.invoke([asked, called, result]).text == "Here is what I found: dry in Rome"
    streamed = [call for chunk in bound.stream([asked]) for call in chunk.tool_calls]
    assert streamed == called.tool_calls


def similarity(embeddings: HashEmbeddings, first: str, second: str) -> float:
    """Return the cosine similarity of two texts."""
    vectors = embeddings.embed_documents([first, second])
    return math.fsum(a * b for a, b in zip(*vectors, strict=True))


@pytest.mark.parametrize(
    ("query", "near", "others"),
    [
        ("I'm hungry", "I love pizza", ["I am a plumber", "I live in Zürich"]),
        ("What does the user like to eat?", "I love pizza", ["I am a plumber"]),
        ("what do I do for a living?", "I am a plumber", ["I love pizza"]),
        ("what's my name?", "User name is Bob", ["I love pizza", "I am a plumber"]),
        (
            "outdoor activities",
            "Alice loves hiking in the mountains",
            ["Alice is a software engineer", "Alice prefers dark mode"],
        ),
    ],
)
def test_related_texts_are_nearer(
    embeddings: HashEmbeddings, query: str, near: str, others: list[str]
) -> None:
    best = similarity(embeddings, query, near)
    assert all(best > similarity(embeddings, query, other) + 0.2 for other in others)


@pytest.mark.parametrize(
    "text", ["", " ", "?!", "a", "\N{GRINNING FACE}", "日本語", "\ud800", "x" * 10_000]
)
@pytest.mark.parametrize("dims", [1, 7, 256])
def test_every_vector_has_the_length_one(text: str, dims: int) -> None:
    vector = HashEmbeddings(dims).embed_query(text)
    assert len(vector) == dims
    assert math.hypot(*vector) == pytest.approx(1.0)


def test_no_dims_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HashEmbeddings(0)


def test_queries_and_documents_share_a_space(embeddings: HashEmbeddings) -> None:
    assert embeddings.embed_documents(["I love pizza"]) == [embeddings.embed_query("I love pizza")]


def test_another_interpreter_gives_the_same_vector(embeddings: HashEmbeddings) -> None:
    code = "from hash_embeddings import HashEmbeddings as H; print(H().embed_query('Zürich, Bob'))"
    command = [sys.executable, "-X", "utf8", "-c", code]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(embeddings.embed_query("Zürich, Bob"))
