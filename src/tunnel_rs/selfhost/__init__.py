"""Servers for people who run everything themselves: relay and discovery."""
