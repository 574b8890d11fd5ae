"""Pure protocol code: bytes, events, `now` and randomness in; bytes, events and deadlines out."""
