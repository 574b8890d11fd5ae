"""`python -m tunnel_rs` is `tunnel-rs`."""

from tunnel_rs.cli.main import main

main()
