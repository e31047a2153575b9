"""LangGraph's and LangChain's interfaces on an lgkv file: checkpointer, stores, node cache."""

from lgkv.langgraph.cache import LgkvCache
from lgkv.langgraph.saver import LgkvSaver
from lgkv.langgraph.serde import StrictSerializer, merge_schemas_when_compiling
from lgkv.langgraph.store import AsyncLgkvStore, LgkvStore
from lgkv.langgraph.vectorstore import LgkvVectorStore

__all__ = [
    "AsyncLgkvStore",
    "LgkvCache",
    "LgkvSaver",
    "LgkvStore",
    "LgkvVectorStore",
    "StrictSerializer",
]

merge_schemas_when_compiling()
