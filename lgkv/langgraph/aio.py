"""The same classes under the names that the other packages use for their async twins."""

from lgkv.langgraph.cache import LgkvCache as AsyncLgkvCache
from lgkv.langgraph.saver import LgkvSaver as AsyncLgkvSaver
from lgkv.langgraph.store import AsyncLgkvStore

__all__ = ["AsyncLgkvCache", "AsyncLgkvSaver", "AsyncLgkvStore"]
