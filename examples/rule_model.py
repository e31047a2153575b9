"""A chat model that answers by rules: no network, no randomness, the same answer every time.

It stands in for a real model in examples and tests, behind the same interface:
`model = RuleChatModel()` and `model = init_chat_model("...")` are interchangeable.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

_GREETING: Final = re.compile(r"\b(hi|hello|hey|good (morning|evening|day))\b", re.IGNORECASE)
_NAMED: Final = re.compile(
    r"\b(?:name\s+is|name's|call me|is called)\s+(?P<sure>[^\W\d_][\w-]*)"
    r"|\b(?:i'?m|i am|this is)\s+(?P<maybe>[^\W\d_][\w-]*)(?=\s*(?:[.,!?;]|$|and\b))",
    re.IGNORECASE,
)
_OTHER_WORDS: Final = (
    "afraid back bored busy cold done fine free glad good great happy here hot hungry ill late "
    "lost new not ok okay out ready sad sick so sorry sure thirsty tired well what who"
)
_NOT_NAMES: Final = frozenset(_OTHER_WORDS.split())
_FACT: Final = re.compile(
    r"^(?:i (?:really |also )?(?:love|like|live|work|prefer|hate|own|play|speak|study|enjoy)\b"
    r"|i (?:have|need|want) (?:a|an|two|three|no)\b|i (?:can't|cannot|never|always)\b"
    r"|(?:i am|i'?m) (?:an?|allergic|vegetarian|vegan|from)\b|my [\w' ]+ (?:is|are) \w)",
    re.IGNORECASE,
)
_FOOD: Final = re.compile(
    r"\b(eat|food|pizza|pasta|soup|salad|curry|sushi|cuisine|cook\w*|bread|cheese)\b",
    re.IGNORECASE,
)
_OUTDOORS: Final = re.compile(
    r"\b(hik\w+|mountain\w*|ski\w*|climb\w*|cycl\w+|camp\w*|swim\w*|walk\w*)\b",
    re.IGNORECASE,
)
_NO_FACT: Final = re.compile(r"^(you are|you're|#|this is a summary|answer|reply)", re.IGNORECASE)
_LABEL: Final = re.compile(r".*\b(?:user info|memories|facts|about the user)\s*:\s*", re.IGNORECASE)
_REMEMBER: Final = re.compile(r"(?is)\bremember(?: that)?[:,]?\s+(?P<fact>.+)")
_SUMMARY: Final = (
    r"\b(summary of the conversation|(extend|create|write) (the|a) summary|summari[sz]e)\b"
)
_SECOND_PERSON: Final = (
    (r"\bi am\b|\bi'm\b", "you are"), (r"\bi\b", "you"), (r"\bmy\b", "your"), (r"\bme\b", "you"),
    (r"\bmine\b", "yours"), (r"\buser name\b|\bthe user's name\b", "your name"),
)  # fmt: skip
_SKIES: Final = ("sunny", "cloudy", "a little rainy", "windy", "clear")


@dataclass(frozen=True)
class Conversation:
    """What the rules look at: instructions, what the user said, and what is known."""

    system: str
    said: tuple[str, ...]

    @classmethod
    def of(cls, messages: Sequence[BaseMessage]) -> "Conversation":
        """Return the parts of *messages* that the rules use."""
        return cls(
            "\n".join(str(m.text) for m in messages if m.type == "system"),
            tuple(str(m.text) for m in messages if m.type == "human"),
        )

    @property
    def last(self) -> str:
        """What the user said last."""
        return self.said[-1].strip() if self.said else ""

    @property
    def facts(self) -> list[str]:
        """The facts in the system message, one a line, in its order."""
        lines = (_LABEL.sub("", line).strip(" \t-*") for line in self.system.splitlines())
        return list(dict.fromkeys(line for line in lines if line and not _NO_FACT.match(line)))

    @property
    def name(self) -> str | None:
        """The user's name: the last one given in the conversation, else one among the facts."""
        names = (name_in(text) for text in (*reversed(self.said), self.system))
        return next((name for name in names if name), None)


class RuleChatModel(BaseChatModel):
    """Answer by the first rule that fits the last message; see `RULES`."""

    @property
    def _llm_type(self) -> str:
        return "rules"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 (the interface)
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 (the interface)
        tools: Sequence[dict[str, Any]] = (),
        **_: object,
    ) -> ChatResult:
        message = _answer(messages, tools)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 (the interface)
        run_manager: CallbackManagerForLLMRun | None = None,
        tools: Sequence[dict[str, Any]] = (),
        **_: object,
    ) -> Iterator[ChatGenerationChunk]:
        message = _answer(messages, tools)
        for part in re.findall(r"\s*\S+|\s+$", str(message.text)):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=part))
            if run_manager:
                run_manager.on_llm_new_token(part, chunk=chunk)
            yield chunk
        last = AIMessageChunk(content="", tool_calls=message.tool_calls, chunk_position="last")
        yield ChatGenerationChunk(message=last)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        **kwargs: object,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with *tools*: it calls one whose name the last message mentions."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)


def name_in(text: str) -> str | None:
    """Return the last name that *text* gives its speaker or user, capitalised, or None."""
    found = None
    for match in _NAMED.finditer(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        name = match["sure"] or match["maybe"]
        introduced = match["sure"] or name[0].isupper() or _GREETING.search(text)
        if introduced and name.lower() not in _NOT_NAMES:
            found = name[0].upper() + name[1:]
    return found


def facts_in(text: str) -> list[str]:
    """Return the facts that *text* states about its speaker, each without its full stop."""
    asked = _REMEMBER.search(text)
    if asked:
        fact = asked["fact"].strip().rstrip(".!")
        return [fact[0].upper() + fact[1:]]
    name = name_in(text)
    sentences = (part.strip() for part in re.split(r"(?<=[.!?;:])\s+|\n", text))
    stated = [s.rstrip(".!;") for s in sentences if _FACT.match(s) and not s.endswith("?")]
    if name and not any(name_in(fact) for fact in stated):
        stated.insert(0, f"My name is {name}")
    return stated


def to_second_person(fact: str) -> str:
    """Turn what the user said of themselves into what one says to them."""
    for pattern, replacement in _SECOND_PERSON:
        fact = re.sub(pattern, replacement, fact, flags=re.IGNORECASE)
    return fact


def _answer(messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]]) -> AIMessage:
    if messages and messages[-1].type == "tool":
        return AIMessage(content=f"Here is what I found: {messages[-1].text}")
    talk = Conversation.of(messages)
    call = _tool_call(talk.last, tools)
    if call:
        return AIMessage(content="", tool_calls=[call])
    for pattern, rule in RULES:
        text = rule(talk) if re.search(pattern, talk.last, re.IGNORECASE) else None
        if text is not None:
            return AIMessage(content=text)
    return AIMessage(content=_echo(talk))


def _tool_call(text: str, tools: Sequence[dict[str, Any]]) -> ToolCall | None:
    for tool in (entry["function"] for entry in tools):
        words = [word for word in tool["name"].split("_") if word not in {"get", "find", "the"}]
        if any(re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE) for word in words):
            subject = _place(text) or text
            args = dict.fromkeys(tool["parameters"].get("required", ()), subject)
            return ToolCall(name=tool["name"], args=args, id=f"call-{zlib.crc32(text.encode())}")
    return None


def _list_facts(talk: Conversation) -> str | None:
    if not re.search(r"\b(list|extract)\b.*\bfacts\b", talk.system, re.IGNORECASE):
        return None
    return "\n".join(facts_in(talk.last))


def _summarise(talk: Conversation) -> str:
    said = [text for text in talk.said[:-1] if not re.search(_SUMMARY, text, re.IGNORECASE)]
    earlier = re.search(r"summary of the conversation (?:to date|so far):\s*(.+)", talk.last)
    parts = [earlier[1].strip()] if earlier else []
    if talk.name and not (earlier and name_in(earlier[1])):
        parts.append(f"The user is called {talk.name}.")
    if said:
        parts.append(f"They said: {'; '.join(said)[:300]}.")
    return " ".join(parts) or "Nothing has been said yet."


def _greet(talk: Conversation) -> str:
    remembered = f" I'll remember that your name is {talk.name}."
    if re.search(r"\bremember\b", talk.last, re.IGNORECASE) and name_in(talk.last):
        return f"Hi {talk.name}!{remembered} How are you doing today?"
    return f"Hi {talk.name}! How are you doing today?" if talk.name else "Hi! How can I help?"


def _tell_name(talk: Conversation) -> str:
    return f"Your name is {talk.name}." if talk.name else "You have not told me your name yet."


def _tell_facts(talk: Conversation) -> str:
    facts = talk.facts or list(dict.fromkeys(f for text in talk.said for f in facts_in(text)))
    if not facts:
        return "I don't know anything about you yet."
    return f"I know: {', '.join(to_second_person(fact) for fact in facts)}."


def _fact_about(pattern: re.Pattern[str], talk: Conversation) -> str | None:
    told = [fact for text in talk.said[:-1] for fact in facts_in(text)]
    fact = next((fact for fact in (*talk.facts, *told) if pattern.search(fact)), None)
    return None if fact is None else to_second_person(fact)


def _suggest_food(talk: Conversation) -> str:
    fact = _fact_about(_FOOD, talk)
    return f"I remember that {fact}. How about that now?" if fact else "How about some soup?"


def _suggest_outdoors(talk: Conversation) -> str:
    fact = _fact_about(_OUTDOORS, talk)
    return f"I remember that {fact}. That would be my choice." if fact else "How about a walk?"


def _acknowledge(talk: Conversation) -> str:
    return f"I'll remember: {to_second_person(facts_in(talk.last)[0])}."


def _take_note(talk: Conversation) -> str | None:
    facts = facts_in(talk.last)
    return f"Good to know: {', '.join(map(to_second_person, facts))}." if facts else None


def _look_up(talk: Conversation) -> str | None:
    told = [fact for text in talk.said[:-1] for fact in facts_in(text)]
    asked = _long_words(talk.last)
    fact = max((*talk.facts, *told), key=lambda fact: len(asked & _long_words(fact)), default="")
    return f"As I know it, {to_second_person(fact)}." if asked & _long_words(fact) else None


def _long_words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]{5,}", text.lower()))


def _forecast(talk: Conversation) -> str:
    told = next((fact for fact in talk.facts if "forecast" in fact.lower()), None)
    if told:
        return f"{told}."
    place = _place(talk.last) or "your place"
    sky = _SKIES[zlib.crc32(place.lower().encode()) % len(_SKIES)]
    return f"It is {sky} in {place}, {10 + zlib.crc32(place.encode()) % 15} degrees."


def _place(text: str) -> str | None:
    match = re.search(r"\b(?:in|for|at|to)\s+([^\W\d_][\w -]*)", text)
    if not match:
        return None
    return re.sub(r"\s+(today|tomorrow|tonight|now|this \w+)$", "", match[1].strip())


def _poem(talk: Conversation) -> str:
    match = re.search(r"\b(?:about|for|with)\s+(\w+)", talk.last)
    subject = match[1] if match else "nothing"
    return f"Soft and slow the evening falls,\n{subject} dance along the walls."


def _echo(talk: Conversation) -> str:
    return f'You said: "{talk.last}". Tell me more!' if talk.last else "How can I help?"


RULES: Final[tuple[tuple[str, Callable[[Conversation], str | None]], ...]] = (
    ("", _list_facts),
    (_SUMMARY, _summarise),
    (r"\bwhat(?:'s|\u2019s| is) my name\b|\bwho am i\b|\b(?:know|remember) my name\b", _tell_name),
    (r"\bwhat do you (?:know|remember)\b|\babout my memories\b|\bknow about me\b", _tell_facts),
    (r"\b(hi|hello|hey)\b.*\bremember\b.*\bname\b", _greet),
    (_REMEMBER.pattern, _acknowledge),
    (r"\bhungry\b|\bwhat (?:should|could|can) i (?:eat|cook)\b", _suggest_food),
    (r"\boutdoors?\b|\bweekend\b.*\?", _suggest_outdoors),
    (r"\bweather\b|\bforecast\b", _forecast),
    (r"\bpoem\b|\bdo the same\b", _poem),
    (r"\bhow are you\b", lambda _: "I'm fine, thank you. And you?"),
    (r"\bthank(?:s| you)\b", lambda _: "You're welcome!"),
    (_GREETING.pattern, _greet),
    (r"\b(bye|goodbye|see you)\b", lambda _: "Goodbye!"),
    ("", _take_note),
    (r"^(?:when|where|who|which|what|how|do|does|did|am|is|are)\b.*\?$", _look_up),
)
