"""Links to peers named by an EndpointId: finding them, dialling them, accepting them."""
