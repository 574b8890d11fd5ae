"""The runtime that every test lives in: see `tests.support.hostile`."""

pytest_plugins = ["tests.support.hostile"]
