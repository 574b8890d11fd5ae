"""The program `tunnel-rs-ice`: links that ICE finds and that people or Nostr relays introduce."""
