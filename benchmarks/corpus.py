"""Seeded texts, chat messages, items and vectors: the same ones for every backend and every run."""

from __future__ import annotations

import functools
import random
import uuid
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

__all__ = [
    "DIMS", "TOPICS", "answer", "conversation", "embed", "fact", "passage", "question", "random_id",
    "topic_text",
]  # fmt: skip

DIMS: Final = 384
TOPICS: Final = (
    "travel", "cooking", "garden", "music", "python", "history", "finance", "health",
    "weather", "sport", "language", "photo", "physics", "film", "school", "housing",
)  # fmt: skip
KINDS: Final = ("preference", "fact", "event", "plan")

_QUESTION_CHARS: Final = 780
_ANSWER_CHARS: Final = 560
_CLUSTER_SPREAD: Final = 0.9

_WORDS: Final = """
the of and to a in that it is was for on with as be at by this had not are but from or have an
they which one you were all her she there would their we him been has when who will no more if out
so up said what its about than into them can only other time new some could these two may first
then do any like my now over such our man me even most made after also did many off before must
well back through years where much your way down should because long each just those people how
too little state good very make world still see own work here get both between life being under
never day same another know year while last might great old come since go against came right take
three himself few use house during without again place around however home small found thought
went say part once general high upon school every think left number course war until always away
something fact though water less public put almost hand enough far took head yet government system
better set told nothing night end why called find going look asked later point knew next program
city business give group toward young days let room word country several order window summer
letter morning answer question price reason kitchen station ticket language memory project meeting
picture bread river mountain doctor teacher garden engine signal schedule budget invoice version
release branch function argument parameter database connection latency message channel account
contract holiday weekend passport luggage hotel reservation appointment medicine exercise recipe
ingredient temperature forecast orchestra melody rehearsal translation grammar chapter century
museum painting electricity insurance mortgage neighbour furniture
""".split()  # noqa: SIM905  quotes around each word would hide them
_WEIGHTS: Final = tuple(1 / (rank + 8) for rank in range(len(_WORDS)))


def passage(rng: random.Random, chars: int) -> str:
    """Return about *chars* characters of sentences with a natural spread of word frequencies."""
    sentences: list[str] = []
    length = 0
    while length < chars:
        sentence = _sentence(rng)
        sentences.append(sentence)
        length += len(sentence) + 1
    return " ".join(sentences)


def question(rng: random.Random) -> HumanMessage:
    """Return a user's message of about 1 KB as the serde stores it."""
    return HumanMessage(content=passage(rng, _QUESTION_CHARS), id=random_id(rng))


def answer(rng: random.Random) -> AIMessage:
    """Return a model's message of about 1 KB, with the metadata that providers add."""
    tokens = rng.randrange(90, 400)
    return AIMessage(
        content=passage(rng, _ANSWER_CHARS),
        id=f"run-{random_id(rng)}",
        response_metadata={
            "model_name": "example-chat-large",
            "finish_reason": "stop",
            "system_fingerprint": f"fp_{rng.getrandbits(40):010x}",
        },
        usage_metadata={
            "input_tokens": 4 * tokens,
            "output_tokens": tokens,
            "total_tokens": 5 * tokens,
        },
    )


def conversation(rng: random.Random, turns: int) -> list[BaseMessage]:
    """Return *turns* questions, each with its answer."""
    return [message for _ in range(turns) for message in (question(rng), answer(rng))]


def fact(rng: random.Random) -> dict[str, Any]:
    """Return an item's value of about 350 bytes that has something to filter by."""
    return {
        "kind": rng.choice(KINDS),
        "importance": rng.randrange(10),
        "text": passage(rng, 220),
        "tags": rng.sample(TOPICS, 2),
        "confirmed": rng.random() < 0.5,
    }


def topic_text(rng: random.Random) -> str:
    """Return a text whose first word is its topic; texts of one topic embed close together."""
    return f"{rng.choice(TOPICS)}: {passage(rng, 120)}"


def random_id(rng: random.Random) -> str:
    """Return a UUID as text."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Return a vector of `DIMS` floats for each text, clustered by topic.

    Every vector is computed once in a process: the model is not what is measured.
    """
    return [_vector(text) for text in texts]


def _sentence(rng: random.Random) -> str:
    words = rng.choices(_WORDS, _WEIGHTS, k=rng.randrange(6, 19))
    if rng.random() < 0.2:
        words.insert(rng.randrange(len(words)), str(rng.randrange(1, 2_000)))
    if len(words) > 11:
        words[5] += ","
    return " ".join(words).capitalize() + rng.choice("....?!")


@functools.cache
def _centres() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(7).standard_normal((len(TOPICS), DIMS), dtype=np.float32)


@functools.cache
def _vector(text: str) -> list[float]:
    topic = TOPICS.index(text.partition(":")[0])
    noise = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMS, np.float32)
    vector = _centres()[topic] + _CLUSTER_SPREAD * noise
    floats: list[float] = (vector / np.linalg.norm(vector)).tolist()
    return floats
