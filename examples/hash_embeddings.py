"""A deterministic text embedding without a network: feature hashing.

It stands in for a real embedding model wherever one is not at hand. It knows words, pairs of
words, parts of words and a few dozen relations between words; it does not understand text.
"""

import math
import re
import zlib
from collections import defaultdict
from itertools import pairwise
from typing import Final

from langchain_core.embeddings import Embeddings

_WORD: Final = re.compile(r"\w+")

_CONCEPTS: Final[dict[str, str]] = {
    "food": "hungry hunger food eat eating eats ate meal meals lunch dinner breakfast snack "
    "pizza pasta soup salad cook cooking cooks restaurant cuisine recipe taste vegetarian vegan",
    "drink": "thirsty drink drinks drinking coffee tea water juice beer wine",
    "work": "job jobs work works working worked profession occupation career employer plumber "
    "plumbing engineer developer teacher nurse office colleague living",
    "outdoors": "outdoor outdoors hike hikes hiking mountain mountains trail walk walking climb "
    "climbing nature forest camping ski skiing cycling activities weekend",
    "home": "live lives home house flat apartment address city town",
    "family": "family sister brother mother father wife husband son daughter child "
    "children parents",
    "animal": "pet pets dog dogs cat cats puppy kitten animal animals",
    "travel": "travel trip journey train trains plane planes flight flights fly flying holiday "
    "vacation ticket tickets seat seats",
    "name": "name names called call who",
    "health": "allergic allergy allergies ill sick health doctor medicine",
    "music": "music song songs guitar piano band concert sing singing",
    "screen": "film films movie movies cinema series watch watching",
    "code": "code coding program programming python software language languages",
    "display": "dark light mode theme colour color screen font",
    "birthday": "birthday birthdays born present gift party celebrate",
    "weather": "weather rain rainy sun sunny snow wind forecast",
}
_CONCEPTS_OF: Final[dict[str, list[str]]] = {}
for _concept, _words in _CONCEPTS.items():
    for _word in _words.split():
        _CONCEPTS_OF.setdefault(_word, []).append(_concept)

_COMMON_WORDS: Final = (
    "a about am an and any are at be but by can could do does for from have i in is it me my of "
    "on or s should so that the this to was we what when where which will with would you your"
)
_COMMON: Final = frozenset(_COMMON_WORDS.split())

_WORD_WEIGHT: Final = 1.0
_COMMON_WEIGHT: Final = 0.15
_PAIR_WEIGHT: Final = 0.4
_TRIGRAM_WEIGHT: Final = 0.2
_CONCEPT_WEIGHT: Final = 1.6


class HashEmbeddings(Embeddings):
    """Map text to unit vectors of *dims* numbers; the same text always gives the same vector."""

    def __init__(self, dims: int = 256) -> None:
        """Make an embedding with *dims* dimensions, at least one."""
        if dims < 1:
            message = f"dims must be at least 1, not {dims}"
            raise ValueError(message)
        self.dims = dims

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector of length one for each text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of *text*; its length is one, for an empty text as well."""
        vector = [0.0] * self.dims
        for feature, weight in _features(text).items():
            digest = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
            vector[(digest >> 1) % self.dims] += weight if digest & 1 else -weight
        length = math.sqrt(math.fsum(number * number for number in vector))
        if length == 0.0:
            vector[0] = length = 1.0
        return [number / length for number in vector]


def _features(text: str) -> dict[str, float]:
    words = _WORD.findall(text.lower())
    features: defaultdict[str, float] = defaultdict(float)
    for word in words:
        common = word in _COMMON
        features[f"word {word}"] += _COMMON_WEIGHT if common else _WORD_WEIGHT
        for concept in _CONCEPTS_OF.get(word, ()):
            features[f"concept {concept}"] = _CONCEPT_WEIGHT
        if not common:
            for part in _trigrams(word):
                features[f"part {part}"] += _TRIGRAM_WEIGHT
    for first, second in pairwise(words):
        features[f"pair {first} {second}"] += _PAIR_WEIGHT
    return features or {f"text {text}": 1.0}


def _trigrams(word: str) -> list[str]:
    padded = f"<{word}>"
    return [padded[start : start + 3] for start in range(len(padded) - 2)]
