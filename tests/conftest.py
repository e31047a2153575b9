"""How hypothesis looks for counterexamples: a while in the tests, long in `make fuzz`."""

from hypothesis import settings

# A busy machine is no failure, so no example has a deadline.
settings.register_profile("short", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.register_profile("sanitized", deadline=None, max_examples=500)  # on a slow build
settings.load_profile("short")
