"""pproxy as its own command runs it: `python bench/pproxy_forward.py OPTIONS OF PPROXY`.

Its start wants an event loop that is there already, which newer versions of uvloop and of Python
no longer make by the way.
"""

import asyncio
import importlib
from typing import Any

try:
    uvloop: Any = importlib.import_module("uvloop")
except ImportError:
    pass
else:
    uvloop.install()
    uvloop.install = lambda: None  # once more, and the loop below would be forgotten
asyncio.set_event_loop(asyncio.new_event_loop())
importlib.import_module("pproxy.server").main()
