"""IP packets over a link: a VPN server, and its client."""
