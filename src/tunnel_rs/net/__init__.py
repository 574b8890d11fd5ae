"""asyncio shells: the only owners of sockets, timers and tasks."""
