"""Values of every kind that are well formed, and files that hold them. None is used anywhere."""

from pathlib import Path

# Spec tunnel-protocol.md, "Tokens".
TOKEN = "iabcdefghijklmnopg"
OTHER_TOKEN = "iZ9-_.Z9-_.Z9-_.ZU"
BAD_TOKEN = "ikAdvudu_ZxNXhNLCD"

# RFC 8032 section 7.1, test 1.
SECRET_KEY = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
ENDPOINT_ID = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

SERVER_HEAD = 'role = "server"\nmode = "iroh"\n'
CLIENT_HEAD = 'role = "client"\nmode = "iroh"\n'

SERVER_FILE = f"""{SERVER_HEAD}
[iroh]
secret = "{SECRET_KEY}"
auth_tokens = ["{TOKEN}"]
[iroh.allowed_sources]
tcp = ["127.0.0.0/8"]
"""

CLIENT_FILE = f"""{CLIENT_HEAD}
[iroh]
server_node_id = "{ENDPOINT_ID}"
auth_token = "{TOKEN}"
request_source = "tcp://127.0.0.1:22"
target = "127.0.0.1:2222"
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
