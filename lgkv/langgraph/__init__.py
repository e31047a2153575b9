"""LangGraph's interfaces on an lgkv file: checkpointer, store and node cache."""

from lgkv.langgraph.cache import LgkvCache
from lgkv.langgraph.saver import LgkvSaver
from lgkv.langgraph.serde import StrictSerializer, merge_schemas_when_compiling
from lgkv.langgraph.store import AsyncLgkvStore, LgkvStore

__all__ = ["AsyncLgkvStore", "LgkvCache", "LgkvSaver", "LgkvStore", "StrictSerializer"]

merge_schemas_when_compiling()
