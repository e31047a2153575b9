"""lgkv: an embedded single-file storage engine with a vector index, for agents' memory."""
